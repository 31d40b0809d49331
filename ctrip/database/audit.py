"""What the auditor reads: the invariants that SQL can say, from one snapshot, and the rows for those that it cannot."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.models import deposit_addresses, events, payments, sweep_attempts, sweep_intents, transfers
from ctrip.database.standings import payment_of
from ctrip.database.transfers import transfer_of
from ctrip.database.work import JOB_DIED
from ctrip.domain.audit import Violation, secret_found
from ctrip.domain.payments import TRANSITIONS, Payment
from ctrip.domain.sweeps import IntentKind
from ctrip.domain.transfers import Transfer, TransferStatus
from ctrip.log import SECRET_PATTERN

MOST_PER_INVARIANT = 100
"""Whoever has more violations of one kind than this knows enough."""

_HEX_KEY = r"(?<![0-9A-Za-z])0x[0-9a-fA-F]{64}(?![0-9A-Za-z])"
"""A private key as GAS_KEY is written, or a hash: only looked for where no hash may stand."""
_WORDS = r"(?<![a-z])([a-z]{3,8}\s+){11}[a-z]{3,8}(?![a-z])"
"""Twelve words that could be a seed phrase by their lengths (BIP-39: 3 to 8 letters), or ordinary prose."""
_HEADING = re.compile(r"^-- invariant: (\d \w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Issued:
    """An address as it was issued."""

    address: bytes
    wallet_fingerprint: bytes
    index: int
    payment_id: str


@dataclass(frozen=True)
class Signed:
    """A stored signed transaction."""

    intent_id: str
    number: int
    raw: bytes
    tx_hash: bytes


@dataclass(frozen=True)
class Destination:
    """Where sweeps of a chain went, or will: `count` of them, the first being `intent_id`."""

    chain_id: int
    recipient: bytes
    count: int
    intent_id: str


def take_snapshot(session: Connection) -> None:
    """Let all that this transaction reads be of one moment, and let it take its time. Comes first in a transaction."""
    session.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    session.execute(sa.text("SET LOCAL statement_timeout = '15min'"))


def invariants() -> Iterator[tuple[str, str]]:
    """Return the queries of invariants.sql by number and name."""
    _, *parts = _HEADING.split(Path(__file__).with_name("invariants.sql").read_text())
    for name, query in zip(parts[::2], parts[1::2], strict=True):
        yield name, query.strip().rstrip(";")


def broken(session: Connection) -> list[Violation]:
    """Return what violates the invariants of invariants.sql, MOST_PER_INVARIANT of each at the most."""
    arrows = [{"before": old, "after": new} for old, targets in TRANSITIONS.items() for new in targets]
    parameters = {"arrows": json.dumps(arrows), "job_died": JOB_DIED}
    found = []
    for name, query in invariants():
        needed = {key: value for key, value in parameters.items() if f":{key}" in query}
        rows = session.execute(sa.text(f"SELECT * FROM ({query}) AS found LIMIT {MOST_PER_INVARIANT}"), needed)  # noqa: S608 (from our own file)
        found += [Violation(name, tuple(row.ids), row.sentence) for row in rows]
    return found


def kept_secrets(session: Connection, *, is_phrase: Callable[[str], bool]) -> list[Violation]:
    """Return the texts that hold a secret, MOST_PER_INVARIANT at the most.

    Postgres cannot know the words of BIP-39: it narrows down, and `is_phrase` says whether a seed phrase is in a text.
    """
    texts = Path(__file__).with_name("kept_texts.sql").read_text()
    query = sa.text(
        "SELECT place, id, said, said ~ :keys OR (NOT has_hashes AND said ~ :hex_key) AS is_key "  # noqa: S608 (from our own file)
        f"FROM ({texts}) AS kept "
        "WHERE said ~ :keys OR (NOT has_hashes AND said ~ :hex_key) OR (is_ours AND said ~ :words)"
    )
    patterns = {"keys": SECRET_PATTERN, "hex_key": _HEX_KEY, "words": _WORDS}
    rows = session.execute(query, patterns, execution_options={"yield_per": MOST_PER_INVARIANT})
    found = (secret_found(row.place, row.id) for row in rows if row.is_key or is_phrase(row.said))
    return list(islice(found, MOST_PER_INVARIANT))


def payments_after(session: Connection, payment_id: str, *, limit: int) -> list[Payment]:
    """Return payments in the order of their ids, those after one."""
    query = sa.select(payments).where(payments.c.id > payment_id).order_by(payments.c.id).limit(limit)
    return [payment_of(row) for row in session.execute(query)]


def last_bodies(session: Connection, payment_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the newest event of each payment told."""
    query = (
        sa.select(events.c.payment_id, events.c.body)
        .ext(pg.distinct_on(events.c.payment_id))
        .where(events.c.payment_id.in_(payment_ids))
        .order_by(events.c.payment_id, events.c.version.desc())
    )
    return {row.payment_id: row.body for row in session.execute(query)}


def issued_after(session: Connection, address: bytes, *, limit: int) -> list[Issued]:
    """Return issued addresses in their order, those after one."""
    of = deposit_addresses.c
    query = sa.select(of.address, of.wallet_fingerprint, of.derivation_index, of.payment_id)
    rows = session.execute(query.where(of.address > address).order_by(of.address).limit(limit))
    return [Issued(*row) for row in rows]


def signed_after(session: Connection, intent_id: str, number: int, *, limit: int) -> list[Signed]:
    """Return signed transactions in the order of their intents, those after one."""
    of = sweep_attempts.c
    query = sa.select(of.intent_id, of.number, of.raw, of.tx_hash)
    later = sa.tuple_(of.intent_id, of.number) > sa.tuple_(sa.literal(intent_id), sa.literal(number))
    return [Signed(*row) for row in session.execute(query.where(later).order_by(of.intent_id, of.number).limit(limit))]


def destinations(session: Connection) -> list[Destination]:
    """Return where sweeps go, by chain and recipient."""
    of = sweep_intents.c
    query = sa.select(of.chain_id, of.recipient, sa.func.count(), sa.func.min(of.id))
    rows = session.execute(query.where(of.kind == IntentKind.SWEEP).group_by(of.chain_id, of.recipient))
    return [Destination(*row) for row in rows]


def canonical_transfers(session: Connection, chain_id: int, *, first: int, last: int) -> list[Transfer]:
    """Return the canonical transfers of the blocks `first` to `last`."""
    query = sa.select(transfers).where(
        transfers.c.chain_id == chain_id,
        transfers.c.block_number.between(first, last),
        transfers.c.status != TransferStatus.ORPHANED,
    )
    return [transfer_of(row) for row in session.execute(query)]


def paid_addresses_after(session: Connection, chain_id: int, address: bytes, *, limit: int) -> list[bytes]:
    """Return the addresses that transfers came to, in their order, those after one."""
    of = transfers.c
    query = sa.select(of.recipient).distinct().where(of.chain_id == chain_id, of.recipient > address)
    return list(session.scalars(query.order_by(of.recipient).limit(limit)))
