"""What sources of rates say, and all the ways in which they say nothing that can be used.

    one GET for each pair (Kraken) or for all (CoinGecko) │ status │ JSON │ an error inside │ the pair │ its number

Each step refuses what is not as the source documents it, with words for the operator that repeat nothing which could
hold a key. No number is ever a float: what JSON writes is read as text.
"""

import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from ctrip.domain.rates import Pair, Refusal, Told, parse_rate
from ctrip.errors import RateRefused
from ctrip.outbound.rate_pages import Number, RatePages, malformed
from ctrip.time_limits import TimeLimit

REQUEST_S, ROUND_S = 8.0, 20.0
"""How long one request may take, and all those of a round to one source."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GOES_ON = (Refusal.MALFORMED, Refusal.MISSING, Refusal.ABSURD)
"""What may be the matter with one pair alone: the next is asked for all the same."""
_SAYABLE = re.compile(r"[A-Za-z]{2,20}:[A-Za-z0-9 :]{1,60}", re.ASCII)
"""An error of Kraken, as it documents them."""


@dataclass(frozen=True)
class Answer:
    """What came of a round: a word for some pairs, a refusal for others, and what ended the round early, if anything.

    Pairs that stand in neither were not asked for any more.
    """

    told: Mapping[Pair, Told] = field(default_factory=dict)
    refused: Mapping[Pair, RateRefused] = field(default_factory=dict)
    failure: RateRefused | None = None


class RateSource(Protocol):
    """Somebody who says what coins are worth."""

    def ask(self, pairs: Sequence[Pair], *, asked_at: datetime) -> Answer:
        """Ask once for each pair, within ROUND_S. Raises nothing that a source could bring about."""
        ...


class Kraken:
    """The exchange's public ticker (https://docs.kraken.com/api/docs/rest-api/get-ticker-information).

    A pair comes back under another name than it was asked by, so each has a request of its own. The bid is taken, which
    is what a merchant could sell at. Kraken tells no time: it was so when it was asked.
    """

    name = "kraken"

    def __init__(self, url: str, *, request_s: float = REQUEST_S, trust: ssl.SSLContext | None = None) -> None:
        self._pages = RatePages(url, request_s=request_s, trust=trust)

    def ask(self, pairs: Sequence[Pair], *, asked_at: datetime) -> Answer:
        """Ask for one pair after the other, until the time is up or Kraken is not itself."""
        time_limit = TimeLimit(ROUND_S)
        told: dict[Pair, Told] = {}
        refused: dict[Pair, RateRefused] = {}
        for pair in pairs:
            try:
                told[pair] = Told(self.name, self._bid(pair, time_limit), asked_at)
            except RateRefused as error:
                if error.reason not in _GOES_ON:
                    return Answer(told, refused, failure=error)
                refused[pair] = error
        return Answer(told, refused)

    def _bid(self, pair: Pair, time_limit: TimeLimit) -> Decimal:
        target = "/0/public/Ticker?" + urlencode({"pair": f"{pair.base}{pair.currency}"})
        content = self._pages.read(target, headers={}, time_limit=time_limit)
        _refuse_error_of_kraken(content.get("error"))
        result = content.get("result")
        if not isinstance(result, dict) or len(result) != 1:
            raise malformed("its result is not that of one pair")
        ((name, ticker),) = result.items()
        bid = ticker.get("b") if isinstance(ticker, dict) else None
        # Its older assets are X and a code, its older currencies Z and one: ETHEUR comes back as XETHZEUR.
        is_it = re.fullmatch(f"X?{re.escape(pair.base)}Z?{pair.currency}", name) is not None
        if not is_it or not isinstance(bid, list) or not bid or type(bid[0]) is not str:
            raise malformed("it has no bid for the pair that was asked for")
        return parse_rate(bid[0])


class CoinGecko:
    """The aggregator's simple price (https://docs.coingecko.com/reference/simple-price): all pairs in one request.

    A key is the demo plan's, or the paid one's where the URL is that of the paid API.
    """

    name = "coingecko"

    def __init__(
        self, url: str, *, api_key: str | None, request_s: float = REQUEST_S, trust: ssl.SSLContext | None = None
    ) -> None:
        self._pages = RatePages(url, request_s=request_s, trust=trust)
        plan = "pro" if (urlsplit(url).hostname or "").startswith("pro-") else "demo"
        self._headers = {} if api_key is None else {f"x-cg-{plan}-api-key": api_key}

    def ask(self, pairs: Sequence[Pair], *, asked_at: datetime) -> Answer:  # noqa: ARG002 (CoinGecko tells the time itself)
        """Ask for all pairs at once."""
        wanted = {
            "ids": ",".join(sorted({pair.base for pair in pairs})),
            "vs_currencies": ",".join(sorted({pair.currency.lower() for pair in pairs})),
            "include_last_updated_at": "true",
            "precision": "full",
        }
        told: dict[Pair, Told] = {}
        refused: dict[Pair, RateRefused] = {}
        try:
            target = "/api/v3/simple/price?" + urlencode(wanted, safe=",")
            content = self._pages.read(target, headers=self._headers, time_limit=TimeLimit(ROUND_S))
            _refuse_error_of_coingecko(content)
        except RateRefused as error:
            return Answer(failure=error)
        for pair in pairs:
            try:
                told[pair] = self._word(content.get(pair.base), pair)
            except RateRefused as error:
                refused[pair] = error
        return Answer(told, refused)

    def _word(self, prices: Any, pair: Pair) -> Told:
        if prices is None:
            raise _missing()
        if not isinstance(prices, dict):
            raise malformed("what it says of the asset is no list of prices")
        price, moment = prices.get(pair.currency.lower()), prices.get("last_updated_at")
        if price is None:
            raise _missing()
        if not isinstance(price, Number) or not isinstance(moment, Number) or not re.fullmatch("[0-9]{1,10}", moment):
            raise malformed("its price or the time of it is no number")
        return Told(self.name, parse_rate(price), _EPOCH + timedelta(seconds=int(moment)))


class Static:
    """Rates that an operator wrote down: for development and tests."""

    name = "static"

    def __init__(self, rates: Mapping[Pair, Decimal]) -> None:
        self._rates = rates

    def ask(self, pairs: Sequence[Pair], *, asked_at: datetime) -> Answer:
        """Say what was written down, as of now."""
        return Answer(
            {pair: Told(self.name, self._rates[pair], asked_at) for pair in pairs if pair in self._rates},
            {pair: _missing() for pair in pairs if pair not in self._rates},
        )


def _refuse_error_of_kraken(errors: Any) -> None:
    """Refuse an answer of 200 that tells of an error. What begins with W is a warning beside a result."""
    if not isinstance(errors, list) or not all(type(error) is str for error in errors):
        raise malformed("it does not say whether there was an error")
    error = next((error for error in errors if not error.startswith("W")), None)
    if error is None:
        return
    if error.startswith("EQuery:"):
        raise _missing()
    is_limit = "Rate limit" in error or "Too many requests" in error
    said = f": {error}" if _SAYABLE.fullmatch(error) else ""
    raise RateRefused(f"it answered with an error{said}", reason=Refusal.LIMITED if is_limit else Refusal.ERROR)


def _refuse_error_of_coingecko(content: Mapping[str, Any]) -> None:
    """Refuse an answer of 200 that tells of an error. `status` is the id of a coin as well, which has no such code."""
    status = content.get("status")
    code = status.get("error_code") if isinstance(status, dict) else None
    if isinstance(code, Number):
        reason = Refusal.LIMITED if code == "429" else Refusal.ERROR
        raise RateRefused(f"it answered with an error, code {code[:9]}", reason=reason)
    if code is not None or isinstance(content.get("error"), str):
        raise RateRefused("it answered with an error", reason=Refusal.ERROR)


def _missing() -> RateRefused:
    return RateRefused("it does not know the pair", reason=Refusal.MISSING)
