"""Attempts: who may make one now, what it brought, and whose turn it is at the same origin then.

    SELECT … WHERE pending AND due AND not leased FOR UPDATE SKIP LOCKED, then fence + 1 and a lease

The fence is the claim's number: a run that was overtaken records nothing. The database's clock decides what is due. A
process that dies between the POST and the record leaves the lease to end; the delivery is then tried again.

Locks are taken in one order: delivery, origin, endpoint; other deliveries only where they are free.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ctrip.database import webhook_endpoints as endpoint_rows
from ctrip.database import webhook_origins, webhooks, work
from ctrip.database.models import events, merchants, webhook_attempts, webhook_deliveries, webhook_endpoints
from ctrip.database.models import webhook_origins as origins
from ctrip.database.prepared import prepared
from ctrip.domain.events import Event, EventType
from ctrip.domain.webhook_endpoints import Endpoint
from ctrip.domain.webhooks import AT_ONCE, Attempt, Delivery, DeliveryStatus, Outcome, origin
from ctrip.errors import LostFence

LEASE = timedelta(seconds=30)
"""Twice the longest attempt. It must end after the attempt, or two processes would post at once."""

NEAR = timedelta(seconds=60)
"""What is due sooner is worth a delayed message; the rest is found by the relay."""

_EARLY = timedelta(milliseconds=50)
_of = webhook_deliveries.c


@dataclass(frozen=True)
class Claim:
    """The right to attempt a delivery once, and all that is needed for it. `attempt` counts from the schedule's start.

    `secrets` sign, the newest first; they are encrypted, and there are none where nobody vouches for a custom webhook.
    `delivery` is the row as it was claimed, `origin` that of its URL, and slow where its newest attempt was.
    """

    delivery: Delivery
    origin: str
    is_slow: bool
    fence: int
    attempt: int
    claimed_at: datetime
    event: Event | None
    endpoint: Endpoint | None
    secrets: tuple[bytes, ...]


@dataclass(frozen=True)
class ComesNext:
    """A delivery whose message is to be sent, and in what time."""

    delivery_id: str
    after: timedelta


@dataclass(frozen=True)
class Recorded:
    """What stands there when an attempt is stored.

    `is_leased`: its place at the origin was not given to another yet. `is_slow`: so the origin is marked by now, after
    the attempts that ended there during this one. `is_failing`: so its endpoint is marked.
    """

    is_leased: bool
    is_slow: bool
    is_failing: bool


def claim(session: Session, delivery_id: str) -> Claim | None:
    """Claim a pending delivery that is due, not leased, and of an origin where there is room; else None, and die."""
    place = session.scalar(_FIND, {"wanted": delivery_id})
    if place is None or not webhook_origins.has_room(session, place):
        return None
    return _read(session.execute(_CLAIM, {"wanted": delivery_id}).one())


def claim_next(session: Session, place: str) -> Claim | None:
    """Claim the delivery of an origin that has been due for longest, in the place of one that the caller holds."""
    row = session.execute(_CLAIM_NEXT, {"wanted": place}).one_or_none()
    return None if row is None else _read(row)


def hand_on(session: Session, place: str) -> ComesNext | None:
    """Mark the delivery of an origin that is due first as kicked, and return it for the caller to send its message.

    None where nothing is due there soon: the relay sends for what is due later.
    """
    row = session.execute(_KICK_NEXT, {"wanted": place}).one_or_none()
    return None if row is None else ComesNext(row.id, max(timedelta(0), row.wait))


def is_moved(session: Session, claim: Claim) -> bool:
    """Return whether a delivery's endpoint has got another URL since it was claimed."""
    of = webhook_endpoints.c
    query = sa.exists().where(of.id == claim.delivery.endpoint_id, of.url != claim.delivery.url)
    return bool(session.scalar(sa.select(query)))


def record(session: Session, claim: Claim, *, attempt: Attempt, outcome: Outcome, at: datetime) -> Recorded:
    """Store an attempt that ended `at` and what it makes of the delivery, and end the claim. Raises LostFence."""
    values = {
        "wanted": claim.delivery.id,
        "of_fence": claim.fence,
        "number": attempt.number,
        "at": attempt.at,
        "status_code": attempt.status_code,
        "duration_ms": attempt.duration_ms,
        "error": attempt.error,
        "response": attempt.response,
        "new_status": outcome.status,
        "new_next_attempt_at": outcome.next_attempt_at,
        "new_dead_reason": outcome.dead_reason,
        "new_delivered_at": at if outcome.status is DeliveryStatus.DELIVERED else None,
    }
    row = session.execute(_RECORD, values).one_or_none()
    if row is None:
        raise LostFence(f"delivery {claim.delivery.id} was claimed again after fence {claim.fence}")
    return Recorded(*row)


def release(session: Session, claim: Claim) -> None:
    """Give a claim back without an attempt, so that the next run need not wait for the lease to end."""
    session.execute(
        sa.update(webhook_deliveries)
        .where(_of.id == claim.delivery.id, _of.fence == claim.fence)
        .values(lease_until=None)
    )


def move(session: Session, claim: Claim, *, url: str) -> None:
    """Give a claim back, its delivery now on the way to the URL that its endpoint has got since."""
    session.execute(
        sa.update(webhook_deliveries)
        .where(_of.id == claim.delivery.id, _of.fence == claim.fence)
        .values(lease_until=None, kicked_at=sa.func.now(), url=url, origin=origin(url))
    )


def _part(name: str, row: sa.Row[Any]) -> dict[str, Any] | None:
    start = f"{name}_of_"
    part = {key.removeprefix(start): value for key, value in row._mapping.items() if key.startswith(start)}
    return None if part["id"] is None else part


def _read(row: sa.Row[Any]) -> Claim:
    event, endpoint = _part("event", row), _part("endpoint", row)
    return Claim(
        delivery=webhooks.read(row),
        origin=row.origin,
        is_slow=row.slow_since is not None,
        fence=row.fence,
        attempt=row.attempts - row.attempts_before_schedule + 1,
        claimed_at=row.claimed_at,
        event=None if event is None else Event(**event | {"type": EventType(event["type"])}),
        endpoint=None if endpoint is None else endpoint_rows.read(endpoint),
        secrets=_secrets(row, endpoint),
    )


def _secrets(row: sa.Row[Any], endpoint: dict[str, Any] | None) -> tuple[bytes, ...]:
    if endpoint is None:
        return () if row.webhook_secret is None else (row.webhook_secret,)
    return (endpoint["secret"], endpoint["former_secret"]) if row.has_former else (endpoint["secret"],)


# --- statements -----------------------------------------------------------------------------------------------------
# Made once: at hundreds of attempts in a second, building them anew costs more than all that the database does.


_MADE = ("number", "at", "status_code", "duration_ms", "error", "response")


def _claiming(chosen: sa.CTE) -> sa.Select[Any]:
    """Lease the chosen row and read all that belongs to it, in one statement."""
    leased = (
        sa.update(webhook_deliveries)
        .where(_of.id.in_(sa.select(chosen.c.id)))
        .values(fence=_of.fence + 1, lease_until=sa.func.clock_timestamp() + LEASE)
        .returning(webhook_deliveries, sa.func.clock_timestamp().label("claimed_at"))
        .cte("leased")
    )
    own, of = leased.c, webhook_endpoints.c
    place = (
        leased.outerjoin(events, events.c.id == own.event_id)
        .outerjoin(merchants, merchants.c.id == own.merchant_id)
        .outerjoin(webhook_endpoints, of.id == own.endpoint_id)
        .outerjoin(origins, origins.c.origin == own.origin)
    )
    return sa.select(
        leased,
        merchants.c.webhook_secret,
        origins.c.slow_since,
        *(column.label(f"event_of_{column.name}") for column in events.c),
        *(column.label(f"endpoint_of_{column.name}") for column in of),
        (of.former_until > sa.func.now()).label("has_former"),
    ).select_from(place)


def _recording() -> sa.Update:
    """Store an attempt and change its delivery where the claim still stands, in one statement."""
    of_endpoint = webhook_endpoints.c
    held = (
        sa.select(
            _of.id,
            (_of.lease_until > _now).label("is_leased"),
            sa.exists().where(origins.c.origin == _of.origin, origins.c.slow_since.is_not(None)).label("is_slow"),
            sa.exists()
            .where(of_endpoint.id == _of.endpoint_id, of_endpoint.failing_since.is_not(None))
            .label("is_failing"),
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
        .returning(held.c.is_leased, held.c.is_slow, held.c.is_failing)
    )


_is_ready = (
    _of.status == DeliveryStatus.PENDING,
    _of.next_attempt_at <= sa.func.now() + _EARLY,
    work.is_unleased(webhook_deliveries),
)
_by_id = sa.select(_of.id).where(_of.id == sa.bindparam("wanted"))
_now = sa.func.clock_timestamp()


def _oldest(*, due_within: timedelta) -> sa.CTE:
    """Choose the delivery of an origin that is due first, and that nobody is at.

    Written as a range of (origin, time), which the planner can only walk in order. Told "equal to the origin, by time",
    it may sort all that is due there, again for each attempt, when its statistics are behind.
    """
    place, wanted = sa.tuple_(_of.origin, _of.next_attempt_at), sa.bindparam("wanted", type_=sa.Text)
    begin: sa.ColumnElement[datetime] = sa.literal_column("'-infinity'::timestamptz")
    end = sa.func.now() + due_within
    query = sa.select(_of.id).where(
        place >= sa.tuple_(wanted, begin),
        place <= sa.tuple_(wanted, end),
        _of.next_attempt_at.is_not(None),
        work.is_unleased(webhook_deliveries),
    )
    # A limit that Postgres cannot see would make the plan for any values look dear, and each run be planned anew.
    first = query.order_by(_of.origin, _of.next_attempt_at).limit(sa.literal_column("1"))
    return first.with_for_update(skip_locked=True).cte("chosen")


_FIND = prepared(
    sa.select(_of.origin)
    .where(_of.id == sa.bindparam("wanted"), *_is_ready, webhook_origins.attempts_at(_of.origin) < AT_ONCE)
    .with_for_update(of=webhook_deliveries, skip_locked=True)
)
_CLAIM = prepared(_claiming(_by_id.cte("chosen")))
_CLAIM_NEXT = prepared(_claiming(_oldest(due_within=_EARLY)))
_KICK_NEXT = prepared(
    sa.update(webhook_deliveries)
    .where(_of.id.in_(sa.select(_oldest(due_within=NEAR).c.id)))
    # The relay is to wait for as long after the moment that it is due as it does for any message.
    .values(kicked_at=sa.func.greatest(_of.next_attempt_at, sa.func.now()))
    .returning(_of.id, (_of.next_attempt_at - _now).label("wait"))
)
_RECORD = prepared(_recording())
