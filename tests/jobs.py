"""A job in a test's hands: its service called as its actor would, and its row."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import jobs as table
from ctrip.domain.loops import Tick
from ctrip.services import jobs

BY = "key_1"


def job(ctx: Context, job_id: str) -> dict[str, Any]:
    """The job as operators see it."""
    return jobs.find(ctx, job_id)


def due_now(ctx: Context) -> None:
    """Make all open jobs due, whatever they wait for, and end the leases of runs that were killed."""
    with ctx.sessions.begin() as session:
        still_open = table.c.next_attempt_at.is_not(None)
        session.execute(sa.update(table).where(still_open).values(next_attempt_at=sa.func.now(), lease_until=None))


def see_through(
    ctx: Context,
    asked: dict[str, object],
    service: Callable[[Context, str], Tick],
    *,
    between: Callable[[], object] = lambda: None,
    runs: int = 30,
) -> dict[str, Any]:
    """Run a job until it is over, `between` after each run; return it."""
    job_id = str(asked["id"])
    for _ in range(runs):
        service(ctx, job_id)
        found = job(ctx, job_id)
        if found["ended_at"] is not None:
            return found
        between()
        due_now(ctx)
    raise AssertionError(f"not over after {runs} runs: {found}")
