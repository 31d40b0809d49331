"""Delivery rows: who may attempt one now, what its attempts brought, and who may look at it.

    UPDATE … SET fence = fence + 1, lease_until = … WHERE pending AND due AND not leased RETURNING fence

The fence is the claim's number: a run that was overtaken records nothing. The database's clock decides what is due. A
process that dies between the POST and the record leaves the lease to end; the delivery is then tried again.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ctrip.database import events
from ctrip.database.models import events as events_table
from ctrip.database.models import merchants, webhook_attempts, webhook_deliveries
from ctrip.domain.events import Event
from ctrip.domain.webhooks import Attempt, DeadReason, Delivery, DeliveryStatus, Outcome
from ctrip.errors import LostFence

LEASE = timedelta(seconds=30)
"""Twice the longest attempt. It must end after the attempt, or two processes would post at once."""

Told = tuple[Delivery, list[Attempt]]
"""A delivery and its attempts, oldest first."""

_EARLY = timedelta(milliseconds=50)
_of = webhook_deliveries.c
_is_unleased = sa.or_(_of.lease_until.is_(None), _of.lease_until < sa.func.now())


@dataclass(frozen=True)
class Claim:
    """The right to attempt a delivery once, and all that is needed for it. `attempt` counts from the schedule's start.

    `secret` is the merchant's, encrypted; `delivery` is the row as it was claimed.
    """

    delivery: Delivery
    fence: int
    attempt: int
    claimed_at: datetime
    event: Event
    secret: bytes


def claim(session: Session, delivery_id: str) -> Claim | None:
    """Claim a pending delivery that is due and not leased; None where it is not, and then the caller must die."""
    row = session.execute(
        sa.update(webhook_deliveries)
        .where(
            _of.id == delivery_id,
            _of.status == DeliveryStatus.PENDING,
            _of.next_attempt_at <= sa.func.now() + _EARLY,
            _is_unleased,
        )
        .values(fence=_of.fence + 1, lease_until=sa.func.now() + LEASE)
        .returning(webhook_deliveries, sa.func.clock_timestamp().label("claimed_at"))
    ).one_or_none()
    if row is None:
        return None
    event = events.find(session, row.event_id)
    secret = session.scalar(sa.select(merchants.c.webhook_secret).where(merchants.c.id == row.merchant_id))
    if event is None or secret is None:
        raise LookupError(f"delivery {delivery_id} has no event, or its merchant no secret")
    attempt = row.attempts - row.attempts_before_schedule + 1
    return Claim(_delivery(row), row.fence, attempt, row.claimed_at, event, secret)


def hold(session: Session, claim: Claim) -> datetime:
    """Lock the claimed row for this transaction and return the database's time. Raises LostFence."""
    query = sa.select(sa.func.clock_timestamp()).where(_of.id == claim.delivery.id, _of.fence == claim.fence)
    held_at: datetime | None = session.scalar(query.with_for_update())
    if held_at is None:
        raise LostFence(f"delivery {claim.delivery.id} was claimed again after fence {claim.fence}")
    return held_at


def record(session: Session, claim: Claim, *, attempt: Attempt, outcome: Outcome) -> None:
    """Store an attempt and what it makes of the delivery, and end the claim. The caller holds it."""
    session.execute(
        sa.insert(webhook_attempts).values(
            delivery_id=claim.delivery.id,
            number=attempt.number,
            at=attempt.at,
            status_code=attempt.status_code,
            duration_ms=attempt.duration_ms,
            error=attempt.error,
            response=attempt.response,
        )
    )
    is_delivered = outcome.status is DeliveryStatus.DELIVERED
    session.execute(
        sa.update(webhook_deliveries)
        .where(_of.id == claim.delivery.id, _of.fence == claim.fence)
        .values(
            status=outcome.status,
            attempts=attempt.number,
            next_attempt_at=outcome.next_attempt_at,
            lease_until=None,
            last_status_code=attempt.status_code,
            dead_reason=outcome.dead_reason,
            delivered_at=sa.func.clock_timestamp() if is_delivered else None,
        )
    )


def release(session: Session, claim: Claim) -> None:
    """Give a claim back without an attempt, so that the next run need not wait for the lease to end."""
    session.execute(
        sa.update(webhook_deliveries)
        .where(_of.id == claim.delivery.id, _of.fence == claim.fence)
        .values(lease_until=None)
    )


def disable(session: Session, delivery: Delivery) -> list[Delivery]:
    """End the payment's other pending deliveries to a URL that is gone. Those in an attempt will hear it themselves.

    Returns what was ended. SKIP LOCKED lets two runs that hear of it at once share the work.
    """
    others = (
        sa.select(_of.id)
        .where(
            _of.payment_id == delivery.payment_id,
            _of.url == delivery.url,
            _of.status == DeliveryStatus.PENDING,
            _of.id != delivery.id,
            _is_unleased,
        )
        .with_for_update(skip_locked=True)
    )
    ended = (
        sa.update(webhook_deliveries)
        .where(_of.id.in_(others))
        .values(status=DeliveryStatus.DEAD, dead_reason=DeadReason.ENDPOINT_DISABLED, next_attempt_at=None)
        .returning(webhook_deliveries)
    )
    return [_delivery(row) for row in session.execute(ended)]


def find(session: Session, delivery_id: str, *, merchant_id: str) -> Told | None:
    """Return a delivery of a merchant."""
    query = sa.select(webhook_deliveries).where(_of.id == delivery_id, _of.merchant_id == merchant_id)
    return next(iter(_told(session, query)), None)


def of_merchant(session: Session, merchant_id: str, *, limit: int, after: str | None = None) -> list[Told]:
    """Return a merchant's deliveries, newest first, those older than the id `after` where one is given."""
    query = sa.select(webhook_deliveries).where(_of.merchant_id == merchant_id)
    if after is not None:
        query = query.where(_of.id < after)
    return _told(session, query.order_by(_of.id.desc()).limit(limit))


def of_payment(session: Session, payment_id: str, *, limit: int, after: str | None = None) -> list[Told]:
    """Return a payment's deliveries in the order of its events, those after the id `after` where one is given.

    The event's version orders them: ids that were made in the same millisecond sort by chance.
    """
    joined = webhook_deliveries.join(events_table, events_table.c.id == _of.event_id)
    place = sa.tuple_(events_table.c.version, _of.id)
    query = sa.select(webhook_deliveries).select_from(joined).where(_of.payment_id == payment_id)
    if after is not None:
        version = session.scalar(sa.select(events_table.c.version).select_from(joined).where(_of.id == after))
        query = query.where(place > sa.tuple_(sa.literal(version), sa.literal(after)))
    return _told(session, query.order_by(events_table.c.version, _of.id).limit(limit))


def _told(session: Session, query: sa.Select[Any]) -> list[Told]:
    """Read deliveries, and with one more query the attempts of them all."""
    found = [_delivery(row) for row in session.execute(query)]
    of, history = webhook_attempts.c, defaultdict[str, list[Attempt]](list)
    tried = sa.select(webhook_attempts).where(of.delivery_id.in_([delivery.id for delivery in found]))
    for row in session.execute(tried.order_by(of.delivery_id, of.number)):
        history[row.delivery_id].append(
            Attempt(
                number=row.number,
                at=row.at,
                duration_ms=row.duration_ms,
                status_code=row.status_code,
                error=row.error,
                response=row.response,
            )
        )
    return [(delivery, history[delivery.id]) for delivery in found]


def _delivery(row: sa.Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        event_id=row.event_id,
        merchant_id=row.merchant_id,
        payment_id=row.payment_id,
        endpoint_id=row.endpoint_id,
        url=row.url,
        status=DeliveryStatus(row.status),
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        last_status_code=row.last_status_code,
        created_at=row.created_at,
    )
