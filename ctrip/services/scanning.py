"""The listener's use case: read the next blocks of a chain, store what concerns us, and let the facts decide.

    claim the loop · read cursor and headers │ ask the node, no transaction open │ one transaction: hold the fence,
    orphan what a reorg took, store transfers, headers, cursor; assess every payment touched; release the loop

A crash anywhere before the commit leaves the cursor where it was: the blocks are read again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from ctrip import metrics
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.reading import Reading, read_step
from ctrip.context import Context
from ctrip.database import cursors, deadlines, payments, sweeps, transfers
from ctrip.domain.chains import Chain
from ctrip.domain.jobs import Done, Facts, Failed, Later, Outcome
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.scanning import Cursor, is_linked
from ctrip.domain.transfers import Transfer
from ctrip.errors import BlockVanished, ReorgTooDeep
from ctrip.log import get_logger
from ctrip.runs import JobRun, Run, run_job, run_loop, run_loop_for

DEADLINES_PER_STEP = 1000
STOPPED_RETRY = timedelta(seconds=30)
SOON = timedelta(milliseconds=500)
"""When a job looks again whether the loop is free: a run takes about so long."""
log = get_logger()


@dataclass(frozen=True)
class Step:
    """What one run read: the blocks `from_block` to `to_block`, none where the one is behind the other."""

    again_in: timedelta
    from_block: int
    to_block: int
    head_block: int
    transfers: int = 0
    stopped_reason: str | None = None


def scan_chain(ctx: Context, chain_id: int) -> Tick:
    """Run the listener's loop of a chain once.

    What the node does (silence, errors, a moving head) is an outcome: the loop is released and tried again. A reorg
    below every stored header stops the chain until an operator looks; statuses stay as they are.
    """
    return run_loop(ctx, LoopKind.LISTENER, chain_id, work=lambda run: _scan(run).again_in)


def scan_now(ctx: Context, job_id: str) -> Tick:
    """Read a chain to its head for a job, by runs of the listener's loop that nobody need wait for.

    The job says which blocks were read, and how many transfers they hold. A crash in between goes on where the cursor
    stands.
    """
    return run_job(ctx, job_id, work=_scan_to_head)


def _scan_to_head(job: JobRun) -> Outcome:
    chain_id, progress = job.params["chain_id"], job.progress
    while not job.is_turn_over:
        step = run_loop_for(job, LoopKind.LISTENER, chain_id, work=_scan_for_job)
        if step is None:
            return Later(SOON, progress or {})
        progress = _progress(progress, step)
        if step.stopped_reason is not None:
            return Failed(f"reading is stopped until an operator looks: {step.stopped_reason}")
        if step.to_block >= step.head_block:
            return Done(progress)
        with job.storing() as session:
            job.note(session, progress)
    return Later(timedelta(0), progress or {})


def _scan_for_job(run: Run) -> tuple[timedelta, Step]:
    step = _scan(run)
    return step.again_in, step


def _progress(before: Facts | None, step: Step) -> Facts:
    """Add a step to what a job has read; the listener's own runs in between are not counted."""
    known = before if before is not None and "from_block" in before else {"from_block": step.from_block}
    return {
        "from_block": known["from_block"],
        "to_block": step.to_block,
        "head_block": step.head_block,
        "blocks_read": known.get("blocks_read", 0) + step.to_block - step.from_block + 1,
        "transfers_found": known.get("transfers_found", 0) + step.transfers,
    }


def _scan(run: Run) -> Step:
    client, chain_id = run.ctx.clients[run.chain.chain_id], run.chain.chain_id
    with run.ctx.sessions.begin() as session:
        cursor = cursors.find(session, chain_id)
        stored = cursors.headers(session, chain_id)
    if cursor is None:
        return _start(run, client)
    if cursor.stopped_reason is not None:
        return _stopped(cursor, cursor.stopped_reason)
    try:
        reading = read_step(client, stored, issued=_issued(run.ctx), keep_lease=run.keep_lease)
    except ReorgTooDeep as error:
        return _stop(run, cursor, error)
    return _store(run, cursor=cursor, reading=reading)


def _issued(ctx: Context) -> Callable[[set[bytes]], set[bytes]]:
    """Return what asks Postgres which addresses are ours: an address stored before it was shown is always seen."""

    def issued(addresses: set[bytes]) -> set[bytes]:
        with ctx.sessions.begin() as session:
            return set(transfers.owners(session, sorted(addresses)))

    return issued


def _start(run: Run, client: ChainClient) -> Step:
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
    return Step(timedelta(0), from_block=head.number + 1, to_block=head.number, head_block=head.number)


def _store(run: Run, *, cursor: Cursor, reading: Reading) -> Step:
    """Store a reading and everything that follows from it, in one fenced transaction."""
    ctx, chain = run.ctx, run.chain
    again_in = timedelta(0) if reading.tip.number < reading.head_block else chain.poll
    with run.storing() as session:
        touched = _orphan(session, chain, reading=reading) if reading.is_reorg else set()
        found = transfers.store_sightings(session, chain, reading.sightings, new_id=ctx.new_id)
        touched |= {transfer.payment_id for transfer in found}
        _move_cursor(session, chain, cursor=cursor, reading=reading)
        touched |= transfers.settle_finality(session, chain.chain_id, reading.tip.number)
        touched |= _deadlines(session, chain)
        due = payments.reassess(session, touched, chains=ctx.settings.chains_by_id, new_id=ctx.new_id)
        run.release(session, again_in=again_in)
    run.delivery_ids += due
    _tell(ctx, chain, cursor=cursor, reading=reading, found=found)
    return Step(
        again_in,
        from_block=reading.base.number + 1,
        to_block=reading.tip.number,
        head_block=reading.head_block,
        transfers=len(found),
    )


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


def _stop(run: Run, cursor: Cursor, error: ReorgTooDeep) -> Step:
    """Stop a chain: nothing that cTrip could do by itself would be right."""
    with run.storing() as session:
        cursors.stop(session, run.chain.chain_id, error.detail)
    metrics.REORGS.labels(chain=run.chain.name).inc()
    log.error("chain_stopped", chain=run.chain.name, reason=error.detail)
    return _stopped(cursor, error.detail)


def _stopped(cursor: Cursor, reason: str) -> Step:
    return Step(
        STOPPED_RETRY,
        from_block=cursor.read_block + 1,
        to_block=cursor.read_block,
        head_block=cursor.head_block,
        stopped_reason=reason,
    )


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
