"""Webhook deliveries: what is posted, what an answer means, and when the next attempt is due.

pending ──2xx──> delivered
   │ ──anything else──> pending, until the schedule is used up ──> dead (schedule)
   │ ──410, or its endpoint is closed──> dead (endpoint_disabled)
   └──an exception that nobody expected──> failed
dead, failed ──replay──> pending, with a fresh schedule; a merchant may ask for it for one that was delivered, too
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from ctrip.domain.events import Event
from ctrip.domain.times import timestamp

ACTOR = "send_webhook"
QUEUE = "webhook"
JITTER = 0.2
"""Each gap is up to a fifth shorter or longer, so that what failed together does not come back together."""

CUSTOM_GAPS_S = (0, 5, 10, 20, 40)
"""The wait before each attempt at a custom webhook: five of them, from 5 s, doubling."""

GONE = 410
"""The status by which a destination asks never to be called again (RFC 9110, section 15.5.11)."""

AT_ONCE = 2
"""How many attempts there may be at one origin at any moment, in all processes together."""

SLOW_SHARE = 1 / 3
"""Of the time that an attempt has. An origin that takes more of it is as bad for the others as a silent one."""

SLOW_KEPT = timedelta(days=30)
"""An origin at which nothing is pending is still known to be slow for so long after it became so."""

LONGEST_RETRY_AFTER_S = 86_400
"""As long as the longest gap of the schedule: an endpoint may ask for patience, not for silence."""


class DeliveryStatus(StrEnum):
    """dead: a rule of ours ended it; failed: an exception did. Both wait for a replay."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    FAILED = "failed"

    @property
    def shown(self) -> str:
        """What everybody outside sees: what failed on our side is as dead to them as the rest."""
        return str(DeliveryStatus.DEAD if self is DeliveryStatus.FAILED else self)


class DeadReason(StrEnum):
    """schedule: every attempt was made; endpoint_disabled: nothing is sent there any more."""

    SCHEDULE = "schedule"
    ENDPOINT_DISABLED = "endpoint_disabled"


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one URL. `attempts` counts all that were made, those before a replay included.

    A custom webhook carries its own `payload` instead of an event, and may belong to no merchant.
    """

    id: str
    event_id: str | None
    merchant_id: str | None
    payment_id: str | None
    endpoint_id: str | None
    url: str
    status: DeliveryStatus
    attempts: int
    next_attempt_at: datetime | None
    last_status_code: int | None
    created_at: datetime
    payload: str | None = None

    @property
    def webhook_id(self) -> str:
        """What receivers know it by, the same on every attempt."""
        return self.event_id or self.id


@dataclass(frozen=True)
class Attempt:
    """One POST that was made. Either a `status_code` came, or `error` says what stood in the way.

    `response` is the first 1 KiB of the answer's body.
    """

    number: int
    at: datetime
    duration_ms: int
    status_code: int | None = None
    error: str | None = None
    response: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What an attempt makes of its delivery. `next_attempt_at` is set for a pending one alone."""

    status: DeliveryStatus
    next_attempt_at: datetime | None = None
    dead_reason: DeadReason | None = None


def origin(url: str) -> str:
    """Return scheme, host and port of a checked URL: what concurrency is counted by."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def body(event: Event) -> bytes:
    """Write an event as it is posted and signed: the same bytes on every attempt.

    Compact JSON in ASCII, because stored metadata may hold lone surrogates, which UTF-8 cannot.
    """
    content = {"id": event.id, "type": str(event.type), "timestamp": timestamp(event.created_at), "data": event.body}
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def is_slow(duration_ms: int, *, timeout_s: float) -> bool:
    """Say whether an attempt took so long that the next one must not take a thread from other origins."""
    return duration_ms >= timeout_s * 1000 * SLOW_SHARE


def outcome(
    status_code: int | None,
    *,
    attempt: int,
    gaps_s: Sequence[int],
    ended_at: datetime,
    retry_after_s: int | None,
    random: float,
    is_former: bool = False,
) -> Outcome:
    """Say what becomes of a delivery after its `attempt`th try of this schedule ended at `ended_at`.

    Only the status line counts, by the rules of Standard Webhooks 1.0; None means that none came. `is_former`: the next
    try goes elsewhere, so it matters to none that this URL is gone. The other arguments are those of `next_attempt_at`.
    """
    if status_code is not None and 200 <= status_code < 300:
        return Outcome(DeliveryStatus.DELIVERED)
    if status_code == GONE and not is_former:
        return Outcome(DeliveryStatus.DEAD, dead_reason=DeadReason.ENDPOINT_DISABLED)
    due = next_attempt_at(attempt, gaps_s=gaps_s, ended_at=ended_at, retry_after_s=retry_after_s, random=random)
    if due is None:
        return Outcome(DeliveryStatus.DEAD, dead_reason=DeadReason.SCHEDULE)
    return Outcome(DeliveryStatus.PENDING, next_attempt_at=due)


def next_attempt_at(
    attempt: int, *, gaps_s: Sequence[int], ended_at: datetime, retry_after_s: int | None = None, random: float = 0.5
) -> datetime | None:
    """Return when to try again after the `attempt`th try (the first is 1); None where that was the last.

    `gaps_s[n]` is the wait before try n + 1. `random` in [0, 1) moves the wait within ±20 %; 0.5 leaves it. A
    `Retry-After` can make the wait longer, up to LONGEST_RETRY_AFTER_S, never shorter.
    """
    if attempt >= len(gaps_s):
        return None
    wait = timedelta(seconds=gaps_s[attempt] * (1 + JITTER * (2 * random - 1)))
    asked = timedelta(seconds=min(retry_after_s or 0, LONGEST_RETRY_AFTER_S))
    return ended_at + max(wait, asked)


def delivery_object(delivery: Delivery, attempts: Iterable[Attempt]) -> dict[str, object]:
    """Render a delivery and its history as clients see it."""
    return {
        "id": delivery.id,
        "object": "webhook_delivery",
        "event_id": delivery.event_id,
        "endpoint_id": delivery.endpoint_id,
        "url": delivery.url,
        "status": delivery.status.shown,
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.next_attempt_at and timestamp(delivery.next_attempt_at),
        "last_status_code": delivery.last_status_code,
        "history": [
            {
                "at": timestamp(attempt.at),
                "status_code": attempt.status_code,
                "duration_ms": attempt.duration_ms,
                "error": attempt.error,
                "response": attempt.response,
            }
            for attempt in attempts
        ],
    }
