"""Events and the deliveries that they owe, stored together with the change that they tell of."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import distinct_on

from ctrip.database import emails, pages, webhooks
from ctrip.database.batches import Given
from ctrip.database.models import events
from ctrip.database.prepared import Prepared
from ctrip.database.webhooks import Owed
from ctrip.domain.emails import TOLD
from ctrip.domain.events import Event, EventType
from ctrip.domain.ids import Prefix
from ctrip.domain.payments import Payment

_TOLD = ("id", "merchant_id", "payment_id", "version", "type", "body")
_told = Given("told", *(events.c[name] for name in _TOLD))
_TELL = Prepared(sa.insert(events).from_select(_TOLD, sa.select(*_told.c)))


@dataclass(frozen=True)
class News:
    """What is to be told of a payment that a change made what it is. `body` is what a client gets."""

    event_type: EventType
    payment: Payment
    body: dict[str, object]


def append(session: Connection, news: Sequence[News], *, new_id: Callable[[Prefix], str]) -> list[str]:
    """Store events, with a delivery of each to every destination that it is owed to.

    Returns the ids of the deliveries, all due now. The caller's transaction decides whether any of it happened.
    """
    owed = [
        Owed(
            event_id=new_id(Prefix.EVENT),
            event_type=each.event_type,
            merchant_id=each.payment.merchant_id,
            payment_id=each.payment.id,
            webhook_url=each.payment.webhook_url,
        )
        for each in news
    ]
    rows = [
        (
            each.event_id,
            each.merchant_id,
            each.payment_id,
            told.payment.version,
            each.event_type,
            json.dumps(told.body),
        )
        for each, told in zip(owed, news, strict=True)
    ]
    if rows:
        _TELL.run(session, _told.rows(rows))
    emails.owe_confirmed(session, [each.payment for each in news if each.event_type in TOLD], new_id=new_id)
    return webhooks.owe(session, owed, new_id=new_id)


def append_test(session: Connection, merchant_id: str, *, new_id: Callable[[Prefix], str]) -> str:
    """Store an event that tells of nothing, owed to nobody yet. Returns its id."""
    event_id = new_id(Prefix.EVENT)
    values = {"id": event_id, "merchant_id": merchant_id, "type": EventType.WEBHOOK_TEST, "body": {}}
    session.execute(sa.insert(events), values)
    return event_id


def of_payment(session: Connection, payment_id: str, *, limit: int, after: str | None = None) -> list[Event]:
    """Return a payment's events, oldest first, those after the id `after` where one is given.

    The version orders them: ids that were made in the same millisecond sort by chance.
    """
    query = sa.select(events).where(events.c.payment_id == payment_id)
    if after is not None:
        passed = sa.select(events.c.version).where(events.c.id == after).correlate(None)
        query = query.where(events.c.version > passed.scalar_subquery())
    return [_event(row) for row in session.execute(query.order_by(events.c.version).limit(limit))]


def newest_of_each_type(session: Connection, payment_id: str) -> dict[str, str]:
    """Return the id of a payment's newest event of each type that it has."""
    of = events.c
    query = sa.select(of.type, of.id).where(of.payment_id == payment_id).ext(distinct_on(of.type))
    return {row.type: row.id for row in session.execute(query.order_by(of.type, of.version.desc()))}


def of_merchant(session: Connection, merchant_id: str, *, limit: int, after: str | None = None) -> list[Event]:
    """Return a merchant's events, newest first, those after the event `after` where one is given."""
    wanted = [events.c.merchant_id == merchant_id]
    if after is not None:
        wanted.append(pages.after(session, events, after))
    return [_event(row) for row in session.execute(pages.newest(events, [wanted], limit=limit))]


def find(session: Connection, event_id: str) -> Event | None:
    """Return one event."""
    row = session.execute(sa.select(events).where(events.c.id == event_id)).one_or_none()
    return None if row is None else _event(row)


def _event(row: sa.Row[Any]) -> Event:
    return Event(
        id=row.id,
        merchant_id=row.merchant_id,
        payment_id=row.payment_id,
        version=row.version,
        type=EventType(row.type),
        body=row.body,
        created_at=row.created_at,
    )
