"""Webhook endpoints as their merchant meets them: made, listed, changed, tested, given a new secret, deleted."""

import secrets
from typing import Any

from ctrip.context import Context
from ctrip.database import events, webhook_endpoints, webhook_schedules, webhooks
from ctrip.domain.ids import Prefix
from ctrip.domain.merchants import SECRET_BYTES, write_webhook_secret
from ctrip.domain.pages import list_object
from ctrip.domain.webhook_endpoints import (
    FORMER_SECRET_SIGNS,
    MOST,
    DisabledReason,
    Endpoint,
    EndpointStatus,
    check_events,
    endpoint_object,
)
from ctrip.domain.webhooks import delivery_object, origin
from ctrip.errors import Conflict, MisconfiguredError, NotFound
from ctrip.log import get_logger

BATCH = 500
BATCHES = 40
"""How much of what is on its way one request ends where the endpoint is closed, and moves where it has a new URL; the
workers do so with the rest before they send it."""

log = get_logger()


def create(ctx: Context, merchant_id: str, *, url: str, wanted: list[str]) -> dict[str, object]:
    """Make an endpoint and return it with its secret, which is shown this once and stored encrypted.

    Raises InvalidValue, DestinationRefused, and Conflict where there are too many.
    """
    names = check_events(wanted)
    _check_destination(ctx, url)
    secret, sealed = _new_secret(ctx)
    with ctx.sessions.begin() as session:
        if webhook_endpoints.count(session, merchant_id) >= MOST:
            raise Conflict(f"a merchant has at most {MOST} webhook endpoints; delete one first")
        endpoint = webhook_endpoints.add(
            session, ctx.new_id(Prefix.ENDPOINT), merchant_id=merchant_id, url=url, events=names, secret=sealed
        )
    log.info("webhook_endpoint_created", endpoint_id=endpoint.id, merchant_id=merchant_id)
    return endpoint_object(endpoint, secret=secret)


def of_merchant(ctx: Context, merchant_id: str, *, limit: int, after: str | None = None) -> dict[str, object]:
    """Return a page of a merchant's endpoints, newest first."""
    with ctx.sessions.begin() as session:
        found = webhook_endpoints.of_merchant(session, merchant_id, limit=limit + 1, after=after)
    return list_object([endpoint_object(endpoint) for endpoint in found], limit=limit)


def find(ctx: Context, merchant_id: str, endpoint_id: str) -> dict[str, object]:
    """Return an endpoint of a merchant. Raises NotFound."""
    with ctx.sessions.begin() as session:
        endpoint = webhook_endpoints.find(session, endpoint_id, merchant_id=merchant_id)
    if endpoint is None:
        raise _unknown(endpoint_id)
    return endpoint_object(endpoint)


def change(
    ctx: Context,
    merchant_id: str,
    endpoint_id: str,
    *,
    url: str | None = None,
    wanted: list[str] | None = None,
    status: EndpointStatus | None = None,
) -> dict[str, object]:
    """Change what is named of an endpoint and return it. Raises InvalidValue, DestinationRefused, NotFound.

    What is on its way follows to a new URL, which has not failed yet. To disable it ends what is on its way; to enable
    it forgets why it was disabled and since when it failed.
    """
    values: dict[str, Any] = {}
    if url is not None:
        _check_destination(ctx, url)
        values |= {"url": url, "origin": origin(url)}
    if wanted is not None:
        values["events"] = list(check_events(wanted))
    if status is EndpointStatus.ENABLED:
        values |= {"status": status, "disabled_reason": None, "failing_since": None}
    with ctx.sessions.begin() as session:
        endpoint = webhook_endpoints.find(session, endpoint_id, merchant_id=merchant_id)
        if endpoint is None:
            raise _unknown(endpoint_id)
        if status is EndpointStatus.DISABLED and endpoint.status is EndpointStatus.ENABLED:
            values |= {"status": status, "disabled_reason": DisabledReason.MERCHANT}
        if values:
            endpoint = webhook_endpoints.change(session, endpoint_id, merchant_id=merchant_id, values=values)
        if endpoint is None:
            raise _unknown(endpoint_id)
    if url is not None or status is not None:
        _settle_pending(ctx, endpoint)
    log.info("webhook_endpoint_changed", endpoint_id=endpoint_id, changed=sorted(values))
    return endpoint_object(endpoint)


def delete(ctx: Context, merchant_id: str, endpoint_id: str) -> dict[str, object]:
    """Delete an endpoint, end what is on its way there, and return it as it was last. Raises NotFound.

    Those deliveries are dead and leave no dead letters: their merchant wanted it so, and nobody could send them again.
    """
    with ctx.sessions.begin() as session:
        endpoint = webhook_endpoints.delete(session, endpoint_id, merchant_id=merchant_id)
    if endpoint is None:
        raise _unknown(endpoint_id)
    _settle_pending(ctx, endpoint)
    log.info("webhook_endpoint_deleted", endpoint_id=endpoint_id)
    return endpoint_object(endpoint)


def rotate_secret(ctx: Context, merchant_id: str, endpoint_id: str) -> dict[str, object]:
    """Give an endpoint a new secret, shown this once; the one that it replaces signs beside it for 24 hours.

    At most two sign at any time: a second rotation within that time ends what the first one replaced. Raises NotFound.
    """
    secret, sealed = _new_secret(ctx)
    with ctx.sessions.begin() as session:
        endpoint = webhook_endpoints.rotate(
            session, endpoint_id, merchant_id=merchant_id, secret=sealed, former_signs=FORMER_SECRET_SIGNS
        )
    if endpoint is None:
        raise _unknown(endpoint_id)
    log.info("webhook_secret_rotated", endpoint_id=endpoint_id)
    return endpoint_object(endpoint, secret=secret)


def test(ctx: Context, merchant_id: str, endpoint_id: str) -> dict[str, object]:
    """Store an event `webhook.test` that is owed to this endpoint alone, and return its delivery.

    Raises NotFound, and Conflict where the endpoint is disabled.
    """
    with ctx.sessions.begin() as session:
        endpoint = webhook_endpoints.find(session, endpoint_id, merchant_id=merchant_id)
        if endpoint is None:
            raise _unknown(endpoint_id)
        if not endpoint.is_open:
            raise Conflict("the endpoint is disabled; enable it first")
        event_id = events.append_test(session, merchant_id, new_id=ctx.new_id)
        delivery_id = webhooks.owe_test(session, event_id=event_id, endpoint=endpoint, new_id=ctx.new_id)
        [told] = webhooks.of_ids(session, [delivery_id])
    return delivery_object(*told)


def _settle_pending(ctx: Context, endpoint: Endpoint) -> None:
    """End what is on its way to an endpoint that is closed now, or send it to the URL that the endpoint has now."""
    for _ in range(BATCHES):
        with ctx.sessions.begin() as session:
            if endpoint.is_open:
                settled = webhook_schedules.follow(session, endpoint.id, limit=BATCH)
            else:
                settled = len(webhook_schedules.end_pending(session, endpoint.id, limit=BATCH))
        if settled < BATCH:
            return


def _new_secret(ctx: Context) -> tuple[str, bytes]:
    """Return a fresh signing secret, and the same encrypted."""
    if ctx.box is None:
        raise MisconfiguredError("SECRETS_KEY: this process makes no webhook secrets")
    secret = write_webhook_secret(secrets.token_bytes(SECRET_BYTES))
    return secret, ctx.box.encrypt(secret.encode())


def _check_destination(ctx: Context, url: str) -> None:
    if ctx.poster is None:
        raise MisconfiguredError("this process checks no webhook destinations")
    ctx.poster.check(url, param="url")


def _unknown(endpoint_id: str) -> NotFound:
    return NotFound(f"no webhook endpoint {endpoint_id}")
