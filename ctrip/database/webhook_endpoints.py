"""Webhook endpoints. A row is never taken away, because its deliveries speak of it; deleted ones are found no more."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.models import merchants, webhook_endpoints
from ctrip.domain.webhook_endpoints import DisabledReason, Endpoint, EndpointStatus
from ctrip.domain.webhooks import origin

_of = webhook_endpoints.c
_ADDING = 0x63_54_72_69_70_77_68_65
"""What tells the advisory lock of a merchant's endpoints from others: the letters cTripwhe. The merchant's row would be
a lock, too, but of rows that one may not change Postgres lets none be taken."""


def add(
    session: Connection, endpoint_id: str, *, merchant_id: str, url: str, events: tuple[str, ...], secret: bytes
) -> Endpoint:
    """Store an enabled endpoint. `secret` is encrypted."""
    values = {
        "id": endpoint_id,
        "merchant_id": merchant_id,
        "url": url,
        "origin": origin(url),
        "events": list(events),
        "status": EndpointStatus.ENABLED,
        "secret": secret,
    }
    row = session.execute(sa.insert(webhook_endpoints).values(values).returning(webhook_endpoints)).one()
    return read(row._mapping)


def count(session: Connection, merchant_id: str) -> int:
    """Count a merchant's endpoints. No other is added to them before this transaction ends."""
    session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(merchant_id, _ADDING))))
    query = sa.select(sa.func.count()).select_from(webhook_endpoints)
    return session.scalar(query.where(*_of_merchant(merchant_id))) or 0


def find(session: Connection, endpoint_id: str, *, merchant_id: str) -> Endpoint | None:
    """Return an endpoint of a merchant."""
    query = sa.select(webhook_endpoints).where(_of.id == endpoint_id, *_of_merchant(merchant_id))
    row = session.execute(query).one_or_none()
    return None if row is None else read(row._mapping)


def is_of_merchant(session: Connection, endpoint_id: str, *, merchant_id: str) -> bool:
    """Say whether a merchant has this endpoint, or had it: deleted ones count."""
    query = sa.exists().where(_of.id == endpoint_id, _of.merchant_id == merchant_id)
    return bool(session.scalar(sa.select(query)))


def of_merchant(session: Connection, merchant_id: str, *, limit: int, after: str | None = None) -> list[Endpoint]:
    """Return a merchant's endpoints, newest first, those older than the id `after` where one is given."""
    query = sa.select(webhook_endpoints).where(*_of_merchant(merchant_id))
    if after is not None:
        query = query.where(_of.id < after)
    return [read(row._mapping) for row in session.execute(query.order_by(_of.id.desc()).limit(limit))]


def change(session: Connection, endpoint_id: str, *, merchant_id: str, values: Mapping[str, Any]) -> Endpoint | None:
    """Change an endpoint of a merchant and return it as it is then; None where there is none.

    What is known of its failures is forgotten where it gets another URL.
    """
    if "url" in values:
        values = {"failing_since": sa.case((_of.url == values["url"], _of.failing_since))} | dict(values)
    statement = sa.update(webhook_endpoints).where(_of.id == endpoint_id, *_of_merchant(merchant_id))
    row = session.execute(statement.values(**values).returning(webhook_endpoints)).one_or_none()
    return None if row is None else read(row._mapping)


def rotate(
    session: Connection, endpoint_id: str, *, merchant_id: str, secret: bytes, former_signs: timedelta
) -> Endpoint | None:
    """Replace an endpoint's secret, which signs on beside the new one for `former_signs`; the one before it ends."""
    values = {"secret": secret, "former_secret": _of.secret, "former_until": sa.func.now() + former_signs}
    return change(session, endpoint_id, merchant_id=merchant_id, values=values)


def delete(session: Connection, endpoint_id: str, *, merchant_id: str) -> Endpoint | None:
    """Mark an endpoint as deleted, and disable it. Returns it; None where there is none."""
    values = {
        "deleted_at": sa.func.now(),
        "status": EndpointStatus.DISABLED,
        "disabled_reason": sa.func.coalesce(_of.disabled_reason, DisabledReason.MERCHANT),
    }
    return change(session, endpoint_id, merchant_id=merchant_id, values=values)


def lock(session: Connection, endpoint_id: str) -> Endpoint:
    """Return an endpoint, a deleted one too, that nobody else changes before this transaction ends."""
    query = sa.select(webhook_endpoints).where(_of.id == endpoint_id).with_for_update(key_share=True)
    return read(session.execute(query).one()._mapping)


def note_success(session: Connection, endpoint_id: str, *, url: str) -> None:
    """Write down that not all attempts at its URL fail; one at a URL that it had before says nothing of this one."""
    session.execute(
        sa.update(webhook_endpoints)
        .where(_of.id == endpoint_id, _of.url == url, _of.failing_since.is_not(None))
        .values(failing_since=None)
    )


def note_failure(
    session: Connection, endpoint: Endpoint, *, since: datetime, reason: DisabledReason | None
) -> Endpoint:
    """Write down since when a locked endpoint fails, and disable it where there is a `reason`; return it so."""
    values: dict[str, Any] = {"failing_since": since}
    if reason is not None:
        values |= {"status": EndpointStatus.DISABLED, "disabled_reason": reason}
    statement = sa.update(webhook_endpoints).where(_of.id == endpoint.id).values(**values)
    return read(session.execute(statement.returning(webhook_endpoints)).one()._mapping)


def owner_email(session: Connection, endpoint: Endpoint) -> str | None:
    """Return where the merchant of an endpoint wants to be written to."""
    email: str | None = session.scalar(sa.select(merchants.c.email).where(merchants.c.id == endpoint.merchant_id))
    return email


def read(row: Mapping[Any, Any]) -> Endpoint:
    """Make an endpoint of its row."""
    reason = row["disabled_reason"]
    return Endpoint(
        id=row["id"],
        merchant_id=row["merchant_id"],
        url=row["url"],
        events=tuple(row["events"]),
        status=EndpointStatus(row["status"]),
        disabled_reason=None if reason is None else DisabledReason(reason),
        failing_since=row["failing_since"],
        created_at=row["created_at"],
        deleted_at=row["deleted_at"],
    )


def _of_merchant(merchant_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _of.merchant_id == merchant_id, _of.deleted_at.is_(None)
