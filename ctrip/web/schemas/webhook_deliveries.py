"""Webhook deliveries, as clients read them and ask for them once more."""

from typing import Literal

from pydantic import Field

from ctrip.web.schemas import ULID, Incoming, ListOf, Moment, Outgoing, Page, Path

_DELIVERY_ID = f"^whd_{ULID}$"


class DeliveryPath(Path):
    """Which delivery."""

    delivery_id: str = Field(pattern=_DELIVERY_ID, description="The delivery's id.")


class DeliveryQuery(Page):
    """Which deliveries."""

    starting_after: str | None = Field(
        default=None, pattern=_DELIVERY_ID, description="The `next_cursor` of the page before."
    )


class WebhookDeliveryQuery(DeliveryQuery):
    """Which of a merchant's deliveries, newest first."""

    endpoint_id: str | None = Field(
        default=None, pattern=f"^whe_{ULID}$", description="Only deliveries to this endpoint."
    )
    event_id: str | None = Field(default=None, pattern=f"^evt_{ULID}$", description="Only deliveries of this event.")
    status: Literal["pending", "delivered", "dead"] | None = Field(
        default=None, description="Only deliveries that have this status."
    )


class Redeliver(Incoming):
    """Which of the dead deliveries to try again."""

    since: Moment = Field(description="Those that were owed at this time or later.", examples=["2026-11-22T14:00:00Z"])
    endpoint_id: str | None = Field(
        default=None, pattern=f"^whe_{ULID}$", description="Only those to this endpoint; null or absent: to any."
    )


class Redelivered(Outgoing):
    """How many deliveries are tried again."""

    matched: int = Field(description="How many were dead, and go to no endpoint that is disabled or deleted.")
    done: int = Field(description="How many are due now: at most 10,000 for one request. Ask again for the rest.")


class Attempt(Outgoing):
    """One try to deliver."""

    at: str = Field(description="When it began (RFC 3339, UTC).")
    status_code: int | None = Field(description="The HTTP status that was answered; null where none came.")
    duration_ms: int = Field(description="How long it took.")
    error: str | None = Field(description="What stood in the way where no status came.")
    response: str | None = Field(description="The first 1 KiB of the answer.")


class WebhookDelivery(Outgoing):
    """What became of an event on its way to one destination."""

    id: str = Field(description="Its id.", pattern=_DELIVERY_ID)
    object: Literal["webhook_delivery"] = Field(description="Always `webhook_delivery`.")
    event_id: str | None = Field(description="The event; null where it carries JSON of your own.")
    endpoint_id: str | None = Field(
        description="The endpoint; null for a payment's own `webhook_url` and for JSON of your own."
    )
    url: str = Field(description="Where it goes: its endpoint's URL as it was at the newest attempt.")
    status: Literal["pending", "delivered", "dead"] = Field(
        description="`pending`: will be tried; `delivered`: a 2xx came; `dead`: given up."
    )
    attempts: int = Field(description="How many tries were made.")
    next_attempt_at: str | None = Field(description="When it is tried again; null where it is not.")
    last_status_code: int | None = Field(description="The newest attempt's HTTP status.")
    history: list[Attempt] = Field(description="Every attempt, oldest first.")


class WebhookDeliveryList(ListOf[WebhookDelivery]):
    """A page of webhook deliveries."""
