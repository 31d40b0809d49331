"""One run of a loop or of a job: claim or die, keep the lease, write behind the fence, release.

claim (fence + 1) ──> work ──> release: due again after a while
  │                    ├── ChainError: released; what the node does is an outcome, and it is tried again
  │                    ├── LostFence: another run has claimed it: nothing is written, and no successor is sent
  │                    └── anything else: released, and raised for the actor's retries and its dead letter
  └── not won: the message dies

A job's run is the same, and ends in what its work says: Done and Failed are the end of the job, Later is due again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import cursors, jobs, loops, transfers
from ctrip.domain.chains import Chain
from ctrip.domain.jobs import Done, Facts, Failed, Job, Later, Outcome, overdue
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.scanning import Cursor
from ctrip.errors import ChainError, Conflict, InvalidValue, LostFence, NotFound
from ctrip.log import get_logger

AFTER_A_FAULT = timedelta(seconds=1)
"""The least pause after a node failed: one that is down is not asked twice a second."""
JOB_RETRY = timedelta(seconds=5)
"""How long a job waits for a node that failed."""
JOB_TURN = timedelta(seconds=20)
"""How long a job may work before it gives others their turn: less than its lease, and the time limit of any actor."""
FAULT_CHARACTERS = 200

Made = TypeVar("Made")
log = get_logger()


@dataclass
class Run:
    """A claimed run on a chain. `delivery_ids` gathers the webhooks that its transactions made due.

    `position` is where reading the chain stood when the loop was claimed; None where it was never read. `job` is the
    one that asked for this run, whose lease is kept with the loop's.
    """

    ctx: Context
    claim: loops.Claim
    chain: Chain
    position: cursors.Position | None
    claimed_at: datetime
    delivery_ids: list[str] = field(default_factory=list)
    is_released: bool = False
    job: "JobRun | None" = None

    @contextmanager
    def storing(self) -> Iterator[Connection]:
        """Open a transaction that writes only while this run still owns the loop. Raises LostFence."""
        with self.ctx.sessions.begin() as session:
            loops.hold(session, self.claim)
            yield session

    def keep_lease(self) -> None:
        """Renew the lease when a good part of it is over. Call it after each request to a node. Raises LostFence."""
        if self.job is not None:
            self.job.keep_lease()
        if self.ctx.now() - self.claimed_at < loops.LEASE / 4:
            return
        with self.ctx.sessions.begin() as session:
            loops.renew(session, self.claim)
        self.claimed_at = self.ctx.now()

    def release(self, session: Connection, *, again_in: timedelta) -> None:
        """End the run in the transaction that stores its work, instead of in one more."""
        loops.release(session, self.claim, again_in=again_in)
        self.is_released = True


def issued(ctx: Context) -> Callable[[set[bytes]], set[bytes]]:
    """Return what asks Postgres which addresses are ours: one that was stored before it was shown is always seen."""

    def ours(addresses: set[bytes]) -> set[bytes]:
        with ctx.sessions.begin() as session:
            return transfers.issued(session, addresses)

    return ours


def run_loop(ctx: Context, kind: LoopKind, chain_id: int, *, work: Callable[[Run], timedelta]) -> Tick:
    """Run a loop once; `work` returns how long the loop may rest. A chain that is not enabled has no loops."""
    chain, name, claimed_at = ctx.settings.chain(chain_id), loops.loop_name(kind, chain_id), ctx.now()
    if chain is None or not chain.enabled:
        log.warning("loop_of_no_chain", loop=name)
        return Tick()
    with ctx.sessions.begin() as session:
        claim = loops.claim(session, name)
        position = None if claim is None else cursors.position(session, chain_id)
    counted = metrics.loop_claims(name)
    counted["lost" if claim is None else "won"].inc()
    if claim is None:
        return Tick()
    run = Run(ctx, claim, chain, position, claimed_at)
    try:
        return _work(run, work)
    except LostFence:
        counted["fenced_out"].inc()
        log.warning("loop_fenced_out", loop=name, fence=claim.fence)
        return Tick(delivery_ids=tuple(run.delivery_ids))


def _work(run: Run, work: Callable[[Run], timedelta]) -> Tick:
    again_in, has_ticked = max(run.chain.poll, AFTER_A_FAULT), False
    try:
        again_in = work(run)
        has_ticked = True
    except ChainError as error:
        log.warning("chain_unreadable", loop=run.claim.name, error=error.detail, code=error.code)
    finally:
        # Also where something unexpected goes its way: the message's retry must find the loop free, or it would lose
        # the claim, end well, and hide the fault.
        if not (has_ticked and run.is_released):
            with run.storing() as session:
                loops.release(session, run.claim, again_in=again_in, has_ticked=has_ticked)
    return Tick(again_in=again_in, delivery_ids=tuple(run.delivery_ids))


# --- jobs -----------------------------------------------------------------------------------------------------------


@dataclass
class JobRun:
    """A claimed run of a job. `delivery_ids` gathers the webhooks that it made due."""

    ctx: Context
    claim: jobs.Claim
    progress: Facts | None
    began_at: datetime
    renewed_at: datetime
    delivery_ids: list[str] = field(default_factory=list)

    @property
    def params(self) -> Facts:
        """What was asked for."""
        return self.claim.job.params

    @property
    def is_turn_over(self) -> bool:
        """True where the run has worked for so long that it should put the rest off."""
        return self.ctx.now() - self.began_at > JOB_TURN

    def chain_and_cursor(self) -> tuple[Chain, Cursor]:
        """Return the chain that the job is about, and how far it was read.

        Raises NotFound where it is served no more, Conflict where it was never read or is stopped.
        """
        chain = self.ctx.settings.chain(self.params["chain_id"])
        if chain is None or not chain.enabled:
            raise NotFound(f"chain {self.params['chain']} is not served any more")
        with self.ctx.sessions.begin() as session:
            cursor = cursors.find(session, chain.chain_id)
        if cursor is None:
            raise Conflict(f"chain {chain.name} was never read")
        if cursor.stopped_reason is not None:
            raise Conflict(f"chain {chain.name} is stopped until an operator looks: {cursor.stopped_reason}")
        return chain, cursor

    @contextmanager
    def storing(self) -> Iterator[Connection]:
        """Open a transaction that writes only while this run still owns the job. Raises LostFence."""
        with self.ctx.sessions.begin() as session:
            jobs.hold(session, self.claim)
            yield session

    def note(self, session: Connection, progress: Facts) -> None:
        """Write down how far the job came, in a transaction of `storing`: the next run begins there."""
        jobs.note(session, self.claim, progress)
        self.progress = progress

    def keep_lease(self) -> None:
        """Renew the lease when a good part of it is over. Raises LostFence."""
        if self.ctx.now() - self.renewed_at < jobs.LEASE / 4:
            return
        with self.ctx.sessions.begin() as session:
            jobs.renew(session, self.claim)
        self.renewed_at = self.ctx.now()


def run_job(ctx: Context, job_id: str, *, work: Callable[[JobRun], Outcome]) -> Tick:
    """Take a job on once; `work` says what came of it. Nothing happens where the job is over, or another is at it.

    What the node does (silence, errors) is a reason to try later; what the domain refuses ends the job. An exception
    that nobody expected gives the claim back and goes on to the actor's retries and its dead letter.
    """
    with ctx.sessions.begin() as session:
        claim = jobs.claim(session, job_id)
    if claim is None:
        return Tick()
    run = JobRun(ctx, claim, claim.job.progress, ctx.now(), ctx.now())
    try:
        outcome = _outcome(run, work)
        with run.storing() as session:
            _store(session, claim, outcome)
    except LostFence:
        log.warning("job_fenced_out", job_id=job_id, fence=claim.fence)
        return Tick(delivery_ids=tuple(run.delivery_ids))
    except Exception:
        with ctx.sessions.begin() as session:
            jobs.release(session, claim)
        raise
    _tell(claim.job, outcome)
    again_in = outcome.after if isinstance(outcome, Later) else None
    return Tick(again_in=again_in, delivery_ids=tuple(run.delivery_ids))


def run_loop_for(
    run: JobRun, kind: LoopKind, chain_id: int, *, work: Callable[[Run], tuple[timedelta, Made]]
) -> Made | None:
    """Run a loop once for a job, also when it is not due. `work` returns how long the loop may rest, and what it made.

    Returns None where another run is at the loop. The loop's own message still finds it due when it would have without
    this run. Raises Conflict where the loop is paused, NotFound where there is no such loop, ChainError.
    """
    name = loops.loop_name(kind, chain_id)
    made: list[Made] = []
    faults: list[ChainError] = []

    def noted(loop: Run) -> timedelta:
        loop.job = run
        try:
            again_in, what = work(loop)
        except ChainError as error:
            faults.append(error)
            raise
        made.append(what)
        return again_in

    with run.storing() as session:
        was = loops.bring_forward(session, name)
    if was is None:
        raise NotFound(f"there is no loop {name}; is a scheduler running?")
    if not was.enabled:
        raise Conflict(f"the loop {name} is paused; resume it first")
    try:
        tick = run_loop(run.ctx, kind, chain_id, work=noted)
    finally:
        with run.ctx.sessions.begin() as session:
            loops.bring_forward(session, name, to=was.next_run_at)
    run.delivery_ids += tick.delivery_ids
    for fault in faults:
        raise fault
    return made[0] if made else None


def _outcome(run: JobRun, work: Callable[[JobRun], Outcome]) -> Outcome:
    try:
        outcome = work(run)
    except ChainError as error:
        outcome = Later(JOB_RETRY, {**(run.progress or {}), "waits_for": error.detail[:FAULT_CHARACTERS]})
    except (Conflict, InvalidValue, NotFound) as refusal:
        outcome = Failed(refusal.detail)
    return overdue() if isinstance(outcome, Later) and run.claim.is_overdue else outcome


def _store(session: Connection, claim: jobs.Claim, outcome: Outcome) -> None:
    if isinstance(outcome, Later):
        jobs.put_off(session, claim, after=outcome.after, progress=outcome.progress)
    else:
        jobs.end(session, claim, outcome)


def _tell(job: Job, outcome: Outcome) -> None:
    match outcome:
        case Done():
            log.info("job_done", job_id=job.id, kind=str(job.kind))
        case Failed():
            log.warning("job_failed", job_id=job.id, kind=str(job.kind), error=outcome.error)
