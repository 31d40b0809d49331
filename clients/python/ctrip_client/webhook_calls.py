"""Where events are posted to, and what became of each on its way there."""

from collections.abc import Iterator, Sequence
from functools import partial

from ctrip_client.asking import API, Asking, json_of, path_of
from ctrip_client.objects import Delivery, WebhookEndpoint
from ctrip_client.reading import read
from ctrip_client.sending import Asked

_ENDPOINTS, _DELIVERIES = "webhook_endpoints", "webhook_deliveries"


class WebhookCalls(Asking):
    """Webhook endpoints and deliveries. Each call raises ApiError where it is refused, and NoAnswer.

    What would change more if it was carried out twice is sent again only where it cannot have been carried out.
    """

    def create_webhook_endpoint(self, *, url: str, events: Sequence[str] = ("*",)) -> WebhookEndpoint:
        """Have events posted to a URL and return the endpoint; keep its `secret`, which is shown this once.

        `events` are types, all types of a noun such as `payment.*`, or `*`. After NoAnswer look at `webhook_endpoints`:
        one that was made and whose secret nobody knows is to be deleted, or its secret rotated.
        """
        body = json_of({"url": url, "events": list(events)})
        made = self._ask(Asked("POST", f"{API}/{_ENDPOINTS}", body=body, is_repeatable=False))
        return read(WebhookEndpoint, made)

    def webhook_endpoint(self, endpoint_id: str) -> WebhookEndpoint:
        """Return an endpoint."""
        return read(WebhookEndpoint, self._ask(Asked("GET", path_of(_ENDPOINTS, endpoint_id))))

    def webhook_endpoints(self) -> Iterator[WebhookEndpoint]:
        """Yield the endpoints, newest first."""
        return self._pages(f"{API}/{_ENDPOINTS}", partial(read, WebhookEndpoint), {})

    def update_webhook_endpoint(
        self,
        endpoint_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> WebhookEndpoint:
        """Change an endpoint and return it; None leaves a thing as it is.

        To disable it ends what is on its way there, to enable it takes one back that was given up.
        """
        status = None if enabled is None else ("enabled" if enabled else "disabled")
        body = json_of({"url": url, "events": None if events is None else list(events), "status": status})
        return read(WebhookEndpoint, self._ask(Asked("PATCH", path_of(_ENDPOINTS, endpoint_id), body=body)))

    def delete_webhook_endpoint(self, endpoint_id: str) -> WebhookEndpoint:
        """Delete an endpoint, with what is on its way there, and return it as it was last."""
        asked = Asked("DELETE", path_of(_ENDPOINTS, endpoint_id), is_repeatable=False)
        return read(WebhookEndpoint, self._ask(asked))

    def rotate_webhook_secret(self, endpoint_id: str) -> WebhookEndpoint:
        """Give an endpoint a new secret, shown this once; the one before signs beside it for 24 hours."""
        asked = Asked("POST", path_of(_ENDPOINTS, endpoint_id, "rotate_secret"), is_repeatable=False)
        return read(WebhookEndpoint, self._ask(asked))

    def test_webhook_endpoint(self, endpoint_id: str) -> Delivery:
        """Have an event `webhook.test` posted to an endpoint, and return its delivery, to be looked at in a while."""
        asked = Asked("POST", path_of(_ENDPOINTS, endpoint_id, "test"), is_repeatable=False)
        return read(Delivery, self._ask(asked))

    def deliveries(self, payment_id: str | None = None, **filters: str) -> Iterator[Delivery]:
        """Yield deliveries, newest first: endpoint_id, event_id, status; of a payment, in the order of its events."""
        path = f"{API}/{_DELIVERIES}" if payment_id is None else path_of("payments", payment_id, "deliveries")
        return self._pages(path, partial(read, Delivery), filters)

    def delivery(self, delivery_id: str) -> Delivery:
        """Return a delivery with all its attempts."""
        return read(Delivery, self._ask(Asked("GET", path_of(_DELIVERIES, delivery_id))))

    def redeliver(self, delivery_id: str) -> Delivery:
        """Deliver once more, whatever became of it, under the same `webhook-id`; 409 where its endpoint is closed."""
        asked = Asked("POST", path_of(_DELIVERIES, delivery_id, "redeliver"), is_repeatable=False)
        return read(Delivery, self._ask(asked))
