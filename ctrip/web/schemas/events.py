"""Events and the deliveries that they owe, as clients read them."""

from typing import Any, Literal

from pydantic import Field

from ctrip.domain.events import EventType
from ctrip.web.schemas import ULID, ListOf, Outgoing, Page, Path


class EventPath(Path):
    """Which event."""

    event_id: str = Field(pattern=f"^evt_{ULID}$", description="The event's id.")


class EventQuery(Page):
    """Which events."""

    starting_after: str | None = Field(
        default=None, pattern=f"^evt_{ULID}$", description="The `next_cursor` of the page before."
    )


class DeliveryPath(Path):
    """Which delivery."""

    delivery_id: str = Field(pattern=f"^whd_{ULID}$", description="The delivery's id.")


class DeliveryQuery(Page):
    """Which deliveries."""

    starting_after: str | None = Field(
        default=None, pattern=f"^whd_{ULID}$", description="The `next_cursor` of the page before."
    )


class Event(Outgoing):
    """One stored change of a payment. Webhooks carry the same `data`."""

    id: str = Field(description="Its id, which is also the `webhook-id` of its deliveries.")
    object: Literal["event"] = Field(description="Always `event`.")
    type: EventType = Field(description="What happened.")
    payment_id: str | None = Field(description="The payment that changed.")
    version: int | None = Field(description="The payment's version since this change: without gaps, in order.")
    created_at: str = Field(description="When the change was stored (RFC 3339, UTC).")
    data: dict[str, Any] = Field(
        description="The `payment` as it was then, with its `previous_status`, or the `transfer` that was unexpected."
    )


class EventList(ListOf[Event]):
    """A page of events."""


class Attempt(Outgoing):
    """One try to deliver."""

    at: str = Field(description="When it began (RFC 3339, UTC).")
    status_code: int | None = Field(description="The HTTP status that was answered; null where none came.")
    duration_ms: int = Field(description="How long it took.")
    error: str | None = Field(description="What stood in the way where no status came.")
    response: str | None = Field(description="The first 1 KiB of the answer.")


class WebhookDelivery(Outgoing):
    """What became of an event on its way to one destination."""

    id: str = Field(description="Its id.")
    object: Literal["webhook_delivery"] = Field(description="Always `webhook_delivery`.")
    event_id: str = Field(description="The event.")
    endpoint_id: str | None = Field(description="The endpoint; null for a payment's own `webhook_url`.")
    url: str = Field(description="Where it goes.")
    status: Literal["pending", "delivered", "dead"] = Field(
        description="`pending`: will be tried; `delivered`: a 2xx came; `dead`: given up."
    )
    attempts: int = Field(description="How many tries were made.")
    next_attempt_at: str | None = Field(description="When it is tried again; null where it is not.")
    last_status_code: int | None = Field(description="The newest attempt's HTTP status.")
    history: list[Attempt] = Field(description="Every attempt, oldest first.")


class WebhookDeliveryList(ListOf[WebhookDelivery]):
    """A page of webhook deliveries."""
