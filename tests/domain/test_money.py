from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctrip.domain.money import BASIS_POINTS, MAX_AMOUNT, format_amount, parse_amount, tolerated
from ctrip.errors import InvalidAmount

AMOUNTS = st.integers(1, MAX_AMOUNT)
DECIMALS = st.integers(0, 36)


@pytest.mark.parametrize(
    ("text", "decimals", "amount"),
    [
        ("12.50", 6, 12_500_000),
        ("12.5", 6, 12_500_000),
        ("0.000001", 6, 1),
        ("1", 0, 1),
        ("1", 18, 10**18),
        ("10", 18, 10**19),  # more than 64 bits
        ("115792089237316195423570985008687907853269984665640564039457.584007913129639935", 18, MAX_AMOUNT),
        (str(MAX_AMOUNT), 0, MAX_AMOUNT),
    ],
)
def test_a_plain_decimal_is_read_exactly(text: str, decimals: int, amount: int) -> None:
    assert parse_amount(text, decimals) == amount


@pytest.mark.parametrize(
    "text",
    [
        "-1",
        "+1",
        "0",
        "0.0",
        "0.000000",
        "-0",
        "",
        ".",
        ".5",
        "5.",
        "1.2.3",
        "1,5",
        "1e3",
        "1E3",
        "1e-3",
        "NaN",
        "nan",
        "Infinity",
        "inf",
        " 1",
        "1 ",
        "1\n",
        "1\t",
        "1_000",
        "0x10",
        "0b1",
        "01",
        "00.5",
        "\uff11",  # full-width digit
        "\u0661",  # Arabic-Indic digit
        "1\u066b5",  # Arabic decimal point
        "\u00b2",  # superscript
        "1.0000001",
        "1.0000000",
        "1.\uff15",
        "1\x00",
        "9" * 79,
        "1" + "0" * 78,
        "9" * 100_000,
    ],
)
def test_anything_else_is_no_amount(text: str) -> None:
    with pytest.raises(InvalidAmount) as refusal:
        parse_amount(text, 6)
    assert refusal.value.param == "amount"
    assert len(refusal.value.detail) < 400, "a refusal does not repeat a flood"


def test_an_amount_of_2_to_the_256_is_refused_whatever_the_decimals() -> None:
    for decimals in (0, 6, 18):
        with pytest.raises(InvalidAmount, match="256 bits"):
            parse_amount(format_amount(MAX_AMOUNT + 1, decimals), decimals)


@pytest.mark.parametrize(
    ("amount", "decimals", "text"),
    [
        (12_500_000, 6, "12.5"),
        (0, 6, "0"),
        (0, 0, "0"),
        (1, 18, "0.000000000000000001"),
        (10**18, 18, "1"),
        (100, 0, "100"),
        (10, 1, "1"),
        (5_000_000, 6, "5"),
    ],
)
def test_an_amount_is_written_as_short_as_it_is_exact(amount: int, decimals: int, text: str) -> None:
    assert format_amount(amount, decimals) == text


@given(AMOUNTS, DECIMALS)
def test_what_is_written_reads_as_the_same_amount(amount: int, decimals: int) -> None:
    text = format_amount(amount, decimals)
    assert parse_amount(text, decimals) == amount
    assert Fraction(text) * 10**decimals == amount


@given(AMOUNTS, st.integers(0, BASIS_POINTS - 1))
@example(1000, 100)
@example(999, 1)
@example(1, 9999)
def test_a_tolerance_never_gives_away_more_than_was_said(amount: int, tolerance_bps: int) -> None:
    least = tolerated(amount, tolerance_bps)
    assert 1 <= least <= amount
    assert (amount - least) * BASIS_POINTS <= amount * tolerance_bps, "no more is missing than is tolerated"
    assert (amount - least + 1) * BASIS_POINTS > amount * tolerance_bps, "and not a base unit less"


@pytest.mark.parametrize(
    ("amount", "tolerance_bps", "least"),
    [(1000, 0, 1000), (1000, 100, 990), (999, 1, 999), (10_001, 1, 10_000), (1, 9999, 1)],
)
def test_a_tolerance_is_rounded_in_favour_of_the_merchant(amount: int, tolerance_bps: int, least: int) -> None:
    assert tolerated(amount, tolerance_bps) == least
