"""Where the rates of fiat prices come from: variables, and what they and chains.yaml say together."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from urllib.parse import urlsplit

from ctrip.domain.chains import Chain, Token
from ctrip.domain.currencies import minor_digits
from ctrip.domain.rates import Pair, RatePolicy, pairs_of, parse_rate
from ctrip.errors import InvalidValue, RateRefused
from ctrip.settings.environment import Environment
from ctrip.settings.forms import PRODUCTION, Form, between

KRAKEN, COINGECKO, STATIC = "kraken", "coingecko", "static"
SOURCES = (KRAKEN, COINGECKO, STATIC)
MAX_PAIRS = 200
"""What one source is asked for in a round, at the most."""
MAX_CURRENCIES = 20
_CODE = re.compile(r"[A-Z]{3}", re.ASCII)
_FRACTION = re.compile(r"0\.[0-9]{1,6}", re.ASCII)
_STATIC = re.compile(r"([A-Za-z0-9._-]{1,32})/([A-Z]{3})=(\S{1,80})", re.ASCII)
_POLICY = RatePolicy(sources=(), least=1, oldest=timedelta(seconds=300), spread=Decimal("0.05"))


@dataclass(frozen=True)
class RateSettings:
    """Without `sources` prices are off. `quote` is for how long a chosen rate is locked, `refresh` the time between two
    rounds of questions to a source.
    """

    sources: tuple[str, ...] = ()
    currencies: tuple[str, ...] = ("EUR", "USD")
    static: Mapping[Pair, Decimal] = field(default_factory=dict)
    kraken_url: str = field(default="https://api.kraken.com", repr=False)
    coingecko_url: str = field(default="https://api.coingecko.com", repr=False)
    coingecko_api_key: str | None = field(default=None, repr=False)
    refresh: timedelta = timedelta(seconds=60)
    policy: RatePolicy = _POLICY
    quote: timedelta = timedelta(seconds=900)

    def currencies_of(self, asset: Token) -> tuple[str, ...]:
        """The currencies of prices that an asset may pay: none where it cannot be asked for, or no source knows it."""
        return self.currencies if asset.is_payable and self.policy.of(asset).sources else ()

    def secrets(self) -> tuple[str, ...]:
        """Tell what the logs have to strike out: the key, and paths of URLs, where a proxy's key may stand."""
        paths = (urlsplit(url).path.strip("/") for url in (self.kraken_url, self.coingecko_url))
        return tuple(filter(None, (self.coingecko_api_key, *paths)))


def read_rates(read: Environment, chains: Sequence[Chain], *, mode: str, asks_prices: bool) -> RateSettings:
    """Read the variables and note their faults, and what chains.yaml lacks for them.

    Whether each currency exists is looked up only where somebody `asks_prices`: the table costs memory.
    """
    default = RateSettings()
    sources = read.value("RATE_SOURCES", _SOURCES, ())
    policy = RatePolicy(
        sources=sources,
        least=read.value("RATE_LEAST_SOURCES", _LEAST, min(2, max(1, len(sources)))),
        oldest=read.value("RATE_MAX_AGE_SECONDS", _AGE, default.policy.oldest),
        spread=read.value("RATE_MAX_SPREAD", _SPREAD, default.policy.spread),
    )
    rates = RateSettings(
        sources=sources,
        currencies=read.value("PRICE_CURRENCIES", _CURRENCIES if asks_prices else _CODES, default.currencies),
        static=read.value("STATIC_RATES", _RATES, {}),
        kraken_url=read.value("KRAKEN_URL", _url(mode), default.kraken_url),
        coingecko_url=read.value("COINGECKO_URL", _url(mode), default.coingecko_url),
        coingecko_api_key=read.value("COINGECKO_API_KEY", _KEY, None),
        refresh=read.value("RATE_REFRESH_SECONDS", _REFRESH, default.refresh),
        policy=policy,
        quote=read.value("QUOTE_SECONDS", _QUOTE, default.quote),
    )
    for fault in _faults(rates, chains, mode=mode) if sources else ():
        read.fault(fault)
    return rates


def _faults(rates: RateSettings, chains: Sequence[Chain], *, mode: str) -> list[str]:
    """Say what does not hang together."""
    policy, found = rates.policy, []
    if STATIC in rates.sources and mode == PRODUCTION:
        found.append("RATE_SOURCES: static is for development and tests; kraken and coingecko tell the market's")
    if policy.least > len(rates.sources):
        found.append(f"RATE_LEAST_SOURCES: {policy.least} can never agree; RATE_SOURCES lists {len(rates.sources)}")
    if policy.oldest <= rates.refresh:
        found.append("RATE_MAX_AGE_SECONDS: every rate would be too old; it is more than RATE_REFRESH_SECONDS")
    pairs = pairs_of(chains, sources=rates.sources, currencies=rates.currencies)
    for source, asked in pairs.items():
        if len(asked) > MAX_PAIRS:
            found.append(
                f"PRICE_CURRENCIES: {source} would be asked for {len(asked)} pairs of an asset and a currency; "
                f"at most {MAX_PAIRS} are, so list fewer currencies here or fewer assets with rates in CHAINS_FILE"
            )
    missing = [str(pair) for pair in pairs.get(STATIC, ()) if pair not in rates.static]
    if missing:
        found.append(f"STATIC_RATES: lacks {', '.join(missing[:10])}; it has each asset in each of PRICE_CURRENCIES")
    return found + _unagreeable(rates, chains)


def _unagreeable(rates: RateSettings, chains: Sequence[Chain]) -> list[str]:
    """Name the assets of which too few sources know for as many to agree as must; those of which none does are free."""
    least = min(rates.policy.least, len(rates.sources))
    known = [
        (f"{token.symbol} of {chain.name}", len(rates.policy.of(token).sources))
        for chain in chains
        for token in chain.tokens
    ]
    return [
        f"CHAINS_FILE: {asset} has a name in its rates for {count} of RATE_SOURCES, and {least} must agree; "
        "name it for more of them, or for none"
        for asset, count in known
        if 0 < count < least
    ]


def _sources(text: str) -> tuple[str, ...]:
    return _different(text, most=len(SOURCES), known=SOURCES.__contains__)


def _codes(text: str) -> tuple[str, ...]:
    return _different(text, most=MAX_CURRENCIES, known=lambda code: _CODE.fullmatch(code) is not None)


def _currencies(text: str) -> tuple[str, ...]:
    codes = _codes(text)
    try:
        for code in codes:
            minor_digits(code)
    except InvalidValue as error:
        raise ValueError("currency") from error
    return codes


def _different(text: str, *, most: int, known: Callable[[str], bool]) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    if len(parts) > most or len(set(parts)) < len(parts) or not all(map(known, parts)):
        raise ValueError("list")
    return parts


def _rates(text: str) -> dict[Pair, Decimal]:
    found: dict[Pair, Decimal] = {}
    for part in text.split(","):
        match = _STATIC.fullmatch(part.strip())
        if match is None or (pair := Pair(match[1], match[2])) in found:
            raise ValueError("rate")
        try:
            found[pair] = parse_rate(match[3])
        except RateRefused as error:
            raise ValueError("rate") from error
    return found


def _url(mode: str) -> Form[str]:
    """Return the form of a source's address. What anybody on the way could change is no rate: TLS, in production."""
    schemes = ("https",) if mode == PRODUCTION else ("https", "http")

    def parse(text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in schemes or not parts.hostname or (parts.port or 1) < 1 or not text.isprintable():
            raise ValueError("address")
        if "@" in parts.netloc or parts.query or parts.fragment or not text.isascii() or " " in text:
            raise ValueError("address")
        return text.rstrip("/")

    return Form(f"it is the source's {' or '.join(schemes)} address, without user, password and query", parse)


def _spread(text: str) -> Decimal:
    if _FRACTION.fullmatch(text) is None or not 0 < Decimal(text) <= Decimal("0.5"):
        raise ValueError("fraction")
    return Decimal(text)


def _seconds(least: int, most: int) -> Form[timedelta]:
    right = f"it is a whole number of seconds, {least} to {most}"
    return Form(right, lambda text: timedelta(seconds=between(text, least, most)))


def _key(text: str) -> str:
    # It becomes a header's value: nothing that could end it.
    if not (text.isascii() and text.isprintable() and len(text) <= 200) or " " in text:
        raise ValueError("key")
    return text


_SOURCES: Form[tuple[str, ...]] = Form(f"it is a comma-separated list of {', '.join(SOURCES)}, each once", _sources)
_CODES: Form[tuple[str, ...]] = Form(
    f"it is a comma-separated list of 1 to {MAX_CURRENCIES} codes of ISO 4217, each once, such as EUR,USD", _codes
)
_CURRENCIES: Form[tuple[str, ...]] = Form(_CODES.right, _currencies)
_RATES: Form[Mapping[Pair, Decimal]] = Form("it is a comma-separated list such as ETH/EUR=3000,USDC/EUR=0.92", _rates)
_LEAST = Form(f"it is a whole number, 1 to {len(SOURCES)}", lambda text: between(text, 1, len(SOURCES)))
_SPREAD = Form("it is a fraction above 0, 0.5 at the most, such as 0.05", _spread)
_KEY: Form[str | None] = Form("it is the key as CoinGecko shows it", _key)
_REFRESH, _AGE, _QUOTE = _seconds(5, 3600), _seconds(10, 86_400), _seconds(60, 86_400)
