"""Webhook deliveries as their merchant meets them: listed, looked at, and asked for once more."""

from datetime import datetime

from ctrip.context import Context
from ctrip.database import dead_letters, webhook_endpoints, webhook_schedules, webhooks
from ctrip.domain.pages import list_object
from ctrip.domain.webhooks import DeliveryStatus, delivery_object
from ctrip.errors import Conflict, NotFound
from ctrip.log import get_logger

BATCH = 500
BATCHES = 20
"""How many batches one request redelivers: 10,000 deliveries. The answer says how many there were."""
log = get_logger()


def of_merchant(
    ctx: Context,
    merchant_id: str,
    *,
    limit: int,
    after: str | None = None,
    endpoint_id: str | None = None,
    event_id: str | None = None,
    status: str | None = None,
) -> dict[str, object]:
    """Return a page of a merchant's deliveries, newest first. `status` is one of those that clients see."""
    with ctx.sessions.begin() as session:
        found = webhooks.of_merchant(
            session,
            merchant_id,
            limit=limit + 1,
            after=after,
            endpoint_id=endpoint_id,
            event_id=event_id,
            statuses=() if status is None else [each for each in DeliveryStatus if each.shown == status],
        )
    return list_object([delivery_object(*told) for told in found], limit=limit)


def find(ctx: Context, merchant_id: str, delivery_id: str) -> dict[str, object]:
    """Return a delivery of a merchant with its history. Raises NotFound."""
    with ctx.sessions.begin() as session:
        told = webhooks.find(session, delivery_id, merchant_id=merchant_id)
    if told is None:
        raise NotFound(f"no delivery {delivery_id}")
    return delivery_object(*told)


def redeliver(ctx: Context, merchant_id: str, delivery_id: str) -> dict[str, object]:
    """Make a delivery due now, whatever became of it, and return it. Its receiver knows it by the same `webhook-id`.

    One that is over gets a fresh schedule and its open dead letter is closed; one that is pending goes on with its own.
    Raises NotFound, and Conflict where its endpoint takes none.
    """
    with ctx.sessions.begin() as session:
        told = webhooks.find(session, delivery_id, merchant_id=merchant_id)
        if told is None:
            raise NotFound(f"no delivery {delivery_id}")
        endpoint_id = told[0].endpoint_id
        if endpoint_id is not None:
            endpoint = webhook_endpoints.find(session, endpoint_id, merchant_id=merchant_id)
            if endpoint is None or not endpoint.is_open:
                raise Conflict("the delivery's endpoint is disabled or deleted")
        dead_letters.close_rows(session, [delivery_id])
        webhook_schedules.begin_anew(session, [delivery_id])
        webhook_schedules.hasten(session, delivery_id)
        [now] = webhooks.of_ids(session, [delivery_id])
    log.info("redelivery_requested", delivery_id=delivery_id)
    return delivery_object(*now)


def redeliver_since(
    ctx: Context, merchant_id: str, *, since: datetime, endpoint_id: str | None = None
) -> dict[str, object]:
    """Give a fresh schedule to what was owed since then and is dead, oldest first, and close the open dead letters.

    In batches of 500, each a transaction of its own, and at most 10,000 for one request: `matched` says how many there
    were, `done` how many are due now. What went to endpoints that are disabled or deleted is left out. Raises NotFound
    for an endpoint that the merchant has not got.
    """
    done = 0
    with ctx.sessions.begin() as session:
        if endpoint_id is not None and webhook_endpoints.find(session, endpoint_id, merchant_id=merchant_id) is None:
            raise NotFound(f"no webhook endpoint {endpoint_id}")
        matched = webhook_schedules.count_dead(session, merchant_id, since=since, endpoint_id=endpoint_id)
    for _ in range(BATCHES):
        with ctx.sessions.begin() as session:
            batch = webhook_schedules.dead(session, merchant_id, since=since, endpoint_id=endpoint_id, limit=BATCH)
            dead_letters.close_rows(session, batch)
            done += webhook_schedules.begin_anew(session, batch)
        if len(batch) < BATCH:
            break
    log.info("redeliveries_requested", merchant_id=merchant_id, matched=matched, done=done)
    return {"matched": matched, "done": done}
