"""Blocks that were read again, compared with the rows; what differs is put right in one short transaction.

    compare, the blocks are the canonical ones │ where something differs, ask other endpoints │ one transaction: lock
    the listener's loop row · compare once more · orphan what no endpoint's block holds · store what is missing ·
    finality, assessment · coverage

What one endpoint leaves out takes nothing back, and a payment that loses one transfer and gets another is assessed
once. The row's lock keeps the listener's own transactions out, so no claim is needed, and no run of it is lost.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.history import count_agreeing
from ctrip.blockchain.reading import BlocksRead
from ctrip.blockchain.recounting import recounted
from ctrip.blockchain.verifying import verify
from ctrip.context import Context
from ctrip.database import coverage, cursors, finality, loops, payments, refused_transfers, rereading, transfers
from ctrip.domain.addresses import hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.loops import LoopKind
from ctrip.domain.rereading import Difference, Facts, difference, facts_of, position_of
from ctrip.domain.scanning import BlockRange, Header
from ctrip.domain.transfers import Sighting, Transfer
from ctrip.errors import BlockVanished
from ctrip.log import get_logger
from ctrip.runs import issued

Compared = Callable[[Connection, Collection[int]], Sequence[Transfer]]
"""Returns the stored transfers of some blocks that what was read is compared with."""
log = get_logger()


@dataclass(frozen=True)
class Corrected:
    """The transfers that were missed and those that were none, and the ids of the webhooks due now because of them."""

    stored: tuple[Transfer, ...]
    orphaned: tuple[Transfer, ...]
    delivery_ids: tuple[str, ...]


@dataclass(frozen=True)
class Noted:
    """Blocks that count as read with this, and of which assets; None: of all that are listed."""

    blocks: BlockRange
    parent_hash: bytes
    last_hash: bytes
    tokens: Collection[bytes] | None = None


@dataclass(frozen=True)
class _Opinions:
    """What other endpoints said of a difference: the strangers that are false, the facts that are false or borne out.

    `there` is what most of them show in the place of what is false. `agreed` are old blocks that are others than was
    read before, and that another endpoint has as well.
    """

    refuted: frozenset[str] = frozenset()
    denied: frozenset[Facts] = frozenset()
    borne_out: frozenset[Facts] = frozenset()
    there: Mapping[str, Sequence[Sighting]] = field(default_factory=dict)
    agreed: frozenset[bytes] = frozenset()


def put_right(
    ctx: Context,
    client: ChainClient,
    read: BlocksRead | None = None,
    *,
    compared_with: Compared | None = None,
    touched: Iterable[str] = (),
    noted: Noted | None = None,
) -> Corrected:
    """Make the rows say what whole blocks hold; what was right stays as it is, without an event.

    Compared are all transfers in them, or those of `compared_with` where the reading looked for no others. Payments of
    `touched` are assessed in any case. Raises BlockVanished where other blocks were read before, NodeUnavailable where
    another endpoint has other ones, NotFound where the chain has no listener.
    """
    chain, concerned = client.chain, set(touched)
    compared_with = compared_with or _all_of(chain)
    came, went = list[Transfer](), list[Transfer]()
    opinions = _Opinions() if read is None else _hear(ctx, client, read, compared_with)
    with ctx.sessions.begin() as session:
        loops.lock(session, loops.loop_name(LoopKind.LISTENER, chain.chain_id))
        if read is not None:
            came, went = _store(ctx, session, chain, read, opinions=opinions, compared_with=compared_with)
            concerned |= {each.payment_id for each in (*came, *went)}
        delivery_ids = _assess(ctx, session, chain, concerned)
        if noted is not None and read is not None:
            _note(session, chain, noted, endpoint=read.endpoint)
    for each in came:
        log.warning("missed_transfer_stored", chain=chain.name, block=each.block_number, token=hex_text(each.token))
    for each in went:
        log.warning("false_transfer_orphaned", chain=chain.name, transfer_id=each.id)
    return Corrected(tuple(came), tuple(went), tuple(delivery_ids))


def all_of(read: BlocksRead) -> Noted:
    """Say that linked blocks, read whole, were read for every asset."""
    first, last = read.headers[0], read.headers[-1]
    return Noted(BlockRange(first.number, last.number), parent_hash=first.parent_hash, last_hash=last.hash)


def _all_of(chain: Chain) -> Compared:
    return lambda session, numbers: rereading.readable(session, chain, numbers=numbers)


def _note(session: Connection, chain: Chain, noted: Noted, *, endpoint: str) -> None:
    """Note blocks as read for the assets that lack some of them: what was right stays as it is here too."""
    tokens = chain.assets if noted.tokens is None else noted.tokens
    coverage.extend(
        session,
        chain.chain_id,
        tokens=[token for token in tokens if coverage.gaps(session, chain.chain_id, token, noted.blocks)],
        read=noted.blocks,
        parent_hash=noted.parent_hash,
        last_hash=noted.last_hash,
        endpoint=endpoint,
    )


def _hear(ctx: Context, client: ChainClient, read: BlocksRead, compared_with: Compared) -> _Opinions:
    """Ask other endpoints for all that differs: one that leaves something out, or is on a fork, takes nothing back."""
    chain = client.chain
    with ctx.sessions.begin() as session:
        found, others = _compare(session, chain, read, compared_with)
        missing = transfers.of_sightings(session, chain, found.missing, endpoint=read.endpoint, new_id=ctx.new_id)
        ours = cursors.headers(session, chain.chain_id)
    if others and not count_agreeing(client, others, told_by=read.endpoint):
        raise _other_than_read(chain, others[0])
    read_block = ours[-1].number if ours else -1
    deep = [each for each in missing if each.block_number <= read_block - each.required + 1]
    verification = verify(client, deep, ours=ours)
    hashes = {header.hash for header in read.headers}
    contested = [each for each in found.strangers if each.block_hash in hashes]
    contested += [each for each in deep if each.id in verification.contradicted]
    recount = recounted(client, contested, issued=issued(ctx))
    denied = {each.id for each in recount.denied}
    false = {each.id for each in recount.false} | {each.id for each in found.strangers if each.block_hash not in hashes}
    _dispute(client, read, kept=[each for each in found.strangers if each.id not in false])
    return _Opinions(
        refuted=frozenset(false),
        denied=frozenset(facts_of(each) for each in missing if each.id in denied),
        borne_out=frozenset(facts_of(each) for each in deep if each.id in verification.borne_out),
        there=recount.there,
        agreed=frozenset(header.hash for header in others),
    )


def _dispute(client: ChainClient, read: BlocksRead, *, kept: Collection[Transfer]) -> None:
    for each in kept:
        log.warning("stranger_kept", chain=client.chain.name, transfer_id=each.id, endpoint=read.endpoint)
        client.dispute("receipt", f"{read.endpoint} lacks a transfer in block {each.block_number}; it is kept")


def _store(
    ctx: Context, session: Connection, chain: Chain, read: BlocksRead, *, opinions: _Opinions, compared_with: Compared
) -> tuple[list[Transfer], list[Transfer]]:
    """Orphan first, then store: a transaction that stands in another block by now is canonical once.

    Returns the transfers that came, and those that went.
    """
    found, others = _compare(session, chain, read, compared_with)
    for header in others:
        if header.hash not in opinions.agreed:
            raise _other_than_read(chain, header)
    refused_transfers.store(session, chain.chain_id, read.failed, endpoint=read.endpoint)
    if not found:
        return [], []
    false = [each for each in found.strangers if each.id in opinions.refuted]
    transfers.orphan(session, [each.id for each in false])
    missing = [each for each in found.missing if facts_of(each) not in opinions.denied]
    rereading.check_not_elsewhere(session, chain, missing)
    told = [(read.endpoint, missing), *opinions.there.items()]
    came = rereading.store_missing(session, chain, told, instead_of=false, new_id=ctx.new_id)
    there = rereading.readable(session, chain, numbers={each.block_number for each in came})
    finality.mark_verified(session, [each.id for each in there if facts_of(each) in opinions.borne_out])
    return came, false


def _compare(
    session: Connection, chain: Chain, read: BlocksRead, compared_with: Compared
) -> tuple[Difference, list[Header]]:
    """Return how the rows differ from blocks, and which of the blocks are others than the rows know. BlockVanished."""
    others = rereading.check_canonical(session, chain, read.headers)
    numbers = {header.number for header in read.headers}
    found = difference(compared_with(session, numbers), read.sightings, blocks=numbers)
    positions = {position_of(each) for each in found.missing}
    # What stands in the place of what is missing is a stranger too, of whatever payment it is.
    standing = rereading.readable(session, chain, numbers=numbers) if positions else []
    known = {each.id for each in found.strangers}
    beside = [each for each in standing if position_of(each) in positions and each.id not in known]
    return Difference(found.missing, (*found.strangers, *beside)), others


def _other_than_read(chain: Chain, header: Header) -> BlockVanished:
    return BlockVanished(
        f"block {header.number} of {chain.name} is another one than was read before, and no other endpoint bears it out"
    )


def _assess(ctx: Context, session: Connection, chain: Chain, concerned: set[str]) -> list[str]:
    if not concerned:
        return []
    touched = concerned | finality.settle_finality(session, chain.chain_id)
    return payments.reassess(session, touched, chains=ctx.settings.chains_by_id, new_id=ctx.new_id)
