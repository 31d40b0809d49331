"""Webhooks as the Python client reads them: signed as the worker signs, and refused where that is not so."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from ctrip_client import CtripError, InvalidSignature, Webhooks
from standardwebhooks import Webhook

from ctrip.domain import webhooks
from ctrip.domain.events import Event, EventType
from ctrip.domain.payments import payment_object
from tests.factories import make_payment

SECRET, OTHER = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "QUJD" * 8


def posted(*, secret: str = SECRET, ago: timedelta = timedelta(0)) -> tuple[bytes, dict[str, str]]:
    """A webhook of a confirmed payment, as it is posted."""
    shown = payment_object(make_payment(order_id="1001", metadata={"name": "Zoë"}), read_block=20)
    event = Event(
        id="evt_1",
        merchant_id="mer_1",
        payment_id="pay_1",
        version=3,
        type=EventType.PAYMENT_CONFIRMED,
        body={"payment": shown, "previous_status": "detected"},
        created_at=datetime(2026, 11, 23, tzinfo=UTC),
    )
    body, at = webhooks.body(event), datetime.now(UTC) - ago
    signature = Webhook(secret).sign(event.id, at, body.decode())
    headers = {"Webhook-Id": event.id, "Webhook-Timestamp": str(int(at.timestamp())), "Webhook-Signature": signature}
    return body, headers


def test_a_webhook_becomes_an_event_with_its_payment() -> None:
    event = Webhooks(SECRET).event(*posted())
    assert (event.id, event.type, event.previous_status) == ("evt_1", "payment.confirmed", "detected")
    assert event.payment is not None
    assert (event.payment.order_id, event.payment.metadata) == ("1001", {"name": "Zoë"})
    assert event.at == datetime(2026, 11, 23, tzinfo=UTC)


def test_after_a_rotation_both_secrets_count() -> None:
    for secret in (SECRET, OTHER):
        assert Webhooks(SECRET, OTHER).event(*posted(secret=secret)).id == "evt_1"


@pytest.mark.parametrize(
    "bend",
    [
        lambda body, headers: (body.replace(b"1001", b"1002"), headers),
        lambda body, headers: (body, headers | {"Webhook-Id": "evt_2"}),
        lambda body, headers: (body, headers | {"Webhook-Timestamp": str(int(time.time()) + 1)}),
        lambda body, headers: (body, headers | {"Webhook-Timestamp": "soon"}),
        lambda body, headers: (body, headers | {"Webhook-Signature": "v1"}),
        lambda body, headers: (body, headers | {"Webhook-Signature": "v1,é"}),
        lambda body, headers: (body, headers | {"Webhook-Signature": ""}),
        lambda body, _: (body, {}),
        lambda _, headers: (b"\xff", headers),
        lambda *_: posted(secret=OTHER),
        lambda *_: posted(ago=timedelta(minutes=6)),
        lambda *_: posted(ago=timedelta(minutes=-6)),
    ],
)
def test_what_was_not_signed_so_is_not_believed(bend: object) -> None:
    body, headers = bend(*posted())  # type: ignore[operator]
    with pytest.raises(InvalidSignature):
        Webhooks(SECRET).event(body, headers)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_QQ", "sk_" + "A" * 64, "whsec_" + "!" * 8 + "QUJD" * 8, "QUJD" * 8]
)
def test_what_is_no_secret_is_said_at_once(secret: str) -> None:
    with pytest.raises(CtripError, match="whsec_"):
        Webhooks(secret)
