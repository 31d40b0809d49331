from ctrip.domain.events import Event, EventType, event_object
from tests.factories import MERCHANT_ID, NOON


def test_the_types_are_those_of_the_contract() -> None:
    payment = "created partially_paid detected confirmed settled expired canceled accepted late reverted updated"
    names = [f"payment.{name}" for name in payment.split()] + ["transfer.unexpected", "webhook.test"]
    assert list(EventType) == names


def test_an_event_is_shown_as_the_contract_says() -> None:
    body: dict[str, object] = {"payment": {"id": "pay_1"}, "previous_status": "detected"}
    event = Event("evt_1", MERCHANT_ID, "pay_1", 3, EventType.PAYMENT_CONFIRMED, body, NOON)
    assert event_object(event) == {
        "id": "evt_1",
        "object": "event",
        "type": "payment.confirmed",
        "payment_id": "pay_1",
        "version": 3,
        "created_at": "2026-11-22T12:00:00Z",
        "data": body,
    }
