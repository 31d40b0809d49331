"""Webhook deliveries: what became of each event on its way."""

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from ctrip.domain.merchants import Scope
from ctrip.services import webhooks
from ctrip.web.auth import authorize, needs
from ctrip.web.current import context, merchant_id
from ctrip.web.openapi import operation_id
from ctrip.web.schemas.events import DeliveryPath, DeliveryQuery, WebhookDelivery, WebhookDeliveryList

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
def list_webhook_deliveries(query: DeliveryQuery) -> dict[str, object]:
    """List webhook deliveries, newest first."""
    return webhooks.of_merchant(context(), merchant_id(), limit=query.limit, after=query.starting_after)


@blueprint.get("/<delivery_id>", responses={200: WebhookDelivery})
@needs(Scope.WEBHOOKS_READ)
def get_webhook_delivery(path: DeliveryPath) -> dict[str, object]:
    """Get a webhook delivery with all its attempts."""
    return webhooks.find(context(), merchant_id(), path.delivery_id)
