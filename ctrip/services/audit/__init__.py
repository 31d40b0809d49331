"""The auditor: every invariant, from the rows alone and, where there is a client, against the chain. It only reads.

The rows are read in one snapshot, so a system at work can be audited.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from eth_hash.auto import keccak
from sqlalchemy import Connection

from ctrip.blockchain.mnemonic import holds_phrase
from ctrip.context import Context
from ctrip.database import audit as rows
from ctrip.database import payments, transfers
from ctrip.domain.addresses import checksum_address
from ctrip.domain.audit import Violation, secret_found
from ctrip.domain.chains import Chain
from ctrip.domain.payments import Facts, Payment, Settlement, Standing, assess, payment_object
from ctrip.domain.transfers import Transfer
from ctrip.log import SECRET_PATTERN
from ctrip.services.audit.chain import Progress, standing_both_times

BATCH = 500


def audit(
    ctx: Context, *, on_progress: Progress = lambda _what, _done, _total: None, texts: Iterable[tuple[str, str]] = ()
) -> list[Violation]:
    """Return every violation of the invariants that is found.

    The chains are re-read for which `ctx` has a client, the addresses derived again where it has the wallet. `texts`
    are looked through for secrets: logs, or what Redis holds, each with a name.
    Raises ChainError where a node cannot be read, and Unavailable.
    """
    chains = ctx.settings.chains_by_id
    found: list[Violation] = []
    with ctx.sessions.begin() as session:
        rows.take_snapshot(session)
        found += rows.broken(session)
        found += rows.kept_secrets(session, is_phrase=holds_phrase)
        found += _check_payments(session, chains, on_progress)
        found += _check_addresses(ctx, session, on_progress)
        found += _check_signed(session, on_progress)
        found += _check_destinations(session, chains)
    for client in ctx.clients.values():
        found += standing_both_times(ctx, client, on_progress)
    return found + list(find_secrets(texts))


def find_secrets(texts: Iterable[tuple[str, str]]) -> Iterator[Violation]:
    """Look for secrets in texts that each have a name, such as a log's lines or what Redis holds. None is repeated."""
    pattern = re.compile(SECRET_PATTERN)
    for name, text in texts:
        if pattern.search(text) or holds_phrase(text):
            yield secret_found(name, name)


def _check_payments(session: Connection, chains: dict[int, Chain], on_progress: Progress) -> Iterator[Violation]:
    """Assess every payment again, and compare it with what its newest event told."""
    done, last_id = 0, ""
    while batch := rows.payments_after(session, last_id, limit=BATCH):
        ids = [payment.id for payment in batch]
        arrived = transfers.of_payments(session, ids)
        facts = payments.facts_of(session, [p for p in batch if payments.is_configured(p, chains)], chains=chains)
        bodies = rows.last_bodies(session, ids)
        for payment in batch:
            if payment.id in facts:
                yield from _check_standing(payment, tuple(arrived[payment.id]), facts[payment.id])
            if payment.id in bodies:
                yield from _check_last_event(payment, bodies[payment.id])
        done, last_id = done + len(batch), ids[-1]
        on_progress("payments", done, 0)


def _check_standing(payment: Payment, arrived: tuple[Transfer, ...], facts: Facts) -> Iterator[Violation]:
    # What was received and confirmed is a sum, which invariants.sql compares.
    stored = replace(payment.standing, received=0)
    assessment = assess(payment, arrived, facts)
    right = replace(assessment.standing, received=0)
    if _comparable(stored) != _comparable(right) or stored.completed_block != right.completed_block:
        sentence = f"payment {payment.id} stands as {stored}, and the facts say {right}"
        yield Violation("1 payment_stands_where_the_facts_say", (payment.id,), sentence)
    for verdict in assessment.verdicts:
        transfer = verdict.transfer
        if (transfer.counts, transfer.reason) != (verdict.counts, verdict.reason):
            sentence = f"transfer {transfer.id} has the reason {transfer.reason}, and the facts say {verdict.reason}"
            yield Violation("1 transfer_counts_as_the_facts_say", (transfer.id, payment.id), sentence)


def _comparable(standing: Standing) -> Standing:
    """Which of the two an unswept payment is depends on a threshold that may be configured anew at any time."""
    is_below = standing.settlement is Settlement.BELOW_THRESHOLD
    return replace(standing, settlement=Settlement.WAITING) if is_below else standing


def _check_last_event(payment: Payment, body: dict[str, object]) -> Iterator[Violation]:
    told, shown = body.get("payment"), payment_object(payment, read_block=0)
    growing = ("confirmations", "confirmed", "confirmed_atomic")
    told = told if isinstance(told, dict) else {}
    differing = [name for name in shown if name not in growing and told.get(name) != shown[name]]
    if differing:
        sentence = f"payment {payment.id} is not what its newest event told: {', '.join(differing)}"
        yield Violation("2 newest_event_tells_the_payment", (payment.id,), sentence)


def _check_addresses(ctx: Context, session: Connection, on_progress: Progress) -> Iterator[Violation]:
    """Derive every address of our wallet again."""
    done, last = 0, b""
    while ctx.wallet is not None and (batch := rows.issued_after(session, last, limit=BATCH)):
        for issued in batch:
            is_ours = issued.wallet_fingerprint == ctx.wallet.fingerprint
            if is_ours and ctx.wallet.address(issued.index) != issued.address:
                sentence = f"{checksum_address(issued.address)} is not the wallet's address {issued.index}"
                yield Violation("4 address_derives_from_the_wallet", (issued.payment_id,), sentence)
        done, last = done + len(batch), batch[-1].address
        on_progress("addresses", done, 0)


def _check_signed(session: Connection, on_progress: Progress) -> Iterator[Violation]:
    """Hash every signed transaction again."""
    done, last = 0, ("", 0)
    while batch := rows.signed_after(session, *last, limit=BATCH):
        for signed in batch:
            if keccak(signed.raw) != signed.tx_hash:
                sentence = f"attempt {signed.number} of {signed.intent_id} is stored under another hash than its own"
                yield Violation("5 attempt_has_the_hash_of_its_bytes", (signed.intent_id,), sentence)
        done, last = done + len(batch), (batch[-1].intent_id, batch[-1].number)
        on_progress("signed transactions", done, 0)


def _check_destinations(session: Connection, chains: dict[int, Chain]) -> Iterator[Violation]:
    for to in rows.destinations(session):
        if to.chain_id in chains and to.recipient != chains[to.chain_id].treasury:
            sentence = (
                f"{to.count} sweeps of {chains[to.chain_id].name} go to {checksum_address(to.recipient)}, which is not "
                "its treasury; that is right only for those made before the treasury was changed"
            )
            yield Violation("5 sweeps_go_to_the_treasury", (to.intent_id,), sentence)
