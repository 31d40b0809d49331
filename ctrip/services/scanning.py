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
from ctrip.database import cursors, deadlines, payments, sweeps, transfers
from ctrip.domain.chains import Chain
from ctrip.domain.ids import Prefix
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.scanning import Cursor, is_linked
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Reason, Sighting, Source, Transfer, TransferStatus
from ctrip.errors import BlockVanished, ReorgTooDeep
from ctrip.log import get_logger
from ctrip.runs import Run, run_loop

DEADLINES_PER_STEP = 1000
STOPPED_RETRY = timedelta(seconds=30)
log = get_logger()


def scan_chain(ctx: Context, chain_id: int) -> Tick:
    """Run the listener's loop of a chain once.

    What the node does (silence, errors, a moving head) is an outcome: the loop is released and tried again. A reorg
    below every stored header stops the chain until an operator looks; statuses stay as they are.
    """
    return run_loop(ctx, LoopKind.LISTENER, chain_id, work=_scan)


def _scan(run: Run) -> timedelta:
    client, chain_id = run.ctx.clients[run.chain.chain_id], run.chain.chain_id
    with run.ctx.sessions.begin() as session:
        cursor = cursors.find(session, chain_id)
        stored = cursors.headers(session, chain_id)
    if cursor is None:
        return _start(run, client)
    if cursor.stopped_reason is not None:
        return STOPPED_RETRY
    try:
        reading = read_step(client, stored, issued=_issued(run.ctx), keep_lease=run.keep_lease)
    except ReorgTooDeep as error:
        return _stop(run, error)
    return _store(run, cursor=cursor, reading=reading)


def _issued(ctx: Context) -> Callable[[set[bytes]], set[bytes]]:
    """Return what asks Postgres which addresses are ours: an address stored before it was shown is always seen."""

    def issued(addresses: set[bytes]) -> set[bytes]:
        with ctx.sessions.begin() as session:
            return set(transfers.owners(session, sorted(addresses)))

    return issued


def _start(run: Run, client: ChainClient) -> timedelta:
    """Begin a chain at its head. The headers before it are kept too: a reorg may take the first block at once."""
    head = client.head()
    window = range(max(0, head.number - run.chain.reorg_window), head.number)
    before = client.headers(window)
    headers = [*(before[number] for number in sorted(before)), head]
    if len(headers) != len(window) + 1 or not is_linked(headers[1:], parent_hash=headers[0].hash):
        raise BlockVanished(f"the newest blocks of {run.chain.name} moved while they were read")
    with run.storing() as session:
        cursors.start(session, run.chain.chain_id, head)
        cursors.store_headers(session, run.chain.chain_id, headers)
    log.info("chain_started", chain=run.chain.name, block=head.number)
    return timedelta(0)


def _store(run: Run, *, cursor: Cursor, reading: Reading) -> timedelta:
    """Store a reading and everything that follows from it, in one fenced transaction."""
    ctx, chain = run.ctx, run.chain
    again_in = timedelta(0) if reading.tip.number < reading.head_block else chain.poll
    with run.storing() as session:
        touched = _orphan(session, chain, reading=reading) if reading.is_reorg else set()
        found = _transfers(ctx, session, chain=chain, sightings=reading.sightings)
        transfers.store(session, found)
        touched |= {transfer.payment_id for transfer in found}
        _move_cursor(session, chain, cursor=cursor, reading=reading)
        touched |= transfers.settle_finality(session, chain.chain_id, reading.tip.number)
        touched |= _deadlines(session, chain)
        due = payments.reassess(session, touched, chains=ctx.settings.chains_by_id, new_id=ctx.new_id)
        run.release(session, again_in=again_in)
    run.delivery_ids += due
    _tell(ctx, chain, cursor=cursor, reading=reading, found=found)
    return again_in


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
    cursors.advance(session, cursor, base=reading.base, to=reading.tip, head_block=reading.head_block)


def _deadlines(session: Session, chain: Chain) -> set[str]:
    """Return the payments whose deadline a final block has passed, or that a reorg brought back before it."""
    passed = deadlines.passed(session, chain.chain_id, limit=DEADLINES_PER_STEP)
    return {*passed, *deadlines.brought_back(session, chain.chain_id, limit=DEADLINES_PER_STEP)}


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


def _stop(run: Run, error: ReorgTooDeep) -> timedelta:
    """Stop a chain: nothing that cTrip could do by itself would be right."""
    with run.storing() as session:
        cursors.stop(session, run.chain.chain_id, error.detail)
    metrics.REORGS.labels(chain=run.chain.name).inc()
    log.error("chain_stopped", chain=run.chain.name, reason=error.detail)
    return STOPPED_RETRY


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
