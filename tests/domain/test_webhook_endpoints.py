from datetime import timedelta

import pytest

from ctrip.domain.events import EventType
from ctrip.domain.webhook_endpoints import (
    FILTERS,
    GIVEN_UP_AFTER,
    DisabledReason,
    after_failure,
    check_events,
    filters_of,
)
from ctrip.domain.webhooks import is_slow
from ctrip.errors import InvalidValue
from tests.factories import NOON


def test_every_event_passes_through_its_own_type_its_noun_and_the_star() -> None:
    for event_type in EventType:
        assert set(filters_of(event_type)) <= set(FILTERS)
        assert str(event_type) in filters_of(event_type)
    assert filters_of(EventType.TRANSFER_UNEXPECTED) == ("*", "transfer.*", "transfer.unexpected")
    assert len(FILTERS) == len(set(FILTERS)) == 1 + 3 + len(EventType)


def test_filters_are_kept_once_in_their_order() -> None:
    assert check_events(["payment.late", "*", "payment.late"]) == ("payment.late", "*")


@pytest.mark.parametrize("wanted", [[], ["payment."], ["PAYMENT.*"], ["payment.*", "x" * 10_000]])
def test_other_filters_are_refused_in_few_words(wanted: list[str]) -> None:
    with pytest.raises(InvalidValue) as refused:
        check_events(wanted)
    assert refused.value.param == "events"
    assert len(refused.value.detail) < 1_000


@pytest.mark.parametrize(
    ("failed_for", "status_code", "reason"),
    [
        (None, 500, None),
        (None, None, None),
        (None, 410, DisabledReason.GONE),
        (timedelta(hours=119, minutes=59), 500, None),
        (GIVEN_UP_AFTER, 500, DisabledReason.FAILING),
        (GIVEN_UP_AFTER, None, DisabledReason.FAILING),
        (timedelta(days=30), 404, DisabledReason.FAILING),
        (timedelta(days=30), 410, DisabledReason.GONE),
    ],
)
def test_an_endpoint_is_given_up_when_it_is_gone_or_has_failed_for_five_days(failed_for, status_code, reason) -> None:
    began = None if failed_for is None else NOON - failed_for
    assert after_failure(began, status_code=status_code, at=NOON) == (began or NOON, reason)


@pytest.mark.parametrize(("duration_ms", "slow"), [(0, False), (4_999, False), (5_000, True), (15_000, True)])
def test_an_attempt_is_slow_that_takes_a_third_of_its_time(duration_ms: int, slow: bool) -> None:
    assert is_slow(duration_ms, timeout_s=15.0) is slow
