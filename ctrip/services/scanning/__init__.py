"""The listener's use case: read the next blocks of a chain, store what concerns us, and let the facts decide.

    claim the loop · read cursor and headers │ ask the node, no transaction open │ one transaction: hold the fence,
    orphan what a reorg took, store transfers, headers, coverage, cursor; assess every payment touched; release the loop

A crash anywhere before the commit leaves the cursor where it was: the blocks are read again. Far behind the head it
goes by spans, see `catching_up`.
"""

from dataclasses import dataclass
from datetime import timedelta

from ctrip import metrics
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.reading import Reading, read_step
from ctrip.context import Context
from ctrip.database import cursors, limits
from ctrip.domain.jobs import Done, Facts, Failed, Later, Outcome
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.scanning import Cursor, Header, Move, tags_to_ask
from ctrip.errors import ReorgTooDeep
from ctrip.log import get_logger
from ctrip.runs import JobRun, Run, issued, run_job, run_loop, run_loop_for
from ctrip.services.scanning.catching_up import CaughtUp, catch_up, is_far_behind
from ctrip.services.scanning.sharing import check_deep, clock_after, stored
from ctrip.services.scanning.starting import start_chain
from ctrip.services.scanning.storing import move_cursor, orphan, store_blocks, store_verdicts, tell, tell_reorg
from ctrip.services.scanning.verifying import Verdicts, is_more_due, verify_due

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
    that is too deep stops the chain until an operator looks; statuses stay as they are.
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
    chain_id = run.chain.chain_id
    client = run.ctx.clients[chain_id].keeping(run.keep_lease)
    known = client.limits()
    try:
        client.survey()
        return _scan_with(run, client)
    finally:
        # Also where the node failed: what it refuses is what is learnt from.
        learnt = client.limits()
        if learnt != known:
            with run.ctx.sessions.begin() as session:
                limits.store(session, chain_id, learnt)


def _scan_with(run: Run, client: ChainClient) -> Step:
    position = run.position
    if position is None:
        return _start(run, client)
    cursor = position.cursor
    if cursor.stopped_reason is not None:
        return _stopped(cursor, cursor.stopped_reason)
    if is_far_behind(cursor, head_block=cursor.head_block, reorg_window=run.chain.reorg_window):
        caught_up = catch_up(run, client, position, issued=issued(run.ctx))
        if caught_up is not None:
            return _caught_up(cursor, caught_up)
    try:
        reading = read_step(
            client,
            position.newest,
            window=lambda: stored(run),
            expected=cursor.head_block - cursor.read_block,
            tags=tags_to_ask(run.chain, cursor),
            issued=issued(run.ctx),
        )
    except ReorgTooDeep as error:
        return _stop(run, cursor, error)
    shared_block = check_deep(run, client, position.newest, reading)
    clock = clock_after(run, client, position, reading)
    verdicts = Verdicts()
    if position.has_unverified:
        newest = reading.blocks.headers
        told_by = reading.blocks.endpoint if newest else None
        verdicts = verify_due(run, client, up_to=reading.base.number, newest=newest, told_by=told_by)
    tip, head_block = reading.tip, reading.head_block
    move = Move(reading.base, tip, head_block, reading.tags, clock.time, shared_block)
    return _store(run, cursor=cursor, reading=reading, verdicts=verdicts, corrected=clock.corrected, move=move)


def _start(run: Run, client: ChainClient) -> Step:
    first, head = start_chain(run, client)
    return Step(timedelta(0), from_block=first.number + 1, to_block=first.number, head_block=head.number)


def _store(
    run: Run, *, cursor: Cursor, reading: Reading, verdicts: Verdicts, corrected: Header | None, move: Move
) -> Step:
    """Store a reading and everything that follows from it, in one fenced transaction."""
    # A node may tell of a head whose blocks it does not tell yet: that is no reason to ask without a pause.
    is_more_there = reading.tip.number < reading.head_block and bool(reading.blocks.headers)
    with run.storing() as session:
        if corrected is not None:
            cursors.correct_time(session, run.chain.chain_id, corrected)
        touched = orphan(session, run, reading.base) if reading.is_reorg else set()
        found = store_blocks(session, run, reading.blocks)
        touched |= store_verdicts(session, run, verdicts)
        move_cursor(session, run, cursor, move, touched=touched)
        is_at_once = is_more_there or is_more_due(found, verdicts, head=reading.tip.number)
        again_in = timedelta(0) if is_at_once else run.chain.poll
        run.release(session, again_in=again_in)
    if reading.is_reorg:
        tell_reorg(run, cursor, reading)
    tell(run, reading.blocks, found)
    return Step(
        again_in,
        from_block=reading.base.number + 1,
        to_block=reading.tip.number,
        head_block=reading.head_block,
        transfers=len(found),
    )


def _caught_up(cursor: Cursor, at: CaughtUp) -> Step:
    return Step(
        timedelta(0),
        from_block=cursor.read_block + 1,
        to_block=at.newest.number,
        head_block=at.head.number,
        transfers=at.transfers,
    )


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
