"""Origins: how many attempts there are at one, which of them are slow, and whose turn it is.

A delivery in an attempt holds a lease, so the leases of an origin are the attempts at it. Who wants one more locks the
origin's row, counts, and only then takes its lease; whoever has one may pass it on to the origin's next delivery, which
changes no count and needs no lock: to attempt it at once, or to keep its place until its message has come.
"""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.batches import batch
from ctrip.database.leases import is_leased, is_unleased
from ctrip.database.models import webhook_deliveries, webhook_origins
from ctrip.database.prepared import Prepared
from ctrip.domain.webhooks import AT_ONCE

_of = webhook_deliveries.c
_is_due = _of.next_attempt_at <= sa.func.now()
_is_unleased = is_unleased(webhook_deliveries)

is_idle = sa.or_(_is_unleased, _of.kicked_at.is_not(None))
"""In no attempt. Leased and kicked: the lease keeps the place that a delivery was handed until its message comes."""


def has_room(session: Connection, origin: str, *, beside: str) -> bool:
    """Lock an origin until the transaction ends and say whether there may be an attempt at this delivery of it.

    The caller has locked its delivery's row before.
    """
    of = webhook_origins.c
    query = sa.select(of.origin).where(of.origin == origin).with_for_update()
    if session.scalar(query) is None:
        # Made by another in the meantime, it is locked by the update, which changes nothing.
        made = pg.insert(webhook_origins).values(origin=origin)
        session.execute(made.on_conflict_do_update(index_elements=[of.origin], set_={"origin": origin}))
    return (_ATTEMPTS.scalar(session, {"wanted": origin, "beside": beside}) or 0) < AT_ONCE


def attempts_at(origin: sa.ColumnElement[str], *, beside: sa.ColumnElement[str] | None = None) -> sa.ScalarSelect[int]:
    """Count the attempts at an origin that are being made, or have been handed the place for it; all `beside` one."""
    leased = webhook_deliveries.alias("leased")
    count = sa.select(sa.func.count()).where(leased.c.origin == origin, is_leased(leased))
    if beside is not None:
        count = count.where(leased.c.id != beside)
    # Nothing but the leases is its own to read: below a LIMIT SQLAlchemy would count those of all origins.
    return count.correlate_except(leased).scalar_subquery()


def mark(session: Connection, origin: str, *, is_slow: bool) -> None:
    """Write down whether the newest attempt at an origin was a slow one, also where the origin was forgotten since."""
    of = webhook_origins.c
    marked = pg.insert(webhook_origins).values(origin=origin, slow_since=sa.func.clock_timestamp() if is_slow else None)
    session.execute(
        marked.on_conflict_do_update(
            index_elements=[of.origin],
            set_={"slow_since": marked.excluded.slow_since},
            where=of.slow_since.is_(None) == is_slow,
        )
    )


def forget(session: Connection, *, slow_before: timedelta, limit: int) -> int:
    """Delete up to `limit` origins at which nothing is pending, slow ones if they became so long ago. Returns how many.

    A payment may name any host, so there is no end of origins. No index tells when the last delivery to one was made,
    and it is not asked: a row that is not slow says no more than none does, and is made again when it is needed. A slow
    one that is forgotten costs the fast lane what a new origin does: its next attempts, the first of which marks it.

    Nothing is lost to whoever wants the origin at this moment. A row that is locked stays; who waits for one that is
    being deleted makes it anew; attempts are counted by their leases; and what an attempt that ends later says of the
    origin is stored all the same.
    """
    of = webhook_origins.c
    is_pending = sa.exists().where(_of.origin == of.origin, _of.next_attempt_at.is_not(None))
    says_nothing = sa.or_(of.slow_since.is_(None), of.slow_since < sa.func.now() - slow_before)
    useless = batch(sa.select(of.origin).where(~is_pending, says_nothing), of=webhook_origins, limit=limit)
    gone = sa.delete(webhook_origins).where(of.origin.in_(sa.select(useless.c.origin))).returning(of.origin)
    return len(session.scalars(gone).all())


def due(*, limit: int, again_after: timedelta) -> sa.CTE:
    """Select the deliveries that the relay shall wake: of each origin as many as may be tried at once, oldest first.

    One of them goes on with the rest of its origin, so a million that are due at one origin cost as little as two, and
    stand in nobody's way. The origins are found by hopping along the index, not by reading what is due.
    """
    first = sa.select(_of.origin).where(_of.next_attempt_at.is_not(None)).order_by(_of.origin).limit(1)
    hop = sa.select(first.subquery().c.origin).cte("origins", recursive=True)
    later = webhook_deliveries.alias("later").c
    following = (
        sa.select(later.origin)
        .where(later.next_attempt_at.is_not(None), later.origin > hop.c.origin)
        .order_by(later.origin)
        .limit(1)
        .scalar_subquery()
    )
    origins = hop.union_all(sa.select(following).where(hop.c.origin.is_not(None)))
    turn = (
        sa.select(_of.id, _of.next_attempt_at, _of.kicked_at)
        .where(_of.origin == origins.c.origin, _is_due, _is_unleased)
        .order_by(_of.next_attempt_at)
        .limit(sa.func.greatest(0, AT_ONCE - attempts_at(origins.c.origin)))
        .lateral("turn")
    )
    unkicked = sa.or_(turn.c.kicked_at.is_(None), turn.c.kicked_at < sa.func.now() - again_after)
    chosen = sa.select(turn.c.id).select_from(origins.join(turn, sa.true())).where(unkicked)
    wanted = chosen.order_by(turn.c.next_attempt_at).limit(limit).cte("wanted")
    # Asked once more of the row itself: another scheduler may have had it in the meantime.
    of_row = sa.or_(_of.kicked_at.is_(None), _of.kicked_at < sa.func.now() - again_after)
    locked = sa.select(_of.id).where(_of.id.in_(sa.select(wanted.c.id)), _is_due, _is_unleased, of_row)
    return locked.with_for_update(skip_locked=True).cte("due")


_ATTEMPTS = Prepared(
    sa.select(
        attempts_at(sa.bindparam("wanted", type_=sa.Text), beside=sa.bindparam("beside", type_=sa.Text)),
    )
)
