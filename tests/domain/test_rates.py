"""What sources tell becomes a rate, or an error that says why not; a price becomes base units, never too few."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Token
from ctrip.domain.currencies import minor_digits
from ctrip.domain.money import MAX_AMOUNT
from ctrip.domain.rates import (
    LEAST_RATE,
    MAX_PRICE,
    MOST_RATE,
    SKEW,
    Pair,
    RatePolicy,
    Told,
    agree,
    amount_atomic,
    pairs_of,
    parse_price,
    parse_rate,
    plain,
    survey,
)
from ctrip.errors import InvalidAmount, InvalidValue, RateRefused, RateUnavailableError
from tests.factories import TOKEN, make_chain

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAMES = ("kraken", "coingecko", "third", "fourth", "fifth")
MINUTES_5 = timedelta(minutes=5)
RATES = st.decimals(LEAST_RATE, MOST_RATE, allow_nan=False).map(lambda rate: min(max(rate, LEAST_RATE), MOST_RATE))


def policy(sources: int = 2, least: int | None = None, spread: str = "0.05") -> RatePolicy:
    return RatePolicy(NAMES[:sources], min(2, sources) if least is None else least, MINUTES_5, Decimal(spread))


def told(*rates: str | Decimal | None, as_of: datetime = NOON) -> list[Told]:
    """The words of the sources in their order; None: that one is silent."""
    return [Told(name, Decimal(rate), as_of) for name, rate in zip(NAMES, rates, strict=False) if rate is not None]


def refusal(words: Sequence[Told], of: RatePolicy) -> str:
    with pytest.raises(RateUnavailableError) as refused:
        agree(words, of, NOON, pair="ETH/EUR")
    return refused.value.detail


# --- on what sources agree ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "agreed", "used"),
    [
        (["3000"], "3000", 1),
        (["3000", "3010"], "3005", 2),
        (["3000", "3010.01"], "3005.005", 2),
        (["3000", "3010", "3002"], "3002", 3),
        (["3000", "3010", "3002", "3003"], "3002.5", 4),
        (["3000", "3010", "3002", "3003", "2990"], "3002", 5),
        # An outlier is left out, and what is left has another median.
        (["3000", "3010", "30"], "3005", 2),
        (["3000", "3010", "3e12"], "3005", 2),
        (["3000", "3010", "3002", "1"], "3002", 3),
        (["100", "105", "95"], "100", 3),  # as far as may be
        (["100", "105.0000000000000000001", "95"], "97.5", 2),
        # Few digits, many digits: nothing is rounded.
        (["0.000000000001", "0.00000000000102"], "0.00000000000101", 2),
        (["1.00000000000000000000000000000000000001", "1"], "1.000000000000000000000000000000000000005", 2),
        (["999999999999.9999999999999999999999", "999999999999.9999999999999999999998"], None, 2),
    ],
)
def test_the_median_of_those_that_are_near_it_is_the_rate(rates: list[str], agreed: str | None, used: int) -> None:
    words = told(*(rate if Decimal(rate) <= MOST_RATE else MOST_RATE for rate in rates))
    for order in (words, words[::-1]):
        rate = agree(order, policy(len(rates)), NOON)
        assert agreed is None or rate.rate == Decimal(agreed)
        assert len(rate.told) == used
        assert set(rate.told) <= set(words)
    if agreed is None:
        assert Fraction(rate.rate) == sum(Fraction(each) for each in rates) / 2


def test_a_rate_is_as_old_as_the_oldest_word_in_it() -> None:
    older = Told("coingecko", Decimal(3001), NOON - timedelta(minutes=4))
    assert agree([*told("3000"), older], policy(), NOON).as_of == older.as_of
    outlier = Told("third", Decimal(1), NOON - MINUTES_5)
    assert agree([*told("3000"), older, outlier], policy(3), NOON).as_of == older.as_of, "what is not used has no age"


@pytest.mark.parametrize(
    ("words", "of", "said"),
    [
        ([], policy(1), "0 of 1 sources agree, 1 must (kraken is silent)"),
        ([], policy(0), "0 of 0 sources agree, 1 must (there are none)"),
        (told("3000"), policy(), "1 of 2 sources agree, 2 must (kraken says 3000, coingecko is silent)"),
        (told("3000", "3330"), policy(), "kraken 3000 is an outlier, coingecko 3330 is an outlier"),
        (told("3000", "3330"), policy(least=1), "0 of 2 sources agree, 1 must (kraken 3000 is an outlier"),
        (told("1", "1", "2", "2"), policy(4), "fourth 2 is an outlier"),
        (told("100", "200", "300"), policy(3), "kraken 100 is an outlier, coingecko says 200, third 300 is an outlier"),
        (told("3000", "0"), policy(), "coingecko is absurd"),
        (told("3000", "-3000"), policy(), "coingecko is absurd"),
        (told("3000", "NaN"), policy(), "coingecko is absurd"),
        (told("3000", "Infinity"), policy(), "coingecko is absurd"),
        (told("3000", "1000000000000.1"), policy(), "coingecko is absurd"),
        (told("3000", "0.0000000000009"), policy(), "coingecko is absurd"),
        (
            told("3000", "3001", as_of=NOON - MINUTES_5 - timedelta(seconds=1)),
            policy(),
            "kraken is stale since 2026-11-22T11:54:59Z, coingecko is stale since 2026-11-22T11:54:59Z",
        ),
        (
            told("3000", as_of=NOON + SKEW + timedelta(seconds=1)),
            policy(1),
            "kraken speaks from the future, 2026-11-22T12:01:01Z",
        ),
    ],
)
def test_where_too_few_agree_there_is_no_rate_and_each_is_said_why(
    words: list[Told], of: RatePolicy, said: str
) -> None:
    message = refusal(words, of)
    assert message.startswith("there is no rate for ETH/EUR: ")
    assert said in message


def test_a_word_may_be_as_old_and_as_early_as_is_said_and_no_more() -> None:
    assert agree(told("3000", as_of=NOON - MINUTES_5), policy(1), NOON).rate == 3000
    assert agree(told("3000", as_of=NOON + SKEW), policy(1), NOON).rate == 3000


def test_a_source_has_one_voice_and_it_is_the_newest() -> None:
    older = [Told("kraken", Decimal(rate), NOON - timedelta(seconds=1)) for rate in (1, 2)]
    assert agree([*told("3000", "3001"), *older], policy(), NOON).told == tuple(told("3000", "3001"))
    assert "kraken says 3000, coingecko is silent" in refusal([*told("3000"), *older], policy())


def test_nobody_beside_the_policys_sources_is_heard() -> None:
    assert "coingecko is silent" in refusal([*told("3000"), Told("stranger", Decimal(3000), NOON)], policy())
    asset = Token("ETH", NATIVE, 18, rate_names={"coingecko": "ethereum", "stranger": "ETH"})
    assert policy(3).of(asset).sources == ("coingecko",)


@given(st.lists(RATES, min_size=1, max_size=5), st.sampled_from(["0.05", "0.000001", "0.5"]))
def test_a_rate_that_is_agreed_on_lies_among_words_that_are_near_each_other(rates: list[Decimal], spread: str) -> None:
    of = policy(len(rates), spread=spread)
    try:
        rate = agree(told(*rates), of, NOON)
    except RateUnavailableError:
        return
    used = [Fraction(each.rate) for each in rate.told]
    assert len(used) >= of.least
    assert min(used) <= Fraction(rate.rate) <= max(used)
    room = Fraction(of.spread)
    assert max(used) * (1 - room) <= min(used) * (1 + room)


# --- what a price asks for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "rate", "decimals", "amount"),
    [
        ("49.90", "0.92", 6, 54_239_131),  # 54.2391304…
        ("49.90", "1", 6, 49_900_000),
        ("0.01", "3012.1", 18, 3_319_942_896_983),  # 3319942896982.17…
        ("1", "3", 18, 333_333_333_333_333_334),
        ("3", "3", 18, 10**18),
        ("500", "440000", 18, 1_136_363_636_363_637),  # yen for coin
        ("0.001", "0.307", 6, 3258),  # a thousandth of a dinar: 3257.3…
        ("1", "3", 0, 1),
        ("0.01", "1000000000000", 0, 1),  # a base unit at the least
        ("0.01", "0.000000000001", 18, 10**28),
        ("1000000000000000", "0.000000000001", 18, 10**45),
        ("49.90", "0.9199999999999999999999999999999999999999", 6, 54_239_131),
        ("0.92", "0.9199999999999999999999999999999999999999", 6, 1_000_001),  # one digit less than a whole coin
    ],
)
def test_an_amount_is_rounded_up_to_the_base_unit(price: str, rate: str, decimals: int, amount: int) -> None:
    with localcontext(prec=1):  # whatever others have set
        assert amount_atomic(Decimal(price), Decimal(rate), decimals) == amount


PRICES = st.decimals("0.0001", MAX_PRICE, places=4).filter(lambda price: price > 0)


@given(PRICES, RATES, st.integers(0, 36))
@example(Decimal("49.90"), Decimal("0.92"), 6)
@example(Decimal("0.01"), MOST_RATE, 0)
@example(MAX_PRICE, LEAST_RATE, 36)
def test_an_amount_is_worth_the_price_and_a_base_unit_less_is_not(price: Decimal, rate: Decimal, decimals: int) -> None:
    amount = amount_atomic(price, rate, decimals)
    unit = Fraction(rate) / 10**decimals
    assert amount * unit >= Fraction(price)
    assert (amount - 1) * unit < Fraction(price)


def test_what_does_not_fit_into_256_bits_is_refused() -> None:
    assert amount_atomic(MAX_PRICE, LEAST_RATE, 50) == 10**77
    for price, decimals in ((MAX_PRICE, 51), (Decimal(0), 6), (Decimal(-1), 6)):
        with pytest.raises(InvalidAmount, match="256 bits"):
            amount_atomic(price, LEAST_RATE, decimals)
    assert 10**77 < MAX_AMOUNT < 10**78


# --- prices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        *(("49.90", "EUR"), ("49.9", "EUR"), ("0.01", "USD"), ("500", "JPY"), ("1", "JPY"), ("0.001", "KWD")),
        *(("1.234", "KWD"), ("0.0001", "CLF"), (str(MAX_PRICE), "JPY"), (f"{MAX_PRICE}.00", "EUR")),
    ],
)
def test_a_price_is_read_exactly(text: str, currency: str) -> None:
    assert str(parse_price(text, currency)) == text


@pytest.mark.parametrize(
    ("text", "currency", "words"),
    [
        ("49.999", "EUR", "3 digits after the point; EUR has 2"),
        ("49.900", "EUR", "3 digits after the point; EUR has 2"),
        ("500.0", "JPY", "1 digits after the point; JPY has 0"),
        ("1.2345", "KWD", "4 digits after the point; KWD has 3"),
        ("0", "EUR", "greater than zero"),
        ("0.00", "EUR", "greater than zero"),
        (f"{MAX_PRICE}.01", "EUR", "larger than 1000000000000000"),
        ("9" * 77, "JPY", "larger than"),
        *((text, "EUR", "no plain decimal") for text in ("-1", "+1", "1e3", " 1", "1 ", "1\n", "1,50", "", ".5", "5.")),
        *((text, "EUR", "no plain decimal") for text in ("NaN", "Infinity", "01", "1_0", "\uff11", "0x1", "9" * 999)),
    ],
)
def test_anything_else_is_no_price(text: str, currency: str, words: str) -> None:
    with pytest.raises(InvalidAmount, match=words) as refused:
        parse_price(text, currency)
    assert refused.value.param == "price"
    assert len(refused.value.detail) < 400


@pytest.mark.parametrize(
    "code", ["eur", "EURO", "EU", "", "XAU", "XXX", "XTS", "DEM", "BTC", "E\u00dcR", " EUR", "978"]
)
def test_what_is_no_currency_has_no_digits(code: str) -> None:
    with pytest.raises(InvalidValue, match="no currency of ISO 4217"):
        parse_price("1", code)


def test_the_digits_are_those_of_iso_4217() -> None:
    digits = {"EUR": 2, "USD": 2, "CHF": 2, "JPY": 0, "KRW": 0, "ISK": 0, "KWD": 3, "TND": 3, "CLF": 4}
    assert {code: minor_digits(code) for code in digits} == digits


# --- rates as they are written --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("3012.10000", "3012.1"),
        ("3e3", "3000"),
        ("1.5E-7", "0.00000015"),
        ("1e-12", "0.000000000001"),
        ("1e+12", "1000000000000"),
        ("0.9999999999999999999999999999", "0.9999999999999999999999999999"),
        ("100", "100"),
    ],
)
def test_a_rate_is_read_exactly_and_written_plainly(text: str, written: str) -> None:
    rate = parse_rate(text)
    assert Fraction(rate) == Fraction(text)
    assert plain(rate) == written


@pytest.mark.parametrize(
    "text",
    [
        *("0", "0.0", "-1", "+1", "NaN", "Infinity", "-Infinity", "nan", "sNaN", "", " ", "1 ", " 1", "1\n", "1,000"),
        *("1e", "e5", ".5", "5.", "0x1", "1_0", "\uff11", "1e-13", "1.1e12", "9e99", "1e999999999999", "9" * 31),
        *("0." + "1" * 41, "3012.1.1", "true", "null", "1" * 10_000),
    ],
)
def test_anything_else_is_absurd(text: str) -> None:
    with pytest.raises(RateRefused, match="is no rate between") as refused:
        parse_rate(text)
    assert refused.value.reason == "absurd"
    assert len(refused.value.detail) < 200


# --- what is asked for ----------------------------------------------------------------------------------------------


def test_each_source_is_asked_once_for_what_it_knows_of_all_chains() -> None:
    ether = Token("ETH", NATIVE, 18, rate_names={"kraken": "ETH", "coingecko": "ethereum"})
    dollar = Token("USDC", TOKEN, 6, rate_names={"kraken": "USDC"})
    taxed = Token("TAX", b"\x72" * 20, 6, rate_names={"kraken": "TAX"}, fee_on_transfer=True)
    chains = [
        make_chain(tokens=(ether, dollar, taxed, Token("NONE", b"\x73" * 20, 6))),
        make_chain(name="other", chain_id=10, tokens=(ether,)),
        make_chain(
            name="resting", chain_id=11, enabled=False, tokens=(Token("OFF", NATIVE, 18, rate_names={"kraken": "O"}),)
        ),
    ]
    assert pairs_of(chains, sources=("kraken", "coingecko"), currencies=("EUR", "JPY")) == {
        "kraken": [Pair("ETH", "EUR"), Pair("ETH", "JPY"), Pair("USDC", "EUR"), Pair("USDC", "JPY")],
        "coingecko": [Pair("ethereum", "EUR"), Pair("ethereum", "JPY")],
    }
    words = {
        ("kraken", Pair("ETH", "EUR")): told("3000")[0],
        ("coingecko", Pair("ethereum", "EUR")): told(None, "3010")[0],
        ("kraken", Pair("USDC", "EUR")): told("0.92")[0],
    }
    found = survey(words, chains, currencies=("EUR",), policy=policy(), now=NOON)
    rates = {(each.chain, each.symbol): each.rate and each.rate.rate for each in found}
    assert rates == {("anvil", "ETH"): 3005, ("anvil", "USDC"): None, ("other", "ETH"): 3005}
    refused = next(each.refusal for each in found if each.rate is None)
    assert refused == "there is no rate for USDC/EUR: 1 of 1 sources agree, 2 must (kraken says 0.92)"
