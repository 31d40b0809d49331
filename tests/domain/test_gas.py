"""Prices: what a transaction offers first, and what its replacements offer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrip.domain.gas import (
    Fees,
    Price,
    at_most,
    exact_price_now,
    gas_limit_for,
    is_taken,
    price_now,
    raised,
)

GWEI = 10**9
CEILING = 200 * GWEI


def fees(base_fee: int | None, tip: int = 0, gas_price: int = 0) -> Fees:
    return Fees(base_fee=base_fee, priority_fee=tip, gas_price=gas_price)


@pytest.mark.parametrize(
    ("market", "lasting", "exact"),
    [
        (fees(20 * GWEI, GWEI), Price(41 * GWEI, GWEI), Price(26 * GWEI, 26 * GWEI)),
        (fees(120 * GWEI, GWEI), Price(200 * GWEI, GWEI), Price(151 * GWEI, 151 * GWEI)),  # cut at the ceiling
        (fees(200 * GWEI, GWEI), Price(200 * GWEI, GWEI), Price(200 * GWEI, 200 * GWEI)),
        (fees(200 * GWEI + 1, GWEI), None, None),  # even the base fee is above it
        (fees(7), Price(14, 0), Price(9, 9)),  # a dev chain at rest; 7 × 5/4 is rounded up
        (fees(0), Price(1, 0), Price(1, 1)),
        (fees(1, 300 * GWEI), Price(CEILING, CEILING), Price(CEILING, CEILING)),  # a tip never exceeds the maximum
        (fees(None, gas_price=5 * GWEI), Price(5 * GWEI, None), Price(5 * GWEI, None)),  # no EIP-1559
        (fees(None, gas_price=201 * GWEI), None, None),
        (fees(None, gas_price=0), Price(1, None), Price(1, None)),
    ],
)
def test_a_first_price_follows_the_market_up_to_the_ceiling(
    market: Fees, lasting: Price | None, exact: Price | None
) -> None:
    assert price_now(market, ceiling=CEILING) == lasting
    assert exact_price_now(market, ceiling=CEILING) == exact


@pytest.mark.parametrize(
    ("old", "now", "new"),
    [
        (Price(80, 8), Price(80, 8), Price(91, 10)),  # an eighth more and one wei, on both
        (Price(81, 8), Price(0, 0), Price(93, 10)),  # rounded up
        (Price(80, 8), Price(120, 50), Price(120, 50)),  # today's market where that is more
        (Price(80, 8), Price(120, 9), Price(120, 10)),  # each fee by itself
        (Price(80, 80), Price(100, 100), Price(100, 100)),  # an exact price stays exact
        (Price(80, 80), Price(10, 10), Price(91, 91)),
        (Price(80, None), Price(70, None), Price(91, None)),  # a chain without EIP-1559
        (Price(177, 8), Price(100, 8), None),  # 201 would be above the ceiling of 200
        (Price(176, 8), Price(100, 8), Price(199, 10)),
        (Price(80, 8), None, None),  # the market is above it
    ],
)
def test_a_replacement_offers_an_eighth_more_on_both_fees(old: Price, now: Price | None, new: Price | None) -> None:
    assert raised(old, now, ceiling=200) == new


@given(
    max_fee=st.integers(1, 10**12),
    tip=st.integers(0, 10**12),
    base_fee=st.integers(0, 10**12),
    market_tip=st.integers(0, 10**12),
)
def test_no_node_refuses_a_replacement_as_underpriced(max_fee: int, tip: int, base_fee: int, market_tip: int) -> None:
    old = Price(max_fee, min(tip, max_fee))
    now = price_now(fees(base_fee, market_tip), ceiling=10**13)
    new = raised(old, now, ceiling=10**14)
    assert now is not None and new is not None and new.priority_fee is not None and old.priority_fee is not None
    assert new.max_fee * 8 >= old.max_fee * 9
    assert new.priority_fee * 8 >= old.priority_fee * 9
    assert new.priority_fee <= new.max_fee


@pytest.mark.parametrize(
    ("price", "market", "taken"),
    [
        (Price(10, 1), fees(10), True),
        (Price(10, 1), fees(11), False),
        (Price(10, None), fees(None, gas_price=10), True),
        (Price(10, None), fees(None, gas_price=11), False),
    ],
)
def test_a_price_is_taken_while_the_base_fee_is_not_above_it(price: Price, market: Fees, *, taken: bool) -> None:
    assert is_taken(price, market) is taken


def test_a_price_is_lowered_to_what_can_be_paid() -> None:
    assert at_most(Price(100, 50), 70) == Price(70, 50)
    assert at_most(Price(100, 50), 30) == Price(30, 30)
    assert at_most(Price(100, None), 70) == Price(70, None)


def test_only_a_plain_transfer_of_coin_has_a_gas_limit_without_margin() -> None:
    assert [gas_limit_for(used) for used in (21_000, 21_001, 50_000)] == [21_000, 26_252, 62_500]
