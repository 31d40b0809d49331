"""Webhook deliveries: what became of each event on its way, and once more."""

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from ctrip.domain.merchants import Scope
from ctrip.errors import Conflict, NotFound
from ctrip.services import webhook_deliveries
from ctrip.web.auth import authorize, needs
from ctrip.web.current import context, merchant_id
from ctrip.web.openapi import operation_id
from ctrip.web.refusals import refuses
from ctrip.web.schemas.webhook_deliveries import (
    DeliveryPath,
    Redeliver,
    Redelivered,
    WebhookDelivery,
    WebhookDeliveryList,
    WebhookDeliveryQuery,
)

blueprint = APIBlueprint(
    "webhook_deliveries",
    __name__,
    url_prefix="/api/v1/webhook_deliveries",
    abp_tags=[Tag(name="Webhook deliveries", description="What became of each event on its way to a destination.")],
    operation_id_callback=operation_id,
)
blueprint.before_request(authorize)


@blueprint.get("", responses={200: WebhookDeliveryList})
@needs(Scope.WEBHOOKS_READ)
def list_webhook_deliveries(query: WebhookDeliveryQuery) -> dict[str, object]:
    """List webhook deliveries, newest first."""
    filters = query.model_dump(exclude={"limit", "starting_after"}, exclude_none=True)
    return webhook_deliveries.of_merchant(
        context(), merchant_id(), limit=query.limit, after=query.starting_after, **filters
    )


@blueprint.get("/<delivery_id>", responses={200: WebhookDelivery})
@needs(Scope.WEBHOOKS_READ)
def get_webhook_delivery(path: DeliveryPath) -> dict[str, object]:
    """Get a webhook delivery with all its attempts."""
    return webhook_deliveries.find(context(), merchant_id(), path.delivery_id)


@blueprint.post("/<delivery_id>/redeliver", responses={202: WebhookDelivery})
@needs(Scope.WEBHOOKS_WRITE)
@refuses(Conflict)
def redeliver_webhook_delivery(path: DeliveryPath) -> tuple[dict[str, object], int]:
    """Deliver once more, whatever became of it.

    It goes out under the same `webhook-id`. One that is over starts a fresh schedule; the next attempt of one that is
    pending is made now. 409 where its endpoint is disabled or deleted.
    """
    return webhook_deliveries.redeliver(context(), merchant_id(), path.delivery_id), 202


@blueprint.post("/redeliver", responses={202: Redelivered})
@needs(Scope.WEBHOOKS_WRITE)
@refuses(NotFound)
def redeliver_webhook_deliveries(body: Redeliver) -> tuple[dict[str, object], int]:
    """Deliver once more what was owed since a time and is dead, oldest first.

    At most 10,000 for one request. Deliveries of endpoints that are disabled or deleted are left out.
    """
    return webhook_deliveries.redeliver_since(
        context(), merchant_id(), since=body.since, endpoint_id=body.endpoint_id
    ), 202
