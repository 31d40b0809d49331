"""Loop rows: who may run a loop now. A message that cannot win the claim dies, so N duplicates fall to one.

    UPDATE … SET fence = fence + 1 WHERE due AND not leased RETURNING fence

The fence is the claim's number. Every storing transaction of the run locks the row by it; a run that was overtaken
finds no row and writes nothing. The database's clock decides, so workers on several machines agree.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.leases import EARLY, ODD, is_unleased
from ctrip.database.models import loops
from ctrip.database.prepared import Prepared
from ctrip.errors import LostFence, NotFound

LEASE = timedelta(seconds=20)
"""Longer than two requests to a node may take, of which each has 8 s to be answered whole: it is renewed after each.

Not within that: to wait for a rate limit, and for a name to be resolved. A run that loses its lease writes nothing.
"""


_IS_ODD = loops.c.next_run_at > sa.func.now() + ODD + loops.c.every_ms * sa.literal_column("interval '1 ms'")
_NAMED = loops.c.name == sa.bindparam("of_name")
# What every run of a loop asks is built once: to build it anew costs as much as to ask.
_FENCED = sa.and_(_NAMED, loops.c.fence == sa.bindparam("of_fence"))
_CLAIM = Prepared(
    sa.update(loops)
    .where(_NAMED, loops.c.enabled, sa.or_(loops.c.next_run_at <= sa.func.now() + EARLY, _IS_ODD), is_unleased(loops))
    .values(fence=loops.c.fence + 1, lease_until=sa.func.now() + LEASE)
    .returning(loops.c.fence)
)
_HOLD = Prepared(sa.select(loops.c.name).where(_FENCED).with_for_update())
_RELEASE = Prepared(
    sa.update(loops)
    .where(_FENCED)
    .values(
        lease_until=None,
        next_run_at=sa.func.clock_timestamp() + sa.bindparam("again_in", type_=sa.Interval),
        last_tick_at=sa.case(
            (sa.bindparam("has_ticked", type_=sa.Boolean), sa.func.clock_timestamp()), else_=loops.c.last_tick_at
        ),
    )
)


@dataclass(frozen=True)
class Loop:
    """A loop's row. `every` is the time between two ticks."""

    name: str
    kind: str
    chain_id: int
    every: timedelta
    enabled: bool
    next_run_at: datetime
    last_tick_at: datetime | None
    lease_until: datetime | None
    fence: int


@dataclass(frozen=True)
class Claim:
    """The right to run a loop once, until the lease ends or another claims it."""

    name: str
    fence: int


def claim(session: Connection, name: str) -> Claim | None:
    """Claim a loop that is due and not leased; None where it is not, and then the caller must die."""
    fence = _CLAIM.scalar(session, {"of_name": name})
    return None if fence is None else Claim(name, fence)


def hold(session: Connection, claim: Claim) -> None:
    """Lock the loop's row for this transaction. Raises LostFence where another run has claimed it since."""
    if _HOLD.scalar(session, {"of_name": claim.name, "of_fence": claim.fence}) is None:
        raise LostFence(f"loop {claim.name} was claimed again after fence {claim.fence}")


def lock(session: Connection, name: str) -> None:
    """Lock a loop's row for this transaction without a claim: whoever holds one waits, and none is taken meanwhile.

    For what must not be stored while a run of the loop stores. Raises NotFound where there is no such loop.
    """
    query = sa.select(loops.c.name).where(loops.c.name == name).with_for_update()
    if session.scalar(query) is None:
        raise NotFound(f"there is no loop {name}: no scheduler has served its chain yet")


def renew(session: Connection, claim: Claim) -> None:
    """Lengthen the lease between two steps. Raises LostFence."""
    hold(session, claim)
    session.execute(
        sa.update(loops).where(loops.c.name == claim.name).values(lease_until=sa.func.clock_timestamp() + LEASE)
    )


def release(session: Connection, claim: Claim, *, again_in: timedelta, has_ticked: bool = True) -> None:
    """End the run, in the transaction that stored its work: the loop is due again after `again_in`.

    Where nothing could be done, `has_ticked` is False: `last_tick_at` stands still, for operators to see.
    """
    told = {"of_name": claim.name, "of_fence": claim.fence, "again_in": again_in, "has_ticked": has_ticked}
    _RELEASE.run(session, told)


def bring_forward(session: Connection, name: str, *, to: datetime | None = None) -> Loop | None:
    """Make a loop due at `to`, now unless given, or earlier where it is. Returns the row as it was, locked."""
    row = session.execute(sa.select(loops).where(loops.c.name == name).with_for_update()).one_or_none()
    if row is None:
        return None
    due_at = sa.func.least(loops.c.next_run_at, sa.func.now() if to is None else to)
    session.execute(sa.update(loops).where(loops.c.name == name).values(next_run_at=due_at))
    return _loop(row)


def set_enabled(session: Connection, name: str, *, enabled: bool) -> Loop | None:
    """Let a loop run, or not. Returns its row; None where there is no such loop."""
    change = sa.update(loops).where(loops.c.name == name).values(enabled=enabled)
    row = session.execute(change.returning(loops)).one_or_none()
    return None if row is None else _loop(row)


def make_overdue(session: Connection, name: str, *, by: timedelta) -> Loop | None:
    """Make a loop so overdue, and never kicked, that the watchdog sends its message at its next look. Returns its row.

    A paused loop stays as it is.
    """
    overdue = sa.update(loops).where(loops.c.name == name, loops.c.enabled)
    row = session.execute(
        overdue.values(next_run_at=sa.func.least(loops.c.next_run_at, sa.func.now() - by), kicked_at=None).returning(
            loops
        )
    ).one_or_none()
    return None if row is None else _loop(row)


def wake(session: Connection, name: str) -> bool:
    """Make a loop due now. False, at once, where it is paused, or where somebody is at it or has locked its row."""
    free = sa.select(loops.c.name).where(loops.c.name == name, loops.c.enabled, is_unleased(loops))
    due = sa.update(loops).where(loops.c.name.in_(free.with_for_update(skip_locked=True)))
    woken = session.scalar(
        due.values(next_run_at=sa.func.least(loops.c.next_run_at, sa.func.now())).returning(loops.c.name)
    )
    return woken is not None


def find(session: Connection, name: str) -> Loop | None:
    """Return a loop's row."""
    row = session.execute(sa.select(loops).where(loops.c.name == name)).one_or_none()
    return None if row is None else _loop(row)


def ensure(session: Connection, *, kind: str, chain_id: int, every: timedelta) -> None:
    """Make a loop exist with this period. Any number of schedulers may do it at once."""
    name = loop_name(kind, chain_id)
    every_ms = int(every.total_seconds() * 1000)
    statement = pg.insert(loops).values(name=name, kind=kind, chain_id=chain_id, every_ms=every_ms)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["name"], set_={"every_ms": every_ms}, where=loops.c.every_ms != every_ms
        )
    )


def kick_overdue(
    session: Connection, *, chain_ids: Collection[int], grace: timedelta, again_after: timedelta
) -> list[Loop]:
    """Return the loops of these chains whose message must have been lost.

    They are due for `grace`, unleased, and not kicked for `again_after`.
    """
    rows = session.execute(
        sa.update(loops)
        .where(
            loops.c.enabled,
            loops.c.chain_id.in_(chain_ids),
            sa.or_(loops.c.next_run_at < sa.func.now() - grace, _IS_ODD),
            is_unleased(loops),
            sa.or_(
                loops.c.kicked_at.is_(None),
                loops.c.kicked_at < sa.func.now() - again_after,
                loops.c.kicked_at > sa.func.now() + ODD,
            ),
        )
        .values(kicked_at=sa.func.now())
        .returning(loops)
    )
    return [_loop(row) for row in rows]


def find_all(session: Connection) -> list[Loop]:
    """Return every loop by name."""
    return [_loop(row) for row in session.execute(sa.select(loops).order_by(loops.c.name))]


def loop_name(kind: str, chain_id: int) -> str:
    """Name the loop of a kind on a chain, such as `listener:1`."""
    return f"{kind}:{chain_id}"


def _loop(row: sa.Row[Any]) -> Loop:
    return Loop(
        name=row.name,
        kind=row.kind,
        chain_id=row.chain_id,
        every=timedelta(milliseconds=row.every_ms),
        enabled=row.enabled,
        next_run_at=row.next_run_at,
        last_tick_at=row.last_tick_at,
        lease_until=row.lease_until,
        fence=row.fence,
    )
