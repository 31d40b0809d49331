"""Webhook endpoints, as clients write and read them."""

from typing import Literal

from pydantic import Field

from ctrip.domain.webhook_endpoints import FILTERS, DisabledReason, EndpointStatus
from ctrip.web.schemas import ULID, Incoming, ListOf, Outgoing, Page, Path, Text

_ENDPOINT_ID = f"^whe_{ULID}$"
_EVENTS = "Which events to send there: types, all types of a noun such as `payment.*`, or `*` for all of them."


class CreateWebhookEndpoint(Incoming):
    """Where to send events, and which."""

    url: Text = Field(
        min_length=1,
        max_length=2_048,
        description="Where to post: https, without credentials, at a public address.",
        examples=["https://shop.example/hooks"],
    )
    events: list[Text] = Field(min_length=1, max_length=len(FILTERS), description=_EVENTS, examples=[["payment.*"]])


class ChangeWebhookEndpoint(Incoming):
    """What to change; what is absent or null stays as it is."""

    url: Text | None = Field(
        default=None,
        min_length=1,
        max_length=2_048,
        description="Where to post from now on; what is on its way follows.",
        examples=["https://shop.example/hooks"],
    )
    events: list[Text] | None = Field(
        default=None, min_length=1, max_length=len(FILTERS), description=_EVENTS, examples=[["*"]]
    )
    status: Literal["enabled", "disabled"] | None = Field(
        default=None,
        description="`disabled` ends what is on its way there; `enabled` takes an endpoint back that was given up.",
        examples=["enabled"],
    )


class EndpointPath(Path):
    """Which endpoint."""

    endpoint_id: str = Field(pattern=_ENDPOINT_ID, description="The endpoint's id.")


class EndpointQuery(Page):
    """Which endpoints, newest first."""

    starting_after: str | None = Field(
        default=None, pattern=_ENDPOINT_ID, description="The `next_cursor` of the page before."
    )


class WebhookEndpoint(Outgoing):
    """A URL that events are posted to, signed with a secret of its own."""

    id: str = Field(description="Its id.", pattern=_ENDPOINT_ID)
    object: Literal["webhook_endpoint"] = Field(description="Always `webhook_endpoint`.")
    url: str = Field(description="Where events are posted.")
    events: list[str] = Field(description="Which events: types, all types of a noun, or `*`.")
    status: EndpointStatus = Field(description="Nothing is sent to a `disabled` endpoint, nor owed to it.")
    disabled_reason: DisabledReason | None = Field(
        description="`merchant`: you did; `gone`: it answered 410; `failing`: nothing but failures for five days."
    )
    created_at: str = Field(description="When it was created (RFC 3339, UTC).")


class WebhookEndpointWithSecret(WebhookEndpoint):
    """An endpoint together with the secret that was just made."""

    secret: str = Field(description="What its signatures are checked with (Standard Webhooks 1.0), shown this once.")


class WebhookEndpointList(ListOf[WebhookEndpoint]):
    """A page of webhook endpoints."""
