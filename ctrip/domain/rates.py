"""What a coin is worth in a currency: what sources told, on what they agree, and how much of it a price asks for.

    told by each source ──too old, from the future, absurd──> refused
            └─ median of the rest ──farther from it than `spread`──> refused
                      └─ median of what is left, where that are `least` and more ──> the rate;  otherwise an error

No rate is ever made up: where too few sources agree there is none. All of it is exact; nothing here is rounded but the
amount, once, up to the asset's base unit, which is in the merchant's favour.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Context as Arithmetic
from decimal import Decimal, Inexact
from enum import StrEnum
from fractions import Fraction

from ctrip.domain.chains import Chain, Token
from ctrip.domain.currencies import minor_digits
from ctrip.domain.money import MAX_AMOUNT, parse_amount
from ctrip.domain.times import timestamp
from ctrip.errors import InvalidAmount, RateRefused, RateUnavailableError

LEAST_RATE, MOST_RATE = Decimal("1e-12"), Decimal("1e12")
"""What a whole coin may be worth, in units of a currency. Beyond it a source is broken, or the asset is."""
MAX_PRICE = Decimal(10**15)
"""The largest price, in units of its currency."""
SKEW = timedelta(seconds=60)
"""How far a source's clock may be ahead of ours."""
_NUMBER = re.compile(r"[0-9]{1,30}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_EXACT = Arithmetic(prec=400, traps=[Inexact])
"""Has room for half the sum of any two rates that `parse_rate` lets pass."""


class Refusal(StrEnum):
    """Why a source's word could not be used."""

    UNREACHABLE = "unreachable"  # no answer, or none in time
    LIMITED = "limited"  # it wants to be asked less often
    STATUS = "status"  # an answer, and not 200
    MALFORMED = "malformed"  # not what the source is documented to say: HTML, cut JSON, other types, too much of it
    ERROR = "error"  # 200 with an error inside
    MISSING = "missing"  # it does not know the pair
    ABSURD = "absurd"  # nought, less than nothing, no number, beyond LEAST_RATE and MOST_RATE


@dataclass(frozen=True)
class Pair:
    """What a source is asked for: an asset by the name that this source knows it by, and a currency."""

    base: str
    currency: str

    def __str__(self) -> str:
        return f"{self.base}/{self.currency}"


@dataclass(frozen=True)
class Told:
    """One source's word: what one whole coin is worth in units of the currency, and when the source says it was so."""

    source: str
    rate: Decimal
    as_of: datetime


@dataclass(frozen=True)
class Rate:
    """What was agreed on, by those in `told`, in the order of the policy. `as_of` is that of the oldest of them."""

    rate: Decimal
    told: tuple[Told, ...]
    as_of: datetime


@dataclass(frozen=True)
class RatePolicy:
    """Whom to believe. At least `least` of the `sources` must agree, with words no older than `oldest`.

    `spread` is the fraction of the median by which a word may differ from it: 0.05 is 5 %.
    """

    sources: tuple[str, ...]
    least: int
    oldest: timedelta
    spread: Decimal

    def of(self, asset: Token) -> "RatePolicy":
        """Return whom to believe about an asset: those of the sources that know it."""
        return replace(self, sources=tuple(source for source in self.sources if source in asset.rate_names))


@dataclass(frozen=True)
class Quoted:
    """An asset of a chain in a currency: what each source told, and what they agree on; where nothing, why not."""

    chain: str
    symbol: str
    currency: str
    told: tuple[Told, ...]
    rate: Rate | None
    refusal: str | None


def agree(told: Iterable[Told], policy: RatePolicy, now: datetime, *, pair: str = "this asset") -> Rate:
    """Return what the sources of the policy agree on. A source has one voice: its newest word.

    Raises RateUnavailableError, which names the `pair` and what is the matter with each source, where fewer than
    `policy.least` are fresh and near enough to their median. Of two that disagree nobody can say who is right: both
    are as far from their median, so neither is believed.
    """
    words = {each.source: each for each in sorted(told, key=lambda each: each.as_of)}
    faults = {source: _fault(words.get(source), policy, now) for source in policy.sources}
    fresh = [words[source] for source in policy.sources if faults[source] is None]
    middle = _median([each.rate for each in fresh]) if fresh else Decimal(0)
    room = Fraction(policy.spread) * Fraction(middle)
    near = [each for each in fresh if abs(Fraction(each.rate) - Fraction(middle)) <= room]
    if len(near) >= max(1, policy.least):
        return Rate(_median([each.rate for each in near]), tuple(near), min(each.as_of for each in near))
    far = {each.source: f"{plain(each.rate)} is an outlier" for each in fresh if each not in near}
    said = {each.source: f"says {plain(each.rate)}" for each in near}
    reasons = ", ".join(f"{source} {faults[source] or (far | said)[source]}" for source in policy.sources)
    raise RateUnavailableError(
        f"there is no rate for {pair}: {len(near)} of {len(policy.sources)} sources agree, {max(1, policy.least)} must "
        f"({reasons or 'there are none'})"
    )


def survey(
    words: Mapping[tuple[str, Pair], Told],
    chains: Iterable[Chain],
    *,
    currencies: Iterable[str],
    policy: RatePolicy,
    now: datetime,
) -> list[Quoted]:
    """Say of each asset that some source knows, in each currency, what is agreed on, or why nothing is.

    `words` are what each source told of each pair.
    """
    found = []
    wanted = list(currencies)
    for chain, token in _payable(chains):
        for currency in wanted if policy.of(token).sources else ():
            pairs = [(source, Pair(token.rate_names[source], currency)) for source in policy.of(token).sources]
            told = tuple(words[pair] for pair in pairs if pair in words)
            rate, refusal = None, None
            try:
                rate = agree(told, policy.of(token), now, pair=f"{token.symbol}/{currency}")
            except RateUnavailableError as error:
                refusal = error.detail
            found.append(Quoted(chain.name, token.symbol, currency, told, rate, refusal))
    return found


def pairs_of(chains: Iterable[Chain], *, sources: Iterable[str], currencies: Iterable[str]) -> dict[str, list[Pair]]:
    """Return what each source has to be asked for, each pair once: one asset may be on several chains."""
    tokens = [token for _, token in _payable(chains)]
    wanted = list(currencies)
    return {
        source: list(
            dict.fromkeys(
                Pair(token.rate_names[source], currency)
                for token in tokens
                if source in token.rate_names
                for currency in wanted
            )
        )
        for source in sources
    }


def amount_atomic(price: Decimal, rate: Decimal, decimals: int) -> int:
    """Return how many base units of an asset a price asks for: the fewest that are worth no less than it.

    `price` is in units of a currency, `rate` in units of it for one whole coin, as `agree` returns it. Raises
    InvalidAmount where they do not fit into 256 bits.
    """
    unit: int = 10**decimals
    exact = Fraction(price) / Fraction(rate) * unit
    amount = -(-exact.numerator // exact.denominator)
    if not 0 < amount <= MAX_AMOUNT:
        raise InvalidAmount("the amount that this price asks for does not fit into 256 bits", param="price")
    return amount


def parse_price(text: str, currency: str) -> Decimal:
    """Read a price such as `"49.90"` in a currency of ISO 4217, exactly, with no more digits than the currency has.

    As strict as `parse_amount` is. Raises InvalidAmount for what is no plain decimal above nought and up to MAX_PRICE,
    and InvalidValue for what is no currency.
    """
    parse_amount(text, minor_digits(currency), of=currency, param="price")
    price = Decimal(text)
    if price > MAX_PRICE:
        raise InvalidAmount(f"the price is larger than {MAX_PRICE}", param="price")
    return price


def parse_rate(text: str) -> Decimal:
    """Read a rate as sources write numbers, exponents included, exactly. Raises RateRefused: it is absurd."""
    if _NUMBER.fullmatch(text) is None or not is_sane(rate := Decimal(text)):
        raise RateRefused(f"{text[:40]!a} is no rate between {LEAST_RATE:f} and {MOST_RATE:f}", reason=Refusal.ABSURD)
    return rate


def is_sane(rate: Decimal) -> bool:
    """True for what a coin may be worth: no nought, no NaN, nothing below LEAST_RATE or above MOST_RATE."""
    return rate.is_finite() and LEAST_RATE <= rate <= MOST_RATE


def plain(rate: Decimal) -> str:
    """Write a rate without an exponent, as short as it is exact."""
    text = f"{rate:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def quoted_object(quoted: Quoted, now: datetime) -> dict[str, object]:
    """Render it as operators see it."""
    return {
        "chain": quoted.chain,
        "token": quoted.symbol,
        "currency": quoted.currency,
        "rate": None if quoted.rate is None else plain(quoted.rate.rate),
        "as_of": None if quoted.rate is None else timestamp(quoted.rate.as_of),
        "refusal": quoted.refusal,
        "told": [_told_object(told, now) for told in quoted.told],
    }


def _told_object(told: Told, now: datetime) -> dict[str, object]:
    return {
        "source": told.source,
        "rate": plain(told.rate),
        "as_of": timestamp(told.as_of),
        "age_seconds": int((now - told.as_of).total_seconds()),
    }


def _payable(chains: Iterable[Chain]) -> Iterator[tuple[Chain, Token]]:
    for chain in chains:
        yield from ((chain, token) for token in chain.tokens if chain.enabled and token.is_payable)


def _fault(told: Told | None, policy: RatePolicy, now: datetime) -> str | None:
    """Say what is the matter with a word, whatever others say; None where nothing is."""
    if told is None:
        return "is silent"
    if not is_sane(told.rate):
        return "is absurd"
    if told.as_of > now + SKEW:
        return f"speaks from the future, {timestamp(told.as_of)}"
    if told.as_of < now - policy.oldest:
        return f"is stale since {timestamp(told.as_of)}"
    return None


def _median(rates: Sequence[Decimal]) -> Decimal:
    """Return the middle one, or half the sum of the two in the middle, exactly."""
    ordered, half = sorted(rates), len(rates) // 2
    if len(rates) % 2:
        return ordered[half]
    return _EXACT.divide(_EXACT.add(ordered[half - 1], ordered[half]), Decimal(2))
