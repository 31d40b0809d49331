"""Events: every stored change, for whoever missed a webhook."""

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from ctrip.domain.merchants import Scope
from ctrip.services import events
from ctrip.web.auth import authorize, needs
from ctrip.web.current import context, merchant_id
from ctrip.web.openapi import operation_id
from ctrip.web.schemas.events import Event, EventList, EventPath, EventQuery

blueprint = APIBlueprint(
    "events",
    __name__,
    url_prefix="/api/v1/events",
    abp_tags=[Tag(name="Events", description="What happened to payments: one event for each stored change.")],
    operation_id_callback=operation_id,
)
blueprint.before_request(authorize)


@blueprint.get("", responses={200: EventList})
@needs(Scope.PAYMENTS_READ)
def list_events(query: EventQuery) -> dict[str, object]:
    """List events, newest first. They are kept for 90 days at least."""
    return events.of_merchant(context(), merchant_id(), limit=query.limit, after=query.starting_after)


@blueprint.get("/<event_id>", responses={200: Event})
@needs(Scope.PAYMENTS_READ)
def get_event(path: EventPath) -> dict[str, object]:
    """Get an event."""
    return events.find(context(), merchant_id(), path.event_id)
