"""Job rows: what operators asked for, who is at it now, and what came of it.

    UPDATE … SET fence = fence + 1, lease_until = … WHERE open AND due AND not leased RETURNING fence

The fence is the claim's number: a run that was overtaken writes nothing. The database's clock decides what is due.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import pages, work
from ctrip.database.batches import batch
from ctrip.database.leases import EARLY, is_leased, is_unleased
from ctrip.database.models import dead_letters, jobs
from ctrip.domain.ids import Prefix
from ctrip.domain.jobs import (
    ERROR_CHARACTERS,
    LONGEST,
    MOST_OPEN,
    OF_A_CHAIN,
    Done,
    Facts,
    Failed,
    Job,
    JobKind,
    JobStatus,
)
from ctrip.errors import Conflict, LostFence

LEASE = timedelta(seconds=30)
"""It is renewed between two steps, none of which takes half as long. After a crash the job goes on when it ends."""
TURN = timedelta(seconds=1)
_ADDING = 0x63_54_72_69_70_6A_6F_62
"""The advisory lock of whoever counts the open jobs and adds one: the letters cTripjob."""
_CLAIMING = _ADDING + 1
"""That of whoever claims one: two must not both find a chain free."""
_of = jobs.c
_FIELDS = tuple(Job.__dataclass_fields__)


@dataclass(frozen=True)
class Claim:
    """The right to take a job on once. `is_overdue` where it was first taken up LONGEST ago."""

    job: Job
    fence: int
    is_overdue: bool


def add(session: Connection, kind: JobKind, *, params: Facts, by: str, new_id: Callable[[Prefix], str]) -> Job:
    """Store a job that is due at once, and ring for it. Raises Conflict where MOST_OPEN of its kind are open."""
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADDING)))
    is_open = sa.select(sa.func.count()).select_from(jobs).where(_of.kind == kind, _of.next_attempt_at.is_not(None))
    if (session.scalar(is_open) or 0) >= MOST_OPEN:
        raise Conflict(f"{MOST_OPEN} {kind} jobs are open already; wait until some are over (GET /admin/jobs)")
    row = session.execute(
        sa.insert(jobs)
        .values(
            id=new_id(Prefix.JOB),
            kind=kind,
            params=dict(params),
            status=JobStatus.SCHEDULED,
            next_attempt_at=sa.func.now(),
            requested_by=by,
        )
        .returning(jobs)
    ).one()
    work.ring(session)
    return _job(row)


def claim(session: Connection, job_id: str) -> Claim | None:
    """Claim an open job that is due and not leased; None where it is not, and then the caller must die.

    On each chain one job of a kind is at work at a time: were there more, a node that hangs would take all threads of
    the workers. One whose turn it is not is due again after TURN.
    """
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(_CLAIMING)))
    is_free = sa.and_(_of.id == job_id, _of.next_attempt_at <= sa.func.now() + EARLY, is_unleased(jobs))
    waits = sa.update(jobs).where(is_free, _is_taken()).values(next_attempt_at=sa.func.now() + TURN, kicked_at=None)
    session.execute(waits)
    started_at = sa.func.coalesce(_of.started_at, sa.func.now())
    row = session.execute(
        sa.update(jobs)
        .where(is_free, sa.not_(_is_taken()))
        .values(
            status=JobStatus.RUNNING,
            started_at=started_at,
            attempts=_of.attempts + 1,
            fence=_of.fence + 1,
            lease_until=sa.func.now() + LEASE,
        )
        .returning(jobs, (started_at < sa.func.now() - LONGEST).label("is_overdue"))
    ).one_or_none()
    return None if row is None else Claim(_job(row), row.fence, row.is_overdue)


def hold(session: Connection, claim: Claim) -> None:
    """Lock the claimed row for this transaction. Raises LostFence where it was claimed again, or ended."""
    query = sa.select(_of.id).where(_mine(claim), _of.next_attempt_at.is_not(None)).with_for_update()
    if session.scalar(query) is None:
        raise LostFence(f"job {claim.job.id} is no longer the run's with fence {claim.fence}")


def renew(session: Connection, claim: Claim) -> None:
    """Lengthen the lease between two steps. Raises LostFence."""
    hold(session, claim)
    _set(session, claim, {"lease_until": sa.func.clock_timestamp() + LEASE})


def note(session: Connection, claim: Claim, progress: Facts) -> None:
    """Store how far the job came. The caller holds it."""
    _set(session, claim, {"progress": dict(progress)})


def put_off(session: Connection, claim: Claim, *, after: timedelta, progress: Facts) -> None:
    """End this run; the job is due again after a while. The caller holds it."""
    due = {"next_attempt_at": sa.func.clock_timestamp() + after, "lease_until": None}
    _set(session, claim, due | {"progress": dict(progress)})


def end(session: Connection, claim: Claim, outcome: Done | Failed) -> None:
    """Store what came of the job. The caller holds it."""
    is_done = isinstance(outcome, Done)
    came = (
        {"result": dict(outcome.result)} if isinstance(outcome, Done) else {"error": outcome.error[:ERROR_CHARACTERS]}
    )
    over = {"next_attempt_at": None, "lease_until": None, "ended_at": sa.func.clock_timestamp()}
    _set(session, claim, {"status": JobStatus.DONE if is_done else JobStatus.FAILED} | over | came)


def release(session: Connection, claim: Claim) -> None:
    """Give a claim back, so that the next run need not wait for the lease to end."""
    _set(session, claim, {"lease_until": None})


def find(session: Connection, job_id: str) -> Job | None:
    """Return a job."""
    row = session.execute(sa.select(jobs).where(_of.id == job_id)).one_or_none()
    return None if row is None else _job(row)


def is_open(session: Connection, kind: JobKind, *, chain_id: int) -> bool:
    """Return whether a job of this kind waits or runs for a chain."""
    its = sa.and_(_of.kind == kind, _of.next_attempt_at.is_not(None), _chain_id(jobs) == str(chain_id))
    return bool(session.scalar(sa.select(sa.exists().where(its))))


def matching(
    session: Connection, *, kind: str | None, status: str | None, limit: int, after: str | None = None
) -> list[Job]:
    """Return jobs, newest first, those after the job `after` where one is given."""
    wanted = [] if after is None else [pages.after(session, jobs, after)]
    kinds, statuses = [kind] if kind else list(JobKind), [status] if status else list(JobStatus)
    lists = [[*wanted, _of.kind == each, _of.status == its] for each in kinds for its in statuses]
    return [_job(row) for row in session.execute(pages.newest(jobs, lists, limit=limit))]


def forget(session: Connection, *, older_than: timedelta, limit: int) -> int:
    """Delete up to `limit` jobs that ended so long ago and of which no dead letter speaks. Returns how many."""
    has_letter = sa.exists().where(dead_letters.c.row_id == _of.id)
    query = sa.select(_of.id).where(_of.ended_at < sa.func.now() - older_than, ~has_letter).order_by(_of.ended_at)
    old = batch(query, of=jobs, limit=limit)
    deleted = sa.delete(jobs).where(_of.id.in_(sa.select(old.c.id))).returning(_of.id)
    return len(session.scalars(deleted).all())


def _is_taken() -> sa.ColumnElement[bool]:
    """Say that another job of the same kind is at work on the same chain; a job of no chain has no such other."""
    other = jobs.alias("other")
    is_same = sa.and_(
        other.c.kind == _of.kind,
        _chain_id(other) == _chain_id(jobs),
        other.c.id != _of.id,
    )
    return sa.exists().where(is_same, is_leased(other)).correlate(jobs)


def _chain_id(table: sa.FromClause) -> sa.ColumnElement[str | None]:
    """Read which chain a job is for. What an operator wrote freely is left unread: Postgres may find no text in it."""
    return sa.case((table.c.kind.in_(OF_A_CHAIN), table.c.params["chain_id"].as_string()))


def _mine(claim: Claim) -> sa.ColumnElement[bool]:
    return sa.and_(_of.id == claim.job.id, _of.fence == claim.fence)


def _set(session: Connection, claim: Claim, values: Mapping[str, Any]) -> None:
    session.execute(sa.update(jobs).where(_mine(claim)).values(**values))


def _job(row: sa.Row[Any]) -> Job:
    values = {name: row._mapping[name] for name in _FIELDS}
    return Job(**values | {"kind": JobKind(row.kind), "status": JobStatus(row.status)})
