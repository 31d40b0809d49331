"""A payment that is asked for: stored with its address, its event, the deliveries and the answer, in one statement.

    idempotency key free? ─> answer kept ─> payment ─> address, event ─> a delivery to each destination that wants it

One statement is one transaction and one round trip: a create costs little more than what its rows cost.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, exc
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.idempotency import lock_number
from ctrip.database.models import (
    deposit_addresses,
    events,
    idempotency_keys,
    payments,
    webhook_deliveries,
    webhook_endpoints,
)
from ctrip.database.prepared import Prepared
from ctrip.database.standings import payment_values
from ctrip.database.work import DUE_CHANNEL
from ctrip.domain.events import EventType
from ctrip.domain.idempotency import KEPT_FOR, Answer, Once
from ctrip.domain.ids import DIGITS, Prefix
from ctrip.domain.payments import Payment, payment_object
from ctrip.domain.webhook_endpoints import EndpointStatus, filters_of
from ctrip.domain.webhooks import DeliveryStatus, origin
from ctrip.errors import IdempotencyInFlight, IndexTaken

_PAYMENT = tuple(column.name for column in payments.c)
NewId = Callable[[Prefix], str]
_TWICE = "23505"
"""The SQLSTATE of what may be there once."""


@dataclass(frozen=True)
class Kept:
    """An answer that is kept for whoever sends the request again."""

    once: Once
    answer: Answer
    at: datetime


def add(
    session: Connection,
    payment: Payment,
    *,
    wallet_fingerprint: bytes,
    index: int,
    new_id: NewId,
    kept: Kept | None = None,
) -> bool:
    """Store a new payment. Returns False, and stores nothing, where its idempotency key has an answer already.

    Raises IdempotencyInFlight while another request with this key is being stored, and IndexTaken where another payment
    has the address.
    """
    values = values_of(payment, wallet_fingerprint=wallet_fingerprint, index=index, new_id=new_id, kept=kept)
    try:
        rows = (_ADD if kept is None else ADD_ONCE).rows(session, values)
    except exc.IntegrityError as error:
        if not _is_of_an_address(error):
            raise
        raise IndexTaken(f"another payment has the address of index {index}") from error
    if kept is None:
        return True
    ((made, is_free, *_),) = rows
    if not is_free:
        raise IdempotencyInFlight("the first request with this Idempotency-Key is still running")
    return made is not None


def values_of(
    payment: Payment, *, wallet_fingerprint: bytes, index: int, new_id: NewId, kept: Kept | None
) -> dict[str, Any]:
    """Return what the statement is given: `ADD_ONCE`, or without `kept` the one that knows no key."""
    values = payment_values(payment)
    values["waits_for"] = None if payment.price is None or payment.asked else payment.price.accepted[0].chain_id
    body = {"payment": payment_object(payment, read_block=0), "previous_status": None}
    values |= {
        "wallet_fingerprint": wallet_fingerprint,
        "derivation_index": index,
        "event_id": new_id(Prefix.EVENT),
        "body": json.dumps(body),
        "delivery_id": new_id(Prefix.DELIVERY),
        "origin": None if payment.webhook_url is None else origin(payment.webhook_url),
    }
    if kept is not None:
        values |= {
            "lock_number": lock_number(payment.merchant_id, kept.once),
            "route": kept.once.route,
            "key": kept.once.key,
            "request_hash": kept.once.body_hash,
            "answer_status": kept.answer.status,
            "response": kept.answer.body,
            "answered_at": kept.at,
            "out_of_date": kept.at - KEPT_FOR,
        }
    return values


def _is_of_an_address(error: exc.IntegrityError) -> bool:
    told = getattr(error.orig, "diag", None)
    return getattr(error.orig, "pgcode", None) == _TWICE and "address" in (getattr(told, "constraint_name", None) or "")


def _add(*, is_once: bool) -> sa.Select[Any]:
    free, claimed = _claimed()
    given = sa.select(*(_given(payments, name) for name in _PAYMENT))
    if is_once:
        given = given.where(sa.exists(sa.select(claimed.c.key)))
    made = sa.insert(payments).from_select(_PAYMENT, given).returning(payments.c.id).cte("made")
    issued = {name: _given(deposit_addresses, name) for name in ("address", "wallet_fingerprint", "derivation_index")}
    address = sa.insert(deposit_addresses).from_select(
        [*issued, "payment_id"], sa.select(*issued.values(), made.c.id).select_from(made)
    )
    told = {
        "id": _given(events, "id", "event_id"),
        "merchant_id": _given(payments, "merchant_id"),
        "payment_id": made.c.id,
        "version": _given(payments, "version"),
        "type": sa.literal(EventType.PAYMENT_CREATED),
        "body": _given(events, "body", kind=sa.Text),
    }
    event = sa.insert(events).from_select([*told], sa.select(*told.values()).select_from(made))
    owed = _owed(made)
    results: list[sa.ColumnElement[Any]] = [sa.select(made.c.id).scalar_subquery().label("made")]
    if is_once:
        results.append(sa.select(free.c.is_free).scalar_subquery().label("is_free"))
    rung = sa.select(sa.func.count(sa.func.pg_notify(DUE_CHANNEL, ""))).select_from(owed)
    results.append(rung.scalar_subquery().label("rung"))
    return sa.select(*results).add_cte(address.cte("address"), event.cte("event"))


def _claimed() -> tuple[sa.CTE, sa.CTE]:
    """Return whether nobody else holds the key just now, and the key where it was free, or out of date."""
    of = idempotency_keys
    lock = sa.func.pg_try_advisory_xact_lock(sa.cast(sa.bindparam("lock_number"), sa.BigInteger))
    free = sa.select(lock.label("is_free")).cte("free")
    values = {
        "merchant_id": _given(payments, "merchant_id"),
        "route": _given(of, "route"),
        "key": _given(of, "key"),
        "request_hash": _given(of, "request_hash"),
        "status": _given(of, "status", "answer_status"),
        "response": _given(of, "response"),
        "created_at": _given(of, "created_at", "answered_at"),
    }
    insert = pg.insert(of).from_select([*values], sa.select(*values.values()).select_from(free).where(free.c.is_free))
    renewed = {name: insert.excluded[name] for name in ("request_hash", "status", "response", "created_at")}
    is_old = of.c.created_at <= _given(of, "created_at", "out_of_date")
    index = ["merchant_id", "route", "key"]
    claimed = insert.on_conflict_do_update(index_elements=index, set_=renewed, where=is_old).returning(of.c.key)
    return free, claimed.cte("claimed")


def _owed(made: sa.CTE) -> sa.CTE:
    """Store a delivery to each destination that wants to hear of it, due at once: see `webhooks.owe`."""
    of = webhook_endpoints.c
    own = sa.select(
        sa.null().cast(sa.Text).label("endpoint_id"),
        _given(payments, "webhook_url").label("url"),
        _given(webhook_deliveries, "origin").label("origin"),
    ).where(_given(payments, "webhook_url").is_not(None))
    wanted = list(filters_of(EventType.PAYMENT_CREATED))
    is_theirs = sa.and_(of.merchant_id == _given(payments, "merchant_id"), of.deleted_at.is_(None))
    theirs = sa.select(of.id, of.url, of.origin).where(
        is_theirs, of.status == EndpointStatus.ENABLED, of.events.overlap(wanted)
    )
    to = own.union_all(theirs).subquery("to")
    number = sa.func.row_number().over(order_by=to.c.endpoint_id.nulls_first()).label("number")
    numbered = sa.select(to, number).subquery("numbered")
    values = {
        "id": _numbered_id(numbered.c.number),
        "event_id": _given(events, "id", "event_id"),
        "merchant_id": _given(payments, "merchant_id"),
        "payment_id": made.c.id,
        "endpoint_id": numbered.c.endpoint_id,
        "url": numbered.c.url,
        "origin": numbered.c.origin,
        "status": sa.literal(DeliveryStatus.PENDING),
        "next_attempt_at": sa.func.now(),
    }
    owed = sa.select(*values.values()).select_from(made.join(numbered, sa.true()))
    return sa.insert(webhook_deliveries).from_select([*values], owed).returning(webhook_deliveries.c.id).cte("owed")


def _numbered_id(number: sa.ColumnElement[int]) -> sa.ColumnElement[str]:
    """Return the given id, its last digit moved on by a number: how many are needed, Postgres alone knows."""
    given = _given(webhook_deliveries, "id", "delivery_id")
    digit = (sa.func.strpos(DIGITS, sa.func.right(given, 1)) - 1 + sa.cast(number, sa.Integer)) % len(DIGITS)
    return sa.func.concat(sa.func.left(given, -1), sa.func.substr(DIGITS, digit + 1, 1))


def _given(table: sa.Table, name: str, key: str | None = None, *, kind: Any = None) -> sa.ColumnElement[Any]:
    """Return a value of a column's type that is given at each run, under its name or another one."""
    of = table.c[name].type
    return sa.cast(sa.bindparam(key or name, type_=kind or of), of)


_ADD, ADD_ONCE = Prepared(_add(is_once=False)), Prepared(_add(is_once=True))
