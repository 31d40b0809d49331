"""Schedules of deliveries that somebody ends or begins anew from outside: a closed endpoint, a merchant who asks."""

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import webhooks, work
from ctrip.database.batches import batch
from ctrip.database.models import webhook_deliveries, webhook_endpoints
from ctrip.database.webhook_origins import is_idle
from ctrip.domain.webhook_endpoints import EndpointStatus
from ctrip.domain.webhooks import DeadReason, Delivery, DeliveryStatus

_of = webhook_deliveries.c
_is_idle = (_of.status == DeliveryStatus.PENDING, is_idle)
_taken_over = {"lease_until": None, "fence": _of.fence + 1}
"""A place that one was handed is given up, and an attempt that outslept its lease records nothing any more."""


def end_pending(session: Connection, endpoint_id: str, *, limit: int) -> list[Delivery]:
    """End up to `limit` pending deliveries to an endpoint that is closed, and return them; none: all are ended.

    Those in an attempt are left to it: should it fail, whoever claims them next ends them.
    """
    return _end(session, _of.endpoint_id == endpoint_id, limit=limit)


def end_pending_of_payment(session: Connection, payment_id: str, url: str, *, limit: int) -> list[Delivery]:
    """End up to `limit` pending deliveries of a payment to its own URL, which is gone, and return them."""
    own = sa.and_(_of.payment_id == payment_id, _of.url == url, _of.endpoint_id.is_(None))
    return _end(session, own, limit=limit)


def follow(session: Connection, endpoint_id: str, *, limit: int) -> int:
    """Send up to `limit` pending deliveries to the URL that their endpoint has by now, and ring. Returns how many.

    Those in an attempt are left to it: should it fail, whoever claims them next moves them.
    """
    of = webhook_endpoints.c
    query = (
        sa.select(_of.id, of.url, of.origin)
        .join_from(webhook_deliveries, webhook_endpoints)
        .where(_of.endpoint_id == endpoint_id, _of.url != of.url, *_is_idle)
    )
    left = batch(query, of=webhook_deliveries, limit=limit)
    moved = session.execute(
        sa.update(webhook_deliveries)
        .where(_of.id == left.c.id)
        .values(url=left.c.url, origin=left.c.origin, kicked_at=None, **_taken_over)
        .returning(_of.id)
    ).all()
    work.ring(session)
    return len(moved)


def clock(session: Connection) -> datetime:
    """Return the database's time."""
    now: datetime = session.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return now


def hasten(session: Connection, delivery_id: str) -> None:
    """Let the next attempt at a pending delivery be due now, and ring. One that is in an attempt stays as it is."""
    session.execute(
        sa.update(webhook_deliveries)
        .where(_of.id == delivery_id, *_is_idle)
        .values(next_attempt_at=sa.func.least(_of.next_attempt_at, sa.func.now()), kicked_at=None, **_taken_over)
    )
    work.ring(session)


def begin_anew(session: Connection, delivery_ids: Collection[str]) -> int:
    """Make deliveries that are over due now, delivered ones too, each with a fresh schedule, and ring.

    Returns how many; those that are pending are left alone.
    """
    begun = session.execute(
        sa.update(webhook_deliveries)
        .where(_of.id.in_(delivery_ids), _of.status != DeliveryStatus.PENDING)
        .values(
            status=DeliveryStatus.PENDING,
            next_attempt_at=sa.func.now(),
            kicked_at=None,
            dead_reason=None,
            delivered_at=None,
            attempts_before_schedule=_of.attempts,
            **_taken_over,
        )
        .returning(_of.id)
    ).all()
    work.ring(session)
    return len(begun)


def count_dead(session: Connection, merchant_id: str, *, since: datetime, endpoint_id: str | None) -> int:
    """Count what `dead` would return without a limit."""
    query = sa.select(sa.func.count()).select_from(webhook_deliveries.outerjoin(webhook_endpoints))
    return session.scalar(query.where(*_is_lost(merchant_id, since, endpoint_id))) or 0


def dead(session: Connection, merchant_id: str, *, since: datetime, endpoint_id: str | None, limit: int) -> list[str]:
    """Return the ids of a merchant's deliveries that were owed since then and are dead, the oldest first.

    One endpoint's where one is given. Those of endpoints that are closed are left out: nothing is sent there.
    """
    query = sa.select(_of.id).select_from(webhook_deliveries.outerjoin(webhook_endpoints))
    query = query.where(*_is_lost(merchant_id, since, endpoint_id)).order_by(_of.id).limit(limit)
    return list(session.scalars(query))


def _end(session: Connection, whose: sa.ColumnElement[bool], *, limit: int) -> list[Delivery]:
    idle = batch(sa.select(_of.id).where(whose, *_is_idle), of=webhook_deliveries, limit=limit)
    ended = (
        sa.update(webhook_deliveries)
        .where(_of.id.in_(sa.select(idle.c.id)))
        .values(
            status=DeliveryStatus.DEAD, dead_reason=DeadReason.ENDPOINT_DISABLED, next_attempt_at=None, **_taken_over
        )
        .returning(webhook_deliveries)
    )
    return [webhooks.read(row) for row in session.execute(ended)]


def _is_lost(merchant_id: str, since: datetime, endpoint_id: str | None) -> list[sa.ColumnElement[bool]]:
    of = webhook_endpoints.c
    is_open = sa.and_(of.status == EndpointStatus.ENABLED, of.deleted_at.is_(None))
    conditions = [
        _of.merchant_id == merchant_id,
        _of.created_at >= since,
        _of.status.in_((DeliveryStatus.DEAD, DeliveryStatus.FAILED)),
        sa.or_(_of.endpoint_id.is_(None), is_open),
    ]
    return conditions if endpoint_id is None else [*conditions, _of.endpoint_id == endpoint_id]
