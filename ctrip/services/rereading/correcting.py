"""Blocks that were read again, compared with the rows; what differs is put right in short transactions.

    lock the listener's loop row · the blocks are still the canonical ones · orphan what they do not hold · store what
    is missing · coverage │ where something was missing, other endpoints bear it out │ finality, assessment

The row's lock keeps the listener's own transactions out, so no claim is needed, and no run of it is lost.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from ctrip.blockchain.reading import BlocksRead
from ctrip.blockchain.verifying import verify
from ctrip.context import Context
from ctrip.database import coverage, cursors, finality, loops, payments, rereading, transfers
from ctrip.domain.addresses import hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.loops import LoopKind
from ctrip.domain.processing import Difference, difference
from ctrip.domain.scanning import BlockRange
from ctrip.domain.transfers import Transfer
from ctrip.log import get_logger

Compared = Callable[[Session, Collection[int]], Sequence[Transfer]]
"""Returns the stored transfers of some blocks that what was read is compared with."""
log = get_logger()


@dataclass(frozen=True)
class Corrected:
    """What was put right, and the ids of the webhooks that are due now because of it."""

    found: Difference
    delivery_ids: tuple[str, ...]


@dataclass(frozen=True)
class Noted:
    """Blocks that count as read with this, and of which assets; None: of all that are listed."""

    blocks: BlockRange
    parent_hash: bytes
    last_hash: bytes
    tokens: Collection[bytes] | None = None


def put_right(
    ctx: Context,
    chain: Chain,
    read: BlocksRead | None = None,
    *,
    compared_with: Compared | None = None,
    touched: Iterable[str] = (),
    noted: Noted | None = None,
) -> Corrected:
    """Make the rows say what whole blocks hold; what was right stays as it is, without an event.

    Compared are all transfers in them, or those of `compared_with` where the reading looked for no others. Payments of
    `touched` are assessed in any case. Raises BlockVanished where the listener has read other blocks, NotFound where
    the chain has no listener.
    """
    concerned, found, unverified = set(touched), Difference(), list[Transfer]()
    with ctx.sessions.begin() as session:
        loops.lock(session, loops.loop_name(LoopKind.LISTENER, chain.chain_id))
        if read is not None:
            rereading.check_canonical(session, chain, read.headers)
            numbers = {header.number for header in read.headers}
            stored = (compared_with or _all_of(chain))(session, numbers)
            found = difference(stored, read.sightings, blocks=numbers)
            unverified = _store(ctx, session, chain, found, endpoint=read.endpoint)
            concerned |= {each.payment_id for each in (*unverified, *found.strangers)}
        # A payment that lost a transfer here and gets it back must not be told of twice, so it is assessed once, when
        # it is known whether that is final. After a crash in between the listener verifies it, and assesses.
        delivery_ids = [] if unverified else _assess(ctx, session, chain, concerned)
        if noted is not None and read is not None:
            _note(session, chain, noted, endpoint=read.endpoint)
    if unverified:
        delivery_ids = _verify_and_assess(ctx, chain, unverified, concerned)
    for each in found.missing:
        log.warning("missed_transfer_stored", chain=chain.name, block=each.block_number, token=hex_text(each.token))
    for stranger in found.strangers:
        log.warning("false_transfer_orphaned", chain=chain.name, transfer_id=stranger.id)
    return Corrected(found, tuple(delivery_ids))


def all_of(read: BlocksRead) -> Noted:
    """Say that linked blocks, read whole, were read for every asset."""
    first, last = read.headers[0], read.headers[-1]
    return Noted(BlockRange(first.number, last.number), parent_hash=first.parent_hash, last_hash=last.hash)


def issued(ctx: Context) -> Callable[[set[bytes]], set[bytes]]:
    """Return what asks Postgres which addresses are ours."""

    def ours(addresses: set[bytes]) -> set[bytes]:
        with ctx.sessions.begin() as session:
            return transfers.issued(session, addresses)

    return ours


def _all_of(chain: Chain) -> Compared:
    return lambda session, numbers: rereading.readable(session, chain, numbers=numbers)


def _note(session: Session, chain: Chain, noted: Noted, *, endpoint: str) -> None:
    coverage.extend(
        session,
        chain.chain_id,
        tokens=[token.address for token in chain.tokens] if noted.tokens is None else noted.tokens,
        read=noted.blocks,
        parent_hash=noted.parent_hash,
        last_hash=noted.last_hash,
        endpoint=endpoint,
    )


def _store(ctx: Context, session: Session, chain: Chain, found: Difference, *, endpoint: str) -> list[Transfer]:
    """Orphan first, then store: a transaction that stands in another block by now is canonical once."""
    transfers.orphan(session, [transfer.id for transfer in found.strangers])
    return transfers.store_sightings(session, chain, found.missing, endpoint=endpoint, new_id=ctx.new_id)


def _verify_and_assess(ctx: Context, chain: Chain, unverified: Sequence[Transfer], concerned: set[str]) -> list[str]:
    with ctx.sessions.begin() as session:
        cursor = cursors.find(session, chain.chain_id)
    read_block = -1 if cursor is None else cursor.read_block
    deep = [each for each in unverified if each.block_number <= read_block - each.required + 1]
    borne_out = verify(ctx.clients[chain.chain_id], deep, keep_lease=lambda: None)
    with ctx.sessions.begin() as session:
        loops.lock(session, loops.loop_name(LoopKind.LISTENER, chain.chain_id))
        finality.mark_verified(session, borne_out)
        return _assess(ctx, session, chain, concerned)


def _assess(ctx: Context, session: Session, chain: Chain, concerned: set[str]) -> list[str]:
    if not concerned:
        return []
    touched = concerned | finality.settle_finality(session, chain.chain_id)
    return payments.reassess(session, touched, chains=ctx.settings.chains_by_id, new_id=ctx.new_id)
