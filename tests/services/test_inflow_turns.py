"""How often balances are looked at, and by whom: no dev chain is needed for that."""

from dataclasses import replace
from datetime import timedelta

import pytest

from ctrip.domain.loops import BALANCES_EVERY
from ctrip.services.inflows.rounds import SHORTEST_PACE, pace
from ctrip.services.inflows.witnesses import drawn
from tests.factories import make_chain


@pytest.mark.parametrize("endpoints", [2, 3, 5])
@pytest.mark.parametrize("runs_of_a_round", [1, 2, 3, 4, 8, 11, 13, 64])
def test_every_endpoint_looks_at_an_address_within_some_rounds_however_many_runs_a_round_has(
    endpoints: int, runs_of_a_round: int
) -> None:
    looks = [drawn(1 + number * runs_of_a_round, endpoints) for number in range(200)]
    seldom = 10 * endpoints
    assert all(set(looks[at : at + seldom]) == set(range(endpoints)) for at in range(200 - seldom))


def test_an_endpoint_that_is_alone_always_looks() -> None:
    assert {drawn(number, 1) for number in range(100)} == {0}


@pytest.mark.parametrize(
    ("to_finality_s", "poll_s", "calls", "rest_s"),
    [
        (900, 1, None, BALANCES_EVERY.total_seconds()),
        (24, 1, None, 12),
        (0, 1, None, SHORTEST_PACE.total_seconds()),
        (900, 60, None, 60),
        (900, 1, 1, 1),  # ten thousand addresses in a call
        (900, 1, 10, 10),
        (900, 1, 500, BALANCES_EVERY.total_seconds()),  # a call for each
        (900, 60, 500, 60),
    ],
)
def test_a_round_that_is_not_over_goes_on_with_a_call_each_second(
    to_finality_s: int, poll_s: int, calls: int | None, rest_s: float
) -> None:
    chain = replace(make_chain(), poll=timedelta(seconds=poll_s))
    assert pace(chain, to_finality=timedelta(seconds=to_finality_s), calls=calls) == timedelta(seconds=rest_s)
