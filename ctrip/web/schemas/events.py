"""Events, as clients read them."""

from typing import Any, Literal

from pydantic import Field

from ctrip.domain.events import EventType
from ctrip.web.schemas import ULID, ListOf, Outgoing, Page, Path

_EVENT_ID = f"^evt_{ULID}$"


class EventPath(Path):
    """Which event."""

    event_id: str = Field(pattern=_EVENT_ID, description="The event's id.")


class EventQuery(Page):
    """Which events."""

    starting_after: str | None = Field(
        default=None, pattern=_EVENT_ID, description="The `next_cursor` of the page before."
    )


class Event(Outgoing):
    """One stored change of a payment, or a test of an endpoint. Webhooks carry the same `data`."""

    id: str = Field(description="Its id, which is also the `webhook-id` of its deliveries.", pattern=_EVENT_ID)
    object: Literal["event"] = Field(description="Always `event`.")
    type: EventType = Field(description="What happened.")
    payment_id: str | None = Field(description="The payment that changed; null for `webhook.test`.")
    version: int | None = Field(
        description="The payment's version since this change: without gaps, in order; null for a test."
    )
    created_at: str = Field(description="When the change was stored (RFC 3339, UTC).")
    data: dict[str, Any] = Field(
        description="The `payment` as it was then, with its `previous_status`, or the `transfer` that was unexpected."
    )


class EventList(ListOf[Event]):
    """A page of events."""
