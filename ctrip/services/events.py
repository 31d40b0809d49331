"""Events as their merchant may read them, for whoever missed a webhook."""

from ctrip.context import Context
from ctrip.database import events
from ctrip.domain.events import event_object
from ctrip.domain.pages import list_object
from ctrip.errors import NotFound


def of_merchant(ctx: Context, merchant_id: str, *, limit: int, after: str | None = None) -> dict[str, object]:
    """Return a page of a merchant's events, newest first."""
    with ctx.sessions.begin() as session:
        found = events.of_merchant(session, merchant_id, limit=limit + 1, after=after)
    return list_object([event_object(event) for event in found], limit=limit)


def find(ctx: Context, merchant_id: str, event_id: str) -> dict[str, object]:
    """Return an event of a merchant. Raises NotFound."""
    with ctx.sessions.begin() as session:
        event = events.find(session, event_id)
    if event is None or event.merchant_id != merchant_id:
        raise NotFound(f"no event {event_id}")
    return event_object(event)
