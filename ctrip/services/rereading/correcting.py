"""Blocks that were read again, compared with the rows; what differs is put right in one short transaction.

    compare, the blocks are the canonical ones │ where something differs, ask other endpoints │ one transaction: lock
    the listener's loop row · compare once more · orphan what no endpoint's block holds · store what is missing ·
    finality, assessment · coverage

What one endpoint leaves out takes nothing back, and a payment that loses one transfer and gets another is assessed
once. The row's lock keeps the listener's own transactions out, so no claim is needed, and no run of it is lost.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.reading import BlocksRead
from ctrip.blockchain.verifying import agreeing, refuted, verify
from ctrip.context import Context
from ctrip.database import coverage, cursors, finality, loops, payments, refused_transfers, rereading, transfers
from ctrip.domain.addresses import hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.loops import LoopKind
from ctrip.domain.processing import Difference, difference
from ctrip.domain.scanning import BlockRange, Header
from ctrip.domain.transfers import Transfer
from ctrip.errors import BlockVanished
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


@dataclass(frozen=True)
class _Heard:
    """What other endpoints said of a difference: the ids of the strangers that none has, the places of what is there.

    `agreed` are old blocks that are others than was read before, and that another endpoint has as well.
    """

    refuted: frozenset[str] = frozenset()
    borne_out: frozenset[tuple[object, ...]] = frozenset()
    agreed: frozenset[bytes] = frozenset()


def put_right(
    ctx: Context,
    chain: Chain,
    read: BlocksRead | None = None,
    *,
    compared_with: Compared | None = None,
    touched: Iterable[str] = (),
    noted: Noted | None = None,
    keep_lease: Callable[[], None] = lambda: None,
) -> Corrected:
    """Make the rows say what whole blocks hold; what was right stays as it is, without an event.

    Compared are all transfers in them, or those of `compared_with` where the reading looked for no others. Payments of
    `touched` are assessed in any case. Raises BlockVanished where other blocks were read before, NodeUnavailable where
    another endpoint has other ones, NotFound where the chain has no listener.
    """
    compared_with, concerned, found = compared_with or _all_of(chain), set(touched), Difference()
    heard = _Heard() if read is None else _hear(ctx, chain, read, compared_with, keep_lease=keep_lease)
    with ctx.sessions.begin() as session:
        loops.lock(session, loops.loop_name(LoopKind.LISTENER, chain.chain_id))
        if read is not None:
            found, changed = _store(ctx, session, chain, read, heard=heard, compared_with=compared_with)
            concerned |= {each.payment_id for each in changed}
        delivery_ids = _assess(ctx, session, chain, concerned)
        if noted is not None and read is not None:
            _note(session, chain, noted, endpoint=read.endpoint)
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
    """Note blocks as read for the assets that lack some of them: what was right stays as it is here too."""
    tokens = [token.address for token in chain.tokens] if noted.tokens is None else noted.tokens
    coverage.extend(
        session,
        chain.chain_id,
        tokens=[token for token in tokens if coverage.gaps(session, chain.chain_id, token, noted.blocks)],
        read=noted.blocks,
        parent_hash=noted.parent_hash,
        last_hash=noted.last_hash,
        endpoint=endpoint,
    )


def _hear(
    ctx: Context, chain: Chain, read: BlocksRead, compared_with: Compared, *, keep_lease: Callable[[], None]
) -> _Heard:
    """Ask other endpoints for all that differs: one that leaves something out, or is on a fork, takes nothing back."""
    client = ctx.clients[chain.chain_id]
    with ctx.sessions.begin() as session:
        found, others = _compare(session, chain, read, compared_with)
        missing = transfers.of_sightings(session, chain, found.missing, endpoint=read.endpoint, new_id=ctx.new_id)
        cursor = cursors.find(session, chain.chain_id)
    if others and not agreeing(client, others, told_by=read.endpoint, keep_lease=keep_lease):
        raise _other_than_read(chain, others[0])
    hashes = {header.hash for header in read.headers}
    strangers = [each for each in found.strangers if each.block_hash in hashes]
    false = [
        *(each for each in found.strangers if each.block_hash not in hashes),
        *refuted(client, strangers, keep_lease=keep_lease),
    ]
    _dispute(client, read, kept=set(found.strangers) - set(false))
    read_block = -1 if cursor is None else cursor.read_block
    deep = [each for each in missing if each.block_number <= read_block - each.required + 1]
    borne_out = verify(client, deep, keep_lease=keep_lease).borne_out
    return _Heard(
        refuted=frozenset(each.id for each in false),
        borne_out=frozenset(_place(each) for each in deep if each.id in borne_out),
        agreed=frozenset(header.hash for header in others),
    )


def _dispute(client: ChainClient, read: BlocksRead, *, kept: Collection[Transfer]) -> None:
    for each in kept:
        log.warning("stranger_kept", chain=client.chain.name, transfer_id=each.id, endpoint=read.endpoint)
        client.dispute("receipt", f"{read.endpoint} lacks a transfer in block {each.block_number}; it is kept")


def _store(
    ctx: Context, session: Session, chain: Chain, read: BlocksRead, *, heard: _Heard, compared_with: Compared
) -> tuple[Difference, list[Transfer]]:
    """Orphan first, then store: a transaction that stands in another block by now is canonical once.

    Returns what differed and was put right, and the transfers that came and went.
    """
    found, others = _compare(session, chain, read, compared_with)
    for header in others:
        if header.hash not in heard.agreed:
            raise _other_than_read(chain, header)
    strangers = tuple(each for each in found.strangers if each.id in heard.refuted)
    transfers.orphan(session, [transfer.id for transfer in strangers])
    refused_transfers.store(session, chain.chain_id, read.failed, endpoint=read.endpoint)
    if not found.missing:
        return Difference(strangers=strangers), list(strangers)
    rereading.check_not_elsewhere(session, chain, found.missing)
    stored = transfers.store_sightings(session, chain, found.missing, endpoint=read.endpoint, new_id=ctx.new_id)
    there = rereading.readable(session, chain, numbers={each.block_number for each in stored})
    finality.mark_verified(session, [each.id for each in there if _place(each) in heard.borne_out])
    return Difference(found.missing, strangers), [*strangers, *stored]


def _compare(
    session: Session, chain: Chain, read: BlocksRead, compared_with: Compared
) -> tuple[Difference, list[Header]]:
    """Return how the rows differ from blocks, and which of the blocks are others than the rows know. BlockVanished."""
    others = rereading.check_canonical(session, chain, read.headers)
    numbers = {header.number for header in read.headers}
    return difference(compared_with(session, numbers), read.sightings, blocks=numbers), others


def _other_than_read(chain: Chain, header: Header) -> BlockVanished:
    return BlockVanished(
        f"block {header.number} of {chain.name} is another one than was read before, and no other endpoint bears it out"
    )


def _place(of: Transfer) -> tuple[object, ...]:
    return of.block_hash, of.tx_hash, of.log_index


def _assess(ctx: Context, session: Session, chain: Chain, concerned: set[str]) -> list[str]:
    if not concerned:
        return []
    touched = concerned | finality.settle_finality(session, chain.chain_id)
    return payments.reassess(session, touched, chains=ctx.settings.chains_by_id, new_id=ctx.new_id)
