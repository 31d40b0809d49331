import json
from dataclasses import replace
from datetime import timedelta

import pytest

from ctrip.domain.events import Event, EventType
from ctrip.domain.webhooks import (
    LONGEST_RETRY_AFTER_S,
    Attempt,
    DeadReason,
    Delivery,
    DeliveryStatus,
    Outcome,
    body,
    delivery_object,
    next_attempt_at,
    outcome,
)
from tests.factories import NOON

GAPS_S = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""The example schedule of Standard Webhooks 1.0."""


def wait_s(attempt: int, *, random: float = 0.5, retry_after_s: int | None = None) -> float | None:
    due = next_attempt_at(attempt, gaps_s=GAPS_S, ended_at=NOON, retry_after_s=retry_after_s, random=random)
    return None if due is None else (due - NOON).total_seconds()


EVENT = Event(
    id="evt_1",
    merchant_id="mer_1",
    payment_id="pay_1",
    version=2,
    type=EventType.PAYMENT_DETECTED,
    body={"payment": {"id": "pay_1", "amount": "12.5"}, "previous_status": "pending"},
    created_at=NOON,
)
DELIVERY = Delivery(
    id="whd_1",
    event_id="evt_1",
    merchant_id="mer_1",
    payment_id="pay_1",
    endpoint_id=None,
    url="https://shop.example/hooks",
    status=DeliveryStatus.PENDING,
    attempts=2,
    next_attempt_at=NOON + timedelta(minutes=5),
    last_status_code=503,
    created_at=NOON,
)


def test_the_body_is_compact_json_with_the_keys_of_standard_webhooks_in_their_order() -> None:
    assert body(EVENT) == (
        b'{"id":"evt_1","type":"payment.detected","timestamp":"2026-11-22T12:00:00Z",'
        b'"data":{"payment":{"id":"pay_1","amount":"12.5"},"previous_status":"pending"}}'
    )


@pytest.mark.parametrize("text", ["é", "😀", "\ud800", "\x00", '"\\\n', "\u2028"])
def test_any_text_that_a_merchant_stored_can_be_posted_and_read_back(text: str) -> None:
    event = replace(EVENT, body={"payment": {"metadata": {text: text}}})
    assert body(event) == body(event)
    assert json.loads(body(event))["data"] == event.body


def test_ten_attempts_span_seventy_five_and_a_half_hours_and_then_none_follows() -> None:
    waits = [wait_s(attempt) for attempt in range(1, 11)]
    assert waits == [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400, None]
    assert sum(wait for wait in waits if wait is not None) == 75 * 3600 + 35 * 60 + 5


@pytest.mark.parametrize("attempt", range(1, 10))
@pytest.mark.parametrize(("random", "share"), [(0.0, 0.8), (0.25, 0.9), (0.5, 1.0), (0.75, 1.1), (0.999999, 1.2)])
def test_jitter_moves_a_gap_by_a_fifth_at_the_most(attempt: int, random: float, share: float) -> None:
    assert wait_s(attempt, random=random) == pytest.approx(GAPS_S[attempt] * share, rel=1e-5)


@pytest.mark.parametrize(
    ("asked_s", "waited_s"),
    [
        (None, 300),
        (0, 300),
        (299, 300),
        (301, 301),
        (3_600, 3_600),
        (LONGEST_RETRY_AFTER_S + 1, LONGEST_RETRY_AFTER_S),
        (10**9, LONGEST_RETRY_AFTER_S),
    ],
)
def test_retry_after_makes_a_wait_longer_within_a_bound_and_never_shorter(asked_s: int | None, waited_s: int) -> None:
    assert wait_s(2, retry_after_s=asked_s) == waited_s


def test_retry_after_does_not_add_an_attempt() -> None:
    assert wait_s(10, retry_after_s=60) is None


@pytest.mark.parametrize(
    ("status_code", "attempt", "expected"),
    [
        (200, 1, Outcome(DeliveryStatus.DELIVERED)),
        (204, 10, Outcome(DeliveryStatus.DELIVERED)),
        (299, 1, Outcome(DeliveryStatus.DELIVERED)),
        (199, 1, Outcome(DeliveryStatus.PENDING, NOON + timedelta(seconds=5))),
        (301, 1, Outcome(DeliveryStatus.PENDING, NOON + timedelta(seconds=5))),
        (304, 1, Outcome(DeliveryStatus.PENDING, NOON + timedelta(seconds=5))),
        (400, 1, Outcome(DeliveryStatus.PENDING, NOON + timedelta(seconds=5))),
        (404, 2, Outcome(DeliveryStatus.PENDING, NOON + timedelta(minutes=5))),
        (429, 1, Outcome(DeliveryStatus.PENDING, NOON + timedelta(seconds=5))),
        (503, 9, Outcome(DeliveryStatus.PENDING, NOON + timedelta(hours=24))),
        (None, 1, Outcome(DeliveryStatus.PENDING, NOON + timedelta(seconds=5))),
        (503, 10, Outcome(DeliveryStatus.DEAD, dead_reason=DeadReason.SCHEDULE)),
        (None, 10, Outcome(DeliveryStatus.DEAD, dead_reason=DeadReason.SCHEDULE)),
        (410, 1, Outcome(DeliveryStatus.DEAD, dead_reason=DeadReason.ENDPOINT_DISABLED)),
        (410, 10, Outcome(DeliveryStatus.DEAD, dead_reason=DeadReason.ENDPOINT_DISABLED)),
    ],
)
def test_the_status_line_and_the_schedule_decide_what_becomes_of_a_delivery(status_code, attempt, expected) -> None:
    result = outcome(status_code, attempt=attempt, gaps_s=GAPS_S, ended_at=NOON, retry_after_s=None, random=0.5)
    assert result == expected


def test_a_delivery_reads_as_the_contract_says() -> None:
    attempts = [
        Attempt(1, NOON, 15_001, error="the destination took too long"),
        Attempt(2, NOON + timedelta(seconds=5), 41, status_code=503, response="busy"),
    ]
    assert delivery_object(DELIVERY, attempts) == {
        "id": "whd_1",
        "object": "webhook_delivery",
        "event_id": "evt_1",
        "endpoint_id": None,
        "url": "https://shop.example/hooks",
        "status": "pending",
        "attempts": 2,
        "next_attempt_at": "2026-11-22T12:05:00Z",
        "last_status_code": 503,
        "history": [
            {
                "at": "2026-11-22T12:00:00Z",
                "status_code": None,
                "duration_ms": 15_001,
                "error": "the destination took too long",
                "response": None,
            },
            {
                "at": "2026-11-22T12:00:05Z",
                "status_code": 503,
                "duration_ms": 41,
                "error": None,
                "response": "busy",
            },
        ],
    }


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (DeliveryStatus.PENDING, "pending"),
        (DeliveryStatus.DELIVERED, "delivered"),
        (DeliveryStatus.DEAD, "dead"),
        (DeliveryStatus.FAILED, "dead"),
    ],
)
def test_clients_meet_three_statuses(status: DeliveryStatus, shown: str) -> None:
    assert delivery_object(replace(DELIVERY, status=status, next_attempt_at=None), [])["status"] == shown
