"""Deliveries: to which destinations an event is owed, and what became of each.

An event is owed to its payment's `webhook_url`, unless that has said that it is gone, and to every enabled endpoint of
its merchant that wants events of its type: one delivery each, even where two of them have the same URL, because each
signs with a secret of its own.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database import pages, work
from ctrip.database import webhook_endpoints as endpoint_rows
from ctrip.database.batches import Given, array, is_in
from ctrip.database.models import events, payments, webhook_attempts, webhook_deliveries, webhook_endpoints
from ctrip.database.prepared import Prepared
from ctrip.domain.events import EventType
from ctrip.domain.ids import Prefix
from ctrip.domain.webhook_endpoints import Endpoint, EndpointStatus, filters_of
from ctrip.domain.webhooks import GONE, Attempt, Delivery, DeliveryStatus, origin

NewId = Callable[[Prefix], str]
Told = tuple[Delivery, list[Attempt]]
"""A delivery and its attempts, oldest first."""

_of = webhook_deliveries.c
_OWED = ("id", "event_id", "merchant_id", "payment_id", "endpoint_id", "payload", "url", "origin")
_owed = Given("owed", *(_of[name] for name in _OWED))
_OWE = Prepared(
    sa.insert(webhook_deliveries).from_select(
        [*_OWED, "status", "next_attempt_at"], sa.select(*_owed.c, sa.literal(DeliveryStatus.PENDING), sa.func.now())
    )
)
_MERCHANT_IDS = sa.bindparam("merchant_ids", type_=sa.Text)
_PAYMENT_IDS = sa.bindparam("payment_ids", type_=sa.Text)


def _endpoints_of() -> sa.Select[Any]:
    of = webhook_endpoints.c
    is_enabled = sa.and_(of.deleted_at.is_(None), of.status == EndpointStatus.ENABLED)
    query = sa.select(of.merchant_id, of.url, of.origin, of.id, of.events)
    return query.where(is_in(of.merchant_id, _MERCHANT_IDS), is_enabled).order_by(of.id)


def _gone_of() -> sa.Select[Any]:
    at, status_code = webhook_attempts.c.at, webhook_attempts.c.status_code
    last = sa.func.array_agg(pg.aggregate_order_by(status_code, at.desc().nulls_last()), type_=pg.ARRAY(sa.Integer))
    is_pending = sa.func.bool_or(_of.status == DeliveryStatus.PENDING)
    return (
        sa.select(_of.payment_id, _of.url)
        .outerjoin(webhook_attempts, webhook_attempts.c.delivery_id == _of.id)
        .where(is_in(_of.payment_id, _PAYMENT_IDS), _of.endpoint_id.is_(None))
        .group_by(_of.payment_id, _of.url)
        .having(last[1] == GONE, ~is_pending)
    )


_ENDPOINTS, _GONE = Prepared(_endpoints_of()), Prepared(_gone_of())


@dataclass(frozen=True)
class Owed:
    """An event whose deliveries are to be stored; `webhook_url` is that of its payment."""

    event_id: str
    event_type: EventType
    merchant_id: str
    payment_id: str | None
    webhook_url: str | None


@dataclass(frozen=True)
class _Destination:
    """Where something is to go: an endpoint, or a URL without one."""

    url: str
    origin: str
    endpoint_id: str | None = None


@dataclass(frozen=True)
class _Subscriber:
    """An endpoint, and the filters of events that it wants to hear of."""

    destination: _Destination
    wants: frozenset[str]


# --- owed -----------------------------------------------------------------------------------------------------------


def owe(session: Connection, events_owed: Sequence[Owed], *, new_id: NewId) -> list[str]:
    """Store a delivery of each event to every destination that it is owed to now, due at once. Returns their ids."""
    gone = _gone(session, [each.payment_id for each in events_owed if each.payment_id and each.webhook_url is not None])
    endpoints = _endpoints(session, {each.merchant_id for each in events_owed})
    wanted = {event_type: frozenset(filters_of(event_type)) for event_type in {each.event_type for each in events_owed}}
    owed: list[dict[str, object]] = []
    for each in events_owed:
        destinations: list[_Destination] = []
        if each.webhook_url is not None and each.payment_id and (each.payment_id, each.webhook_url) not in gone:
            destinations.append(_Destination(each.webhook_url, origin(each.webhook_url)))
        destinations += [
            endpoint.destination
            for endpoint in endpoints[each.merchant_id]
            if not wanted[each.event_type].isdisjoint(endpoint.wants)
        ]
        owed += [
            {
                "id": new_id(Prefix.DELIVERY),
                "event_id": each.event_id,
                "merchant_id": each.merchant_id,
                "payment_id": each.payment_id,
                "endpoint_id": destination.endpoint_id,
                "url": destination.url,
                "origin": destination.origin,
            }
            for destination in destinations
        ]
    return _add(session, owed)


def owe_again(session: Connection, *, event_id: str, new_id: NewId) -> list[str]:
    """Store fresh deliveries of a stored event, beside those that it has, to every destination that it is owed to now.

    Returns their ids; none for an event that there is not.
    """
    query = (
        sa.select(events.c.type, events.c.merchant_id, events.c.payment_id, payments.c.webhook_url)
        .outerjoin(payments, payments.c.id == events.c.payment_id)
        .where(events.c.id == event_id)
    )
    event = session.execute(query).one_or_none()
    if event is None:
        return []
    owed = Owed(event_id, EventType(event.type), event.merchant_id, event.payment_id, event.webhook_url)
    return owe(session, [owed], new_id=new_id)


def owe_test(session: Connection, *, event_id: str, endpoint: Endpoint, new_id: NewId) -> str:
    """Store a delivery of an event to one endpoint, whatever it subscribed to, due at once. Returns its id."""
    delivery_id = new_id(Prefix.DELIVERY)
    values: dict[str, object] = {
        "id": delivery_id,
        "event_id": event_id,
        "merchant_id": endpoint.merchant_id,
        "endpoint_id": endpoint.id,
    }
    _add(session, [values | {"url": endpoint.url, "origin": origin(endpoint.url)}])
    return delivery_id


def owe_custom(session: Connection, *, url: str, payload: str, merchant_id: str | None, new_id: NewId) -> str:
    """Store a delivery of these bytes to a URL that was checked, due at once; signed where a merchant is named."""
    delivery_id = new_id(Prefix.DELIVERY)
    values: dict[str, object] = {
        "id": delivery_id,
        "payload": payload,
        "merchant_id": merchant_id,
        "url": url,
        "origin": origin(url),
    }
    _add(session, [values])
    return delivery_id


# --- told -----------------------------------------------------------------------------------------------------------


def find(session: Connection, delivery_id: str, *, merchant_id: str) -> Told | None:
    """Return a delivery of a merchant."""
    query = sa.select(webhook_deliveries).where(_of.id == delivery_id, _of.merchant_id == merchant_id)
    return next(iter(_told(session, query)), None)


def of_ids(session: Connection, delivery_ids: Collection[str]) -> list[Told]:
    """Return deliveries by their ids, oldest first; unknown ids are left out."""
    return _told(session, sa.select(webhook_deliveries).where(_of.id.in_(delivery_ids)).order_by(_of.id))


def of_merchant(
    session: Connection,
    merchant_id: str,
    *,
    limit: int,
    after: str | None = None,
    endpoint_id: str | None = None,
    event_id: str | None = None,
    statuses: Collection[DeliveryStatus] = (),
) -> list[Told]:
    """Return a merchant's deliveries, newest first, those after the delivery `after` and of the filters given."""
    if endpoint_id is None:
        wanted = [_of.merchant_id == merchant_id]
    elif endpoint_rows.is_of_merchant(session, endpoint_id, merchant_id=merchant_id):
        wanted = [_of.endpoint_id == endpoint_id]
    else:
        return []
    if after is not None:
        wanted.append(pages.after(session, webhook_deliveries, after))
    if event_id is not None:
        wanted.append(_of.event_id == event_id)
    # An index is in the list's order for one status.
    lists = [[*wanted, _of.status == status] for status in statuses or DeliveryStatus]
    return _told(session, pages.newest(webhook_deliveries, lists, limit=limit))


def of_payment(session: Connection, payment_id: str, *, limit: int, after: str | None = None) -> list[Told]:
    """Return a payment's deliveries in the order of its events, those after the id `after` where one is given.

    The event's version orders them: ids that were made in the same millisecond sort by chance.
    """
    joined = webhook_deliveries.join(events, events.c.id == _of.event_id)
    place = sa.tuple_(events.c.version, _of.id)
    query = sa.select(webhook_deliveries).select_from(joined).where(_of.payment_id == payment_id)
    if after is not None:
        version = session.scalar(sa.select(events.c.version).select_from(joined).where(_of.id == after))
        query = query.where(place > sa.tuple_(sa.literal(version), sa.literal(after)))
    return _told(session, query.order_by(events.c.version, _of.id).limit(limit))


def read(row: sa.Row[Any]) -> Delivery:
    """Make a delivery of its row."""
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
        payload=row.payload,
    )


def _endpoints(session: Connection, merchant_ids: Collection[str]) -> dict[str, list[_Subscriber]]:
    """Return the enabled endpoints of merchants, with what each wants to hear."""
    found = defaultdict[str, list[_Subscriber]](list)
    for row in _ENDPOINTS.execute(session, {"merchant_ids": array(merchant_ids)}):
        found[row.merchant_id].append(_Subscriber(_Destination(row.url, row.origin, row.id), frozenset(row.events)))
    return found


def _gone(session: Connection, payment_ids: Sequence[str]) -> set[tuple[str, str]]:
    """Return which payments' own URLs have answered 410 last, and nobody has asked for another try since."""
    if not payment_ids:
        return set()
    return set(_GONE.rows(session, {"payment_ids": array(payment_ids)}))


def _add(session: Connection, owed: Sequence[Mapping[str, object]]) -> list[str]:
    if owed:
        _OWE.run(session, _owed.rows([list(map(each.get, _OWED)) for each in owed]))
        work.ring(session)
    return [str(each["id"]) for each in owed]


def _told(session: Connection, query: sa.Select[Any]) -> list[Told]:
    """Read deliveries, and with one more query the attempts of them all."""
    found = [read(row) for row in session.execute(query)]
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
