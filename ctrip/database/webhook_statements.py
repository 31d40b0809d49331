"""The statements of attempts at deliveries, for `webhook_attempts.py`.

They are made once and prepared: at hundreds of attempts in a second, to write them anew and have Postgres read them
anew would cost more than all else that is done for an attempt.
"""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ctrip.database import webhook_origins
from ctrip.database.leases import EARLY, is_unleased
from ctrip.database.models import events, merchants, webhook_attempts, webhook_deliveries, webhook_endpoints
from ctrip.database.models import webhook_origins as origins
from ctrip.database.prepared import Prepared
from ctrip.domain.webhooks import AT_ONCE, DeliveryStatus

LEASE = timedelta(seconds=30)
"""Twice the longest attempt. It must end after the attempt, or two processes would post at once."""

NEAR = timedelta(seconds=60)
"""What is due sooner is worth a delayed message; the rest is found by the relay."""

_of = webhook_deliveries.c
_is_due = _of.next_attempt_at <= sa.func.now() + EARLY
_is_ready = (
    _of.status == DeliveryStatus.PENDING,
    _is_due,
    webhook_origins.is_idle,
)
_by_id = sa.select(_of.id).where(_of.id == sa.bindparam("wanted"))
_now = sa.func.clock_timestamp()

_MADE = ("number", "at", "status_code", "duration_ms", "error", "response")


def _leasing(chosen: sa.CTE) -> sa.CTE:
    """Lease the chosen row for an attempt; it awaits no message any more."""
    return (
        sa.update(webhook_deliveries)
        .where(_of.id.in_(sa.select(chosen.c.id)))
        .values(fence=_of.fence + 1, lease_until=_now + LEASE, kicked_at=None)
        .returning(webhook_deliveries, _now.label("claimed_at"))
        .cte("leased")
    )


def _reading(leased: sa.CTE, *beside: sa.ColumnElement[Any], source: sa.FromClause) -> sa.Select[Any]:
    """Read the leased row and all that belongs to it, and what stands `beside` it in the same source."""
    own, of = leased.c, webhook_endpoints.c
    joined = (
        source.outerjoin(events, events.c.id == own.event_id)
        .outerjoin(merchants, merchants.c.id == own.merchant_id)
        .outerjoin(webhook_endpoints, of.id == own.endpoint_id)
        .outerjoin(origins, origins.c.origin == own.origin)
    )
    return sa.select(
        *beside,
        leased,
        merchants.c.webhook_secret,
        origins.c.slow_since,
        *(column.label(f"event_of_{column.name}") for column in events.c),
        *(column.label(f"endpoint_of_{column.name}") for column in of),
        (of.former_until > sa.func.now()).label("has_former"),
    ).select_from(joined)


def _recording() -> sa.CTE:
    """Store an attempt and change its delivery, where the claim still stands."""
    of_endpoint = webhook_endpoints.c
    held = (
        sa.select(
            _of.id,
            (_of.lease_until > _now).label("was_leased"),
            sa.exists().where(origins.c.origin == _of.origin, origins.c.slow_since.is_not(None)).label("was_slow"),
            sa.exists()
            .where(of_endpoint.id == _of.endpoint_id, of_endpoint.failing_since.is_not(None))
            .label("was_failing"),
        )
        .where(_of.id == sa.bindparam("wanted"), _of.fence == sa.bindparam("of_fence"))
        .with_for_update(of=webhook_deliveries)
        .cte("held")
    )
    made = sa.select(held.c.id, *(sa.bindparam(name, type_=webhook_attempts.c[name].type) for name in _MADE))
    return (
        sa.update(webhook_deliveries)
        .add_cte(sa.insert(webhook_attempts).from_select(["delivery_id", *_MADE], made).cte("made"))
        .where(_of.id == held.c.id)
        .values(
            status=sa.bindparam("new_status"),
            attempts=sa.bindparam("number"),
            next_attempt_at=sa.bindparam("new_next_attempt_at"),
            # The message of the next attempt is still to be sent.
            kicked_at=None,
            lease_until=None,
            last_status_code=sa.bindparam("status_code"),
            dead_reason=sa.bindparam("new_dead_reason"),
            delivered_at=sa.bindparam("new_delivered_at"),
        )
        .returning(held.c.was_leased, held.c.was_slow, held.c.was_failing)
        .cte("recorded")
    )


def _recording_and_claiming() -> sa.Select[Any]:
    """Do that, and in the place of the attempt that has ended claim what is due next, for one who goes on."""
    recorded = _recording()
    goes_on = sa.exists().where(sa.bindparam("goes_on", type_=sa.Boolean), recorded.c.was_leased)
    leased = _leasing(_oldest("of_origin", goes_on, due_within=EARLY))
    return _reading(leased, *recorded.c, source=recorded.outerjoin(leased, sa.true()))


def _oldest(wanted: str, *also: sa.ColumnElement[bool], due_within: timedelta) -> sa.CTE:
    """Choose the delivery of an origin that is due first, and that nobody is at.

    Written as a range of (origin, time), which the planner can only walk in order. Told "equal to the origin, by time",
    it may sort all that is due there, again for each attempt, when its statistics are behind.
    """
    place, origin = sa.tuple_(_of.origin, _of.next_attempt_at), sa.bindparam(wanted, type_=sa.Text)
    begin: sa.ColumnElement[datetime] = sa.literal_column("'-infinity'::timestamptz")
    end = sa.func.now() + due_within
    query = sa.select(_of.id).where(
        place >= sa.tuple_(origin, begin),
        place <= sa.tuple_(origin, end),
        _of.next_attempt_at.is_not(None),
        is_unleased(webhook_deliveries),
        *also,
    )
    # A limit that Postgres cannot see would make the plan for any values look dear, and each run be planned anew.
    first = query.order_by(_of.origin, _of.next_attempt_at).limit(sa.literal_column("1"))
    return first.with_for_update(skip_locked=True).cte("chosen")


FIND = Prepared(
    sa.select(_of.origin)
    .where(
        _of.id == sa.bindparam("wanted"),
        *_is_ready,
        webhook_origins.attempts_at(_of.origin, beside=_of.id) < AT_ONCE,
    )
    .with_for_update(of=webhook_deliveries, skip_locked=True)
)
_CLAIMED = _leasing(_by_id.cte("chosen"))
CLAIM = Prepared(_reading(_CLAIMED, source=_CLAIMED))
KICK_NEXT = Prepared(
    sa.update(webhook_deliveries)
    .where(_of.id.in_(sa.select(_oldest("wanted", due_within=NEAR).c.id)))
    # The relay is to wait for as long after the moment that it is due as it does for any message.
    .values(
        kicked_at=sa.func.greatest(_of.next_attempt_at, sa.func.now()),
        # Whoever had it before and slept through the end of its lease has lost it.
        fence=_of.fence + 1,
        lease_until=sa.case((sa.and_(sa.bindparam("is_held", type_=sa.Boolean), _is_due), _now + LEASE)),
    )
    .returning(_of.id, (_of.next_attempt_at - _now).label("wait"))
)
RECORD = Prepared(_recording_and_claiming())
