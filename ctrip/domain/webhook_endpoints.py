"""Webhook endpoints: where a merchant hears of events, of which, and when an endpoint is given up.

enabled ──its owner──> disabled (merchant)
   │ ──410──> disabled (gone)
   └──nothing but failures for five days──> disabled (failing)
disabled ──its owner──> enabled, as if nothing had ever failed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ctrip.domain.events import EventType
from ctrip.domain.times import timestamp
from ctrip.domain.webhooks import GONE
from ctrip.errors import InvalidValue

MOST = 16
"""How many endpoints a merchant may have: each event makes a delivery to each of them."""
FORMER_SECRET_SIGNS = timedelta(hours=24)
"""How long a secret that was replaced still signs, beside the newer one."""
GIVEN_UP_AFTER = timedelta(hours=120)
"""Of nothing but failures. It is longer than the schedule of one delivery, so one bad event ends no endpoint."""

EVERYTHING = "*"
_NOUNS = tuple(dict.fromkeys(str(each).partition(".")[0] for each in EventType))
FILTERS = (EVERYTHING, *(f"{noun}.*" for noun in _NOUNS), *map(str, EventType))
"""All that an endpoint may name as its events."""


class EndpointStatus(StrEnum):
    """Whether events are sent there."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class DisabledReason(StrEnum):
    """merchant: by its owner; gone: it answered 410; failing: nothing but failures for days."""

    MERCHANT = "merchant"
    GONE = "gone"
    FAILING = "failing"


@dataclass(frozen=True)
class Endpoint:
    """Where a merchant hears of events. `failing_since` is null while all is well."""

    id: str
    merchant_id: str
    url: str
    events: tuple[str, ...]
    status: EndpointStatus
    disabled_reason: DisabledReason | None
    failing_since: datetime | None
    created_at: datetime
    deleted_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """True while events are sent there."""
        return self.status is EndpointStatus.ENABLED and self.deleted_at is None

    @property
    def was_given_up(self) -> bool:
        """True where we ended it, so that somebody should hear of what it has missed; its owner knows by itself."""
        return self.disabled_reason in (DisabledReason.GONE, DisabledReason.FAILING) and self.deleted_at is None


def check_events(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the filters, each once. Raises InvalidValue."""
    unknown = next((each for each in wanted if each not in FILTERS), None)
    if unknown is not None:
        raise InvalidValue(f"there is no event {unknown[:60]!r}; there are: {', '.join(FILTERS)}", param="events")
    if not wanted:
        raise InvalidValue('name at least one event; "*" means all of them', param="events")
    return tuple(dict.fromkeys(wanted))


def filters_of(event_type: EventType) -> tuple[str, ...]:
    """Return the filters that let an event of this type pass."""
    return EVERYTHING, f"{event_type.partition('.')[0]}.*", str(event_type)


def after_failure(
    failing_since: datetime | None, *, status_code: int | None, at: datetime
) -> tuple[datetime, DisabledReason | None]:
    """Return since when an endpoint fails, now that an attempt failed `at`, and why it is to be disabled, if it is.

    410 says that it is gone for good (Standard Webhooks 1.0).
    """
    since = failing_since or at
    if status_code == GONE:
        return since, DisabledReason.GONE
    return since, DisabledReason.FAILING if at - since >= GIVEN_UP_AFTER else None


def endpoint_object(endpoint: Endpoint, *, secret: str | None = None) -> dict[str, object]:
    """Render an endpoint as its merchant sees it, with its secret where that was made just now."""
    shown: dict[str, object] = {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "url": endpoint.url,
        "events": list(endpoint.events),
        "status": str(endpoint.status),
        "disabled_reason": endpoint.disabled_reason and str(endpoint.disabled_reason),
        "created_at": timestamp(endpoint.created_at),
    }
    return shown if secret is None else shown | {"secret": secret}
