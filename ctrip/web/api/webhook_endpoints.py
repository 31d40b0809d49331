"""Webhook endpoints: made, looked at, changed, tested, given a new secret, deleted."""

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from ctrip.domain.merchants import Scope
from ctrip.domain.webhook_endpoints import EndpointStatus
from ctrip.errors import Conflict, DestinationRefused
from ctrip.services import webhook_endpoints
from ctrip.web.auth import authorize, needs
from ctrip.web.current import context, merchant_id
from ctrip.web.openapi import operation_id
from ctrip.web.refusals import refuses
from ctrip.web.schemas.webhook_deliveries import WebhookDelivery
from ctrip.web.schemas.webhook_endpoints import (
    ChangeWebhookEndpoint,
    CreateWebhookEndpoint,
    EndpointPath,
    EndpointQuery,
    WebhookEndpoint,
    WebhookEndpointList,
    WebhookEndpointWithSecret,
)

Created = tuple[dict[str, object], int]

blueprint = APIBlueprint(
    "webhook_endpoints",
    __name__,
    url_prefix="/api/v1/webhook_endpoints",
    abp_tags=[Tag(name="Webhook endpoints", description="URLs that a merchant's events are posted to.")],
    operation_id_callback=operation_id,
)
blueprint.before_request(authorize)


@blueprint.post("", responses={201: WebhookEndpointWithSecret})
@needs(Scope.WEBHOOKS_WRITE)
@refuses(Conflict, DestinationRefused)
def create_webhook_endpoint(body: CreateWebhookEndpoint) -> Created:
    """Create a webhook endpoint.

    The answer holds its secret, which is shown this once. A merchant has at most 16 endpoints; one more is a 409.
    """
    return webhook_endpoints.create(context(), merchant_id(), url=body.url, wanted=body.events), 201


@blueprint.get("", responses={200: WebhookEndpointList})
@needs(Scope.WEBHOOKS_READ)
def list_webhook_endpoints(query: EndpointQuery) -> dict[str, object]:
    """List webhook endpoints, newest first."""
    return webhook_endpoints.of_merchant(context(), merchant_id(), limit=query.limit, after=query.starting_after)


@blueprint.get("/<endpoint_id>", responses={200: WebhookEndpoint})
@needs(Scope.WEBHOOKS_READ)
def get_webhook_endpoint(path: EndpointPath) -> dict[str, object]:
    """Get a webhook endpoint."""
    return webhook_endpoints.find(context(), merchant_id(), path.endpoint_id)


@blueprint.patch("/<endpoint_id>", responses={200: WebhookEndpoint})
@needs(Scope.WEBHOOKS_WRITE)
@refuses(DestinationRefused)
def change_webhook_endpoint(path: EndpointPath, body: ChangeWebhookEndpoint) -> dict[str, object]:
    """Change a webhook endpoint.

    Disabling it ends what is on its way there: those deliveries are `dead`, and can be redelivered once it is enabled.
    """
    status = None if body.status is None else EndpointStatus(body.status)
    return webhook_endpoints.change(
        context(), merchant_id(), path.endpoint_id, url=body.url, wanted=body.events, status=status
    )


@blueprint.delete("/<endpoint_id>", responses={200: WebhookEndpoint})
@needs(Scope.WEBHOOKS_WRITE)
def delete_webhook_endpoint(path: EndpointPath) -> dict[str, object]:
    """Delete a webhook endpoint.

    What is on its way there ends as `dead`. The answer is the endpoint as it was last; from now on it is not found.
    """
    return webhook_endpoints.delete(context(), merchant_id(), path.endpoint_id)


@blueprint.post("/<endpoint_id>/test", responses={202: WebhookDelivery})
@needs(Scope.WEBHOOKS_WRITE)
@refuses(Conflict)
def test_webhook_endpoint(path: EndpointPath) -> Created:
    """Send an event of type `webhook.test` to a webhook endpoint.

    It goes to this endpoint alone, whatever that has subscribed to; 409 where it is disabled. Look at the delivery to
    see what came of it.
    """
    return webhook_endpoints.test(context(), merchant_id(), path.endpoint_id), 202


@blueprint.post("/<endpoint_id>/rotate_secret", responses={200: WebhookEndpointWithSecret})
@needs(Scope.WEBHOOKS_WRITE)
def rotate_webhook_secret(path: EndpointPath) -> dict[str, object]:
    """Replace the secret of a webhook endpoint.

    The answer holds the new one, which signs from now on. For 24 hours the one before signs beside it: each request
    then carries two signatures, the newest first.
    """
    return webhook_endpoints.rotate_secret(context(), merchant_id(), path.endpoint_id)
