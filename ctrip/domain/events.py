"""Events: what merchants are told, one for each stored change of a payment."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ctrip.domain.times import timestamp


class EventType(StrEnum):
    """Every type that an integrator can meet."""

    PAYMENT_CREATED = "payment.created"
    PAYMENT_PARTIALLY_PAID = "payment.partially_paid"
    PAYMENT_DETECTED = "payment.detected"
    PAYMENT_CONFIRMED = "payment.confirmed"
    PAYMENT_SETTLED = "payment.settled"
    PAYMENT_EXPIRED = "payment.expired"
    PAYMENT_CANCELED = "payment.canceled"
    PAYMENT_ACCEPTED = "payment.accepted"
    PAYMENT_LATE = "payment.late"
    PAYMENT_REVERTED = "payment.reverted"
    PAYMENT_UPDATED = "payment.updated"
    TRANSFER_UNEXPECTED = "transfer.unexpected"
    WEBHOOK_TEST = "webhook.test"


@dataclass(frozen=True)
class Event:
    """A stored event. `body` is what a client gets as its `data`, as it was when the change was stored."""

    id: str
    merchant_id: str
    payment_id: str | None
    version: int | None
    type: EventType
    body: dict[str, object]
    created_at: datetime


def event_object(event: Event) -> dict[str, object]:
    """Render an event as clients see it."""
    return {
        "id": event.id,
        "object": "event",
        "type": str(event.type),
        "payment_id": event.payment_id,
        "version": event.version,
        "created_at": timestamp(event.created_at),
        "data": event.body,
    }
