"""The listener's use case: read the next blocks of a chain, store what concerns us, and let the facts decide.

    claim the loop · read cursor and headers │ ask the node, no transaction open │ one transaction: hold the fence,
    orphan what a reorg took, store transfers, headers, cursor; assess every payment touched; release the loop

A crash anywhere before the commit leaves the cursor where it was: the blocks are read again.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy.orm import Session

from ctrip import metrics
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.reading import Reading, read_step
from ctrip.context import Context
from ctrip.database import cursors, loops, payments, sweeps, transfers
from ctrip.domain.chains import Chain
from ctrip.domain.ids import Prefix
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.scanning import Cursor, is_linked
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Reason, Sighting, Source, Transfer, TransferStatus
from ctrip.errors import BlockVanished, ChainError, LostFence, ReorgTooDeep
from ctrip.log import get_logger

DEADLINES_PER_STEP = 1000
STOPPED_RETRY = timedelta(seconds=30)
log = get_logger()


def scan_chain(ctx: Context, chain_id: int) -> Tick:
    """Run the listener's loop of a chain once.

    What the node does (silence, errors, a moving head) is an outcome: the loop is released and tried again. A reorg
    below every stored header stops the chain until an operator looks; statuses stay as they are.
    """
    name = loops.loop_name(LoopKind.LISTENER, chain_id)
    with ctx.sessions.begin() as session:
        claim = loops.claim(session, name)
    metrics.LOOP_CLAIMS.labels(loop=name, outcome="lost" if claim is None else "won").inc()
    if claim is None:
        return Tick()
    chain = _configured(ctx, chain_id)
    try:
        return _run(ctx, claim, chain=chain)
    except ReorgTooDeep as error:
        return _stop(ctx, claim, chain=chain, error=error)
    except ChainError as error:
        log.warning("chain_unreadable", chain=chain.name, error=error.detail, code=error.code)
        return _release(ctx, claim, again_in=max(chain.poll, timedelta(seconds=1)))
    except LostFence:
        metrics.LOOP_CLAIMS.labels(loop=name, outcome="fenced_out").inc()
        log.warning("loop_fenced_out", loop=name, fence=claim.fence)
        return Tick()


def _run(ctx: Context, claim: loops.Claim, *, chain: Chain) -> Tick:
    client = ctx.clients[chain.chain_id]
    with ctx.sessions() as session:
        cursor = cursors.find(session, chain.chain_id)
        stored = cursors.headers(session, chain.chain_id)
    if cursor is None:
        return _start(ctx, claim, client=client)
    if cursor.stopped_reason is not None:
        return _release(ctx, claim, again_in=STOPPED_RETRY)
    reading = read_step(client, stored, issued=_issued(ctx), keep_lease=_lease_keeper(ctx, claim))
    return _store(ctx, claim, chain=chain, cursor=cursor, reading=reading)


def _issued(ctx: Context) -> Callable[[set[bytes]], set[bytes]]:
    """Return what asks Postgres which addresses are ours: an address stored before it was shown is always seen."""

    def issued(addresses: set[bytes]) -> set[bytes]:
        with ctx.sessions() as session:
            return set(transfers.owners(session, sorted(addresses)))

    return issued


def _lease_keeper(ctx: Context, claim: loops.Claim) -> Callable[[], None]:
    """Return what renews the claim's lease when a good part of it is over: a slow node must not cost the claim."""
    renewed_at = ctx.now()

    def keep_lease() -> None:
        nonlocal renewed_at
        if ctx.now() - renewed_at < loops.LEASE / 4:
            return
        with ctx.sessions.begin() as session:
            loops.renew(session, claim)
        renewed_at = ctx.now()

    return keep_lease


def _start(ctx: Context, claim: loops.Claim, *, client: ChainClient) -> Tick:
    """Begin a chain at its head. The headers before it are kept too: a reorg may take the first block at once."""
    head = client.head()
    window = range(max(0, head.number - client.chain.reorg_window), head.number)
    before = client.headers(window)
    headers = [*(before[number] for number in sorted(before)), head]
    if len(headers) != len(window) + 1 or not is_linked(headers[1:], parent_hash=headers[0].hash):
        raise BlockVanished(f"the newest blocks of {client.chain.name} moved while they were read")
    with ctx.sessions.begin() as session:
        loops.hold(session, claim)
        cursors.start(session, client.chain.chain_id, head)
        cursors.store_headers(session, client.chain.chain_id, headers)
        loops.release(session, claim, again_in=timedelta(0))
    log.info("chain_started", chain=client.chain.name, block=head.number)
    return Tick(again_in=timedelta(0))


def _store(ctx: Context, claim: loops.Claim, *, chain: Chain, cursor: Cursor, reading: Reading) -> Tick:
    """Store a reading and everything that follows from it, in one fenced transaction."""
    again_in = timedelta(0) if reading.tip.number < reading.head_block else chain.poll
    chains = {known.chain_id: known for known in ctx.settings.chains}
    with ctx.sessions.begin() as session:
        loops.hold(session, claim)
        touched = _orphan(session, chain, reading=reading) if reading.is_reorg else set()
        found = _transfers(ctx, session, chain=chain, sightings=reading.sightings)
        transfers.store(session, found)
        touched |= {transfer.payment_id for transfer in found}
        _move_cursor(session, chain, cursor=cursor, reading=reading)
        touched |= transfers.settle_finality(session, chain.chain_id, reading.tip.number)
        touched |= _deadlines(session, chain, reading=reading)
        delivery_ids = payments.reassess(session, touched, chains=chains, new_id=ctx.new_id)
        loops.release(session, claim, again_in=again_in)
    _tell(ctx, chain, cursor=cursor, reading=reading, found=found)
    return Tick(again_in=again_in, delivery_ids=tuple(delivery_ids))


def _orphan(session: Session, chain: Chain, *, reading: Reading) -> set[str]:
    """Take back what the blocks above the common ancestor did."""
    ancestor = reading.base.number
    touched = transfers.orphan_after(session, chain.chain_id, ancestor)
    touched |= sweeps.revert_after(session, chain.chain_id, ancestor)
    cursors.drop_headers_after(session, chain.chain_id, ancestor)
    return touched


def _move_cursor(session: Session, chain: Chain, *, cursor: Cursor, reading: Reading) -> None:
    cursors.store_headers(session, chain.chain_id, reading.headers)
    cursors.drop_headers_below(session, chain.chain_id, reading.tip.number - chain.reorg_window)
    cursors.advance(session, cursor, to=reading.tip, head_block=reading.head_block)


def _deadlines(session: Session, chain: Chain, *, reading: Reading) -> set[str]:
    """Return the payments whose deadline a final block has passed, or that a reorg brought back before it."""
    final_block = chain.final_block(reading.tip.number)
    times = cursors.header_times(session, [(chain.chain_id, final_block)])
    final_time = times.get((chain.chain_id, final_block))
    if final_time is None:
        return set()
    passed = payments.past_deadline(session, chain.chain_id, before=final_time, limit=DEADLINES_PER_STEP)
    back = payments.expired_since(session, chain.chain_id, since=final_time) if reading.is_reorg else []
    return {*passed, *back}


def _transfers(ctx: Context, session: Session, *, chain: Chain, sightings: Sequence[Sighting]) -> list[Transfer]:
    """Make transfers of sightings: whose they are, and whether they are our own doing."""
    owners = transfers.owners(session, sorted({sighting.recipient for sighting in sightings}))
    ours = transfers.own_hashes(session, sorted({sighting.tx_hash for sighting in sightings}))
    found = []
    for sighting in sightings:
        owner, token = owners[sighting.recipient], chain.token_at(sighting.token) or chain.native
        is_own = sighting.tx_hash in ours
        found.append(
            Transfer(
                id=ctx.new_id(Prefix.TRANSFER),
                payment_id=owner.payment_id,
                chain_id=chain.chain_id,
                chain=chain.name,
                token=sighting.token,
                symbol=token.symbol,
                decimals=token.decimals,
                amount=sighting.amount,
                sender=sighting.sender,
                recipient=sighting.recipient,
                tx_hash=sighting.tx_hash,
                log_index=sighting.log_index,
                block_number=sighting.block_number,
                block_hash=sighting.block_hash,
                block_time=sighting.block_time,
                source=Source.NATIVE if sighting.log_index == NATIVE_LOG_INDEX else Source.ERC20,
                status=TransferStatus.SEEN,
                required=owner.required if owner.chain_id == chain.chain_id else chain.confirmations,
                is_own=is_own,
                is_payable=not token.fee_on_transfer and not token.rebasing,
                counts=not is_own,
                reason=Reason.OWN_TRANSACTION if is_own else None,
                is_announced=False,
            )
        )
    return found


def _release(ctx: Context, claim: loops.Claim, *, again_in: timedelta) -> Tick:
    with ctx.sessions.begin() as session:
        loops.release(session, claim, again_in=again_in)
    return Tick(again_in=again_in)


def _stop(ctx: Context, claim: loops.Claim, *, chain: Chain, error: ReorgTooDeep) -> Tick:
    """Stop a chain: nothing that cTrip could do by itself would be right."""
    with ctx.sessions.begin() as session:
        loops.hold(session, claim)
        cursors.stop(session, chain.chain_id, error.detail)
        loops.release(session, claim, again_in=STOPPED_RETRY)
    metrics.REORGS.labels(chain=chain.name).inc()
    log.error("chain_stopped", chain=chain.name, reason=error.detail)
    return Tick(again_in=STOPPED_RETRY)


def _tell(ctx: Context, chain: Chain, *, cursor: Cursor, reading: Reading, found: Sequence[Transfer]) -> None:
    if reading.is_reorg:
        metrics.REORGS.labels(chain=chain.name).inc()
        log.warning("reorg_followed", chain=chain.name, ancestor=reading.base.number, read_block=cursor.read_block)
    now = ctx.now()
    for transfer in found:
        metrics.PAYMENT_DETECT.labels(chain=chain.name).observe(max(0.0, (now - transfer.block_time).total_seconds()))
        log.info(
            "transfer_stored",
            chain=chain.name,
            transfer_id=transfer.id,
            payment_id=transfer.payment_id,
            block=transfer.block_number,
            is_own=transfer.is_own,
        )


def _configured(ctx: Context, chain_id: int) -> Chain:
    chain = ctx.settings.chain(chain_id)
    if chain is None:
        raise LookupError(f"chain {chain_id} is not configured")
    return chain
