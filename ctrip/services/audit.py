"""The auditor: every invariant, from the rows alone and, where there is a client, against the chain. It only reads.

The rows are read in one snapshot, so a system at work can be audited. The chain moves meanwhile: what it contradicts is
looked at twice, because the listener may have been about to follow a reorg, and only what stands both times is told.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from eth_utils.crypto import keccak
from sqlalchemy.orm import Session

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import Block
from ctrip.blockchain.mnemonic import holds_phrase
from ctrip.context import Context
from ctrip.database import audit as rows
from ctrip.database import cursors, payments, transfers
from ctrip.domain.addresses import checksum_address, hex_text
from ctrip.domain.audit import Violation, secret_found
from ctrip.domain.chains import Chain
from ctrip.domain.payments import Facts, Payment, Settlement, Standing, assess, payment_object
from ctrip.domain.scanning import BlockRange, Cursor, Header, is_linked
from ctrip.domain.transfers import Sighting, Transfer
from ctrip.errors import BlockVanished
from ctrip.log import SECRET_PATTERN

BATCH = 500
BLOCKS_AT_ONCE = 50
LOOKS = 3

Progress = Callable[[str, int, int], None]
"""Told of long work: what is looked at, how much of it is done, and how much there is (0: nobody counted)."""


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
        found += _standing_both_times(ctx, client, on_progress)
    return found + list(find_secrets(texts))


def find_secrets(texts: Iterable[tuple[str, str]]) -> Iterator[Violation]:
    """Look for secrets in texts that each have a name, such as a log's lines or what Redis holds. None is repeated."""
    pattern = re.compile(SECRET_PATTERN)
    for name, text in texts:
        if pattern.search(text) or holds_phrase(text):
            yield secret_found(name, name)


# --- from the rows --------------------------------------------------------------------------------------------------


def _check_payments(session: Session, chains: dict[int, Chain], on_progress: Progress) -> Iterator[Violation]:
    """Assess every payment again, and compare it with what its newest event told."""
    done, last_id = 0, ""
    while batch := rows.payments_after(session, last_id, limit=BATCH):
        ids = [payment.id for payment in batch]
        arrived = transfers.of_payments(session, ids)
        facts = payments.facts_of(session, [p for p in batch if p.chain_id in chains], chains=chains)
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


def _check_addresses(ctx: Context, session: Session, on_progress: Progress) -> Iterator[Violation]:
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


def _check_signed(session: Session, on_progress: Progress) -> Iterator[Violation]:
    """Hash every signed transaction again."""
    done, last = 0, ("", 0)
    while batch := rows.signed_after(session, *last, limit=BATCH):
        for signed in batch:
            if keccak(signed.raw) != signed.tx_hash:
                sentence = f"attempt {signed.number} of {signed.intent_id} is stored under another hash than its own"
                yield Violation("5 attempt_has_the_hash_of_its_bytes", (signed.intent_id,), sentence)
        done, last = done + len(batch), (batch[-1].intent_id, batch[-1].number)
        on_progress("signed transactions", done, 0)


def _check_destinations(session: Session, chains: dict[int, Chain]) -> Iterator[Violation]:
    for to in rows.destinations(session):
        if to.chain_id in chains and to.recipient != chains[to.chain_id].treasury:
            sentence = (
                f"{to.count} sweeps of {chains[to.chain_id].name} go to {checksum_address(to.recipient)}, which is not "
                "its treasury; that is right only for those made before the treasury was changed"
            )
            yield Violation("5 sweeps_go_to_the_treasury", (to.intent_id,), sentence)


# --- against the chain ----------------------------------------------------------------------------------------------


def _standing_both_times(ctx: Context, client: ChainClient, on_progress: Progress) -> list[Violation]:
    first = _look_at(ctx, client, on_progress)
    if not first:
        return []
    again = {(violation.invariant, violation.ids) for violation in _look_at(ctx, client, on_progress)}
    return [violation for violation in first if (violation.invariant, violation.ids) in again]


def _look_at(ctx: Context, client: ChainClient, on_progress: Progress) -> list[Violation]:
    """Read a chain's canonical blocks again and compare. Starts over where the chain moves; raises BlockVanished."""
    for _ in range(LOOKS - 1):
        try:
            return _compare(ctx, client, on_progress)
        except BlockVanished:
            continue
    return _compare(ctx, client, on_progress)


def _compare(ctx: Context, client: ChainClient, on_progress: Progress) -> list[Violation]:
    with ctx.sessions.begin() as session:
        cursor = cursors.find(session, client.chain.chain_id)
    if cursor is None:
        return []
    return [
        *_check_cursor(client, cursor),
        *_check_transfers(ctx, client, cursor, on_progress),
        *_check_balances(ctx, client, cursor, on_progress),
    ]


def _check_cursor(client: ChainClient, cursor: Cursor) -> Iterator[Violation]:
    there = client.headers([cursor.read_block]).get(cursor.read_block)
    if there is None or there.hash != cursor.read_hash:
        sentence = f"the cursor of {client.chain.name} stands on a block {cursor.read_block} that is not canonical"
        yield Violation("8 cursor_stands_on_a_canonical_block", (str(cursor.chain_id),), sentence)


def _check_transfers(ctx: Context, client: ChainClient, cursor: Cursor, on_progress: Progress) -> Iterator[Violation]:
    """Compare every transfer to an issued address, in every block that was read, with the canonical rows."""
    read = cursor.read_block - cursor.start_block
    before: Header | None = None
    for first in range(cursor.start_block + 1, cursor.read_block + 1, BLOCKS_AT_ONCE):
        wanted = BlockRange(first, min(first + BLOCKS_AT_ONCE - 1, cursor.read_block))
        blocks = client.blocks(wanted)
        headers = [block.header for block in blocks]
        if not is_linked(headers, parent_hash=before.hash if before else headers[0].parent_hash):
            raise BlockVanished(f"{client.chain.name} moved while it was audited")
        before = headers[-1]
        there = _sightings(ctx, client, blocks)
        with ctx.sessions.begin() as session:
            stored = rows.canonical_transfers(session, cursor.chain_id, first=wanted.first, last=wanted.last)
        yield from _differences(client.chain, there, stored)
        on_progress(f"blocks of {client.chain.name}", wanted.last - cursor.start_block, read)


def _sightings(ctx: Context, client: ChainClient, blocks: Sequence[Block]) -> list[Sighting]:
    tokens = client.token_transfers([block.header for block in blocks])
    recipients = {sighting.recipient for sighting in tokens}.union(*(block.recipients() for block in blocks))
    with ctx.sessions.begin() as session:
        issued = transfers.owners(session, sorted(recipients))
    coin = [sighting for block in blocks for sighting in block.coin_to(issued)]
    receipts = client.receipts([sighting.tx_hash for sighting in coin])
    if len(receipts) < len({sighting.tx_hash for sighting in coin}):
        raise BlockVanished(f"{client.chain.name} lost a receipt while it was audited")
    moved = [sighting for sighting in coin if receipts[sighting.tx_hash].succeeded]
    return moved + [sighting for sighting in tokens if sighting.recipient in issued]


def _differences(chain: Chain, there: Sequence[Sighting], stored: Sequence[Transfer]) -> Iterator[Violation]:
    listed = {token.address for token in chain.tokens}
    on_chain = {(seen.tx_hash, seen.log_index): _content(seen) for seen in there}
    told = [(row.tx_hash, row) for row in stored if row.token in listed]
    # Coin that was inferred from a balance is in no block's transactions: the balances are compared by themselves.
    in_rows = {(tx_hash, row.log_index): _content(row) for tx_hash, row in told if tx_hash is not None}
    for tx_hash, log_index in sorted(on_chain.keys() | in_rows.keys()):
        seen, row = on_chain.get((tx_hash, log_index)), in_rows.get((tx_hash, log_index))
        where = f"log {log_index} of {hex_text(tx_hash)} on {chain.name}"
        if row is None:
            yield Violation("1 transfer_is_stored", (hex_text(tx_hash), str(log_index)), f"{where} is not stored")
        elif seen is None:
            sentence = f"{where} is stored as canonical, and the chain has no such transfer"
            yield Violation("1 credit_is_on_the_chain", (hex_text(tx_hash), str(log_index)), sentence)
        elif seen != row:
            sentence = f"{where} is stored with another block, party, asset or amount than the chain has"
            yield Violation("1 transfer_is_stored_as_it_is", (hex_text(tx_hash), str(log_index)), sentence)


def _content(of: Sighting | Transfer) -> tuple[object, ...]:
    return of.block_number, of.block_hash, of.block_time, of.token, of.sender, of.recipient, of.amount


def _check_balances(ctx: Context, client: ChainClient, cursor: Cursor, on_progress: Progress) -> Iterator[Violation]:
    """Compare what each paid address holds with what it must hold. More is no fault: coin may come from contracts."""
    done, last, listed = 0, b"", {token.address for token in client.chain.tokens}
    while True:
        with ctx.sessions.begin() as session:
            addresses = rows.paid_addresses_after(session, cursor.chain_id, last, limit=BATCH)
            held = rows.holdings(session, cursor.chain_id, addresses, block=cursor.read_block)
        if not addresses:
            return
        held = [holding for holding in held if holding.token in listed]
        balances = client.balances([(h.address, h.token) for h in held], block=cursor.read_block)
        for holding, balance in zip(held, balances, strict=True):
            if balance < holding.amount:
                where = (checksum_address(holding.address), checksum_address(holding.token))
                sentence = f"{where[0]} holds {balance} of {where[1]}, and by the rows {holding.amount}"
                yield Violation("5 balance_covers_the_rows", where, sentence)
        done, last = done + len(addresses), addresses[-1]
        on_progress(f"balances on {client.chain.name}", done, 0)
