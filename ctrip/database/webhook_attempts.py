"""Attempts: who may make one now, what it brought, and whose turn it is at the same origin then.

    SELECT … WHERE pending AND due AND not leased FOR UPDATE SKIP LOCKED, then fence + 1 and a lease
    after the POST, in one statement: the attempt, what it makes of the delivery, and the claim of the origin's next

The fence is the claim's number: a run that was overtaken records nothing. The database's clock decides what is due. A
process that dies between the POST and the record leaves the lease to end; the delivery is then tried again.

Locks are taken in one order: delivery, origin, endpoint; other deliveries only where they are free.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import webhook_endpoints as endpoint_rows
from ctrip.database import webhook_origins, webhooks
from ctrip.database.batches import batch
from ctrip.database.leases import is_unleased
from ctrip.database.models import webhook_deliveries, webhook_endpoints
from ctrip.database.webhook_statements import CLAIM, FIND, KICK_NEXT, RECORD
from ctrip.domain.events import Event, EventType
from ctrip.domain.webhook_endpoints import Endpoint
from ctrip.domain.webhooks import AT_ONCE, Attempt, Delivery, DeliveryStatus, Outcome, origin
from ctrip.errors import LostFence

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

    `was_leased`: its place at the origin had not been given to another. `was_slow`: so the origin is marked by now,
    after the attempts that ended there during this one. `was_failing`: so its endpoint is marked. `following` is the
    delivery that has been due for longest at the same origin, claimed in the place of the one that has ended: for
    `read`, when the attempt is committed, so that a row which nobody can read takes no attempt back.
    """

    was_leased: bool
    was_slow: bool
    was_failing: bool
    following: sa.Row[Any] | None


def claim(session: Connection, delivery_id: str) -> Claim | None:
    """Claim a pending delivery that is due, in no attempt, and of an origin where there is room; else None, and die."""
    place = FIND.scalar(session, {"wanted": delivery_id})
    if place is None or not webhook_origins.has_room(session, place, beside=delivery_id):
        return None
    return read(CLAIM.execute(session, {"wanted": delivery_id}).one())


def read(row: sa.Row[Any]) -> Claim:
    """Make a claim of its row."""
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


def hand_on(session: Connection, place: str, *, is_held: bool) -> ComesNext | None:
    """Mark the delivery of an origin that is due first as kicked, and return it for the caller to send its message.

    The caller's place at the origin, where `is_held`, goes to one that is due by now: it waits for its message under a
    lease, so that no other run takes it, and no other delivery the place. None where nothing is due there soon: the
    relay sends for what is due later.
    """
    row = KICK_NEXT.execute(session, {"wanted": place, "is_held": is_held}).one_or_none()
    return None if row is None else ComesNext(row.id, max(timedelta(0), row.wait))


def put_off(session: Connection, place: str) -> None:
    """Let the relay wait with what is due first at an origin as it does after a message: others are to have a turn."""
    query = (
        sa.select(_of.id)
        .where(_of.origin == place, _of.next_attempt_at <= sa.func.now(), is_unleased(webhook_deliveries))
        .order_by(_of.next_attempt_at)
    )
    first = batch(query, of=webhook_deliveries, limit=AT_ONCE)
    kicked = sa.update(webhook_deliveries).where(_of.id.in_(sa.select(first.c.id)))
    session.execute(kicked.values(kicked_at=sa.func.now()))


def is_moved(session: Connection, claim: Claim) -> bool:
    """Return whether a delivery's endpoint has got another URL since it was claimed."""
    of = webhook_endpoints.c
    query = sa.exists().where(of.id == claim.delivery.endpoint_id, of.url != claim.delivery.url)
    return bool(session.scalar(sa.select(query)))


def record(
    session: Connection, claim: Claim, *, attempt: Attempt, outcome: Outcome, at: datetime, goes_on: bool
) -> Recorded:
    """Store an attempt that ended `at` and what it makes of the delivery, and end the claim. Raises LostFence.

    Who `goes_on` claims the origin's next delivery with it, unless its place was given to another: the lease was over.
    """
    values = {
        "wanted": claim.delivery.id,
        "of_fence": claim.fence,
        "of_origin": claim.origin,
        "goes_on": goes_on,
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
    row = RECORD.execute(session, values).one_or_none()
    if row is None:
        raise LostFence(f"delivery {claim.delivery.id} was claimed again after fence {claim.fence}")
    return Recorded(row.was_leased, row.was_slow, row.was_failing, None if row.id is None else row)


def release(session: Connection, claim: Claim) -> None:
    """Give a claim back without an attempt, so that the next run need not wait for the lease to end.

    It counts as kicked: the relay is to wait as it does after a message.
    """
    session.execute(
        sa.update(webhook_deliveries)
        .where(_of.id == claim.delivery.id, _of.fence == claim.fence)
        .values(lease_until=None, kicked_at=sa.func.now())
    )


def move(session: Connection, claim: Claim, *, url: str) -> None:
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


def _secrets(row: sa.Row[Any], endpoint: dict[str, Any] | None) -> tuple[bytes, ...]:
    if endpoint is None:
        return () if row.webhook_secret is None else (row.webhook_secret,)
    return (endpoint["secret"], endpoint["former_secret"]) if row.has_former else (endpoint["secret"],)
