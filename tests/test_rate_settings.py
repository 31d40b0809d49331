"""Settings of rates: which sources are asked, what for, whom to believe; what does not hang together is refused."""

import re
from dataclasses import fields
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ctrip.domain.rates import Pair
from ctrip.errors import MisconfiguredError
from ctrip.settings import Role, Settings, load_settings
from ctrip.settings.chains import read_chains
from ctrip.settings.rates import RateSettings
from tests.conftest import ROOT
from tests.test_settings import EVERYTHING, USDC, chains_file

NAMES = {"kraken": "ETH", "coingecko": "ethereum", "static": "ETH"}
TWO = {"RATE_SOURCES": "kraken, coingecko"}


@pytest.fixture
def chains(tmp_path: Path) -> str:
    """A file whose coin every source knows, and whose token none does."""
    return listing(tmp_path, NAMES)


def listing(folder: Path, of_coin: Any, **token: Any) -> str:
    tokens = [{"symbol": "USDC", "address": USDC, "decimals": 6, **token}]
    return chains_file(folder, native={"symbol": "ETH", "decimals": 18, "rates": of_coin}, tokens=tokens)


def load(path: str, role: Any = Role.SCHEDULER, **changes: str) -> Settings:
    return load_settings(role, EVERYTHING | {"CHAINS_FILE": path} | changes)


def refusal(path: str, role: Any = Role.SCHEDULER, **changes: str) -> str:
    with pytest.raises(MisconfiguredError) as refused:
        load(path, role, **changes)
    assert "CG-key-word" not in refused.value.detail
    return refused.value.detail


def test_without_sources_prices_are_off(chains: str) -> None:
    settings = load(chains)
    assert settings.rates.sources == ()
    assert settings.rate_pairs == {}


def test_two_sources_must_agree_unless_it_is_said_otherwise(chains: str) -> None:
    rates = load(chains, **TWO).rates
    assert rates.sources == rates.policy.sources == ("kraken", "coingecko")
    assert (rates.policy.least, rates.policy.oldest, rates.policy.spread) == (
        2,
        timedelta(seconds=300),
        Decimal("0.05"),
    )
    assert (rates.currencies, rates.refresh, rates.quote) == (
        ("EUR", "USD"),
        timedelta(60 / 86_400),
        timedelta(minutes=15),
    )
    assert (rates.kraken_url, rates.coingecko_url) == ("https://api.kraken.com", "https://api.coingecko.com")
    assert load(chains, RATE_SOURCES="kraken").rates.policy.least == 1
    assert load(chains, **TWO, RATE_LEAST_SOURCES="1").rates.policy.least == 1


def test_every_variable_is_read(chains: str) -> None:
    rates = load(
        chains,
        RATE_SOURCES="static,kraken",
        PRICE_CURRENCIES="JPY, KWD",
        STATIC_RATES="ETH/JPY=440000, ETH/KWD=0.92e3",
        KRAKEN_URL="http://127.0.0.1:9/kraken/",
        COINGECKO_URL="https://pro-api.coingecko.com",
        RATE_REFRESH_SECONDS="30",
        RATE_MAX_AGE_SECONDS="90",
        RATE_MAX_SPREAD="0.015",
        QUOTE_SECONDS="600",
    ).rates
    assert rates.currencies == ("JPY", "KWD")
    assert rates.static == {Pair("ETH", "JPY"): 440_000, Pair("ETH", "KWD"): 920}
    assert (rates.kraken_url, rates.coingecko_url) == ("http://127.0.0.1:9/kraken", "https://pro-api.coingecko.com")
    assert (rates.refresh, rates.policy.oldest, rates.quote) == tuple(timedelta(seconds=n) for n in (30, 90, 600))
    assert rates.policy.spread == Decimal("0.015")
    untouched = {f.name for f in fields(RateSettings) if getattr(rates, f.name) == getattr(RateSettings(), f.name)}
    assert untouched == set()


def test_the_key_is_the_schedulers_alone_and_never_shown(chains: str) -> None:
    assert {role for role in Role if load(chains, role).rates.coingecko_api_key} == {Role.SCHEDULER}
    settings = load(chains, COINGECKO_URL="https://proxy.example/path-word/")
    assert {"CG-key-word", "path-word"} <= set(settings.secrets())
    assert "CG-key-word" not in repr(settings)
    assert "path-word" not in repr(settings)


def test_the_key_may_stand_in_a_file(chains: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("CG-filed\n")
    read = load(chains, COINGECKO_API_KEY="", COINGECKO_API_KEY_FILE=str(tmp_path / "key")).rates.coingecko_api_key
    assert read == "CG-filed"


def test_what_each_source_is_asked_for(chains: str) -> None:
    assert load(chains, **TWO, PRICE_CURRENCIES="EUR").rate_pairs == {
        "kraken": [Pair("ETH", "EUR")],
        "coingecko": [Pair("ethereum", "EUR")],
    }


FAULTS = [
    ("RATE_SOURCES", "kraken,binance", "it is a comma-separated list of kraken, coingecko, static, each once"),
    ("RATE_SOURCES", "kraken,kraken", "each once"),
    ("RATE_SOURCES", "kraken,", "each once"),
    ("PRICE_CURRENCIES", "EUR,eur", "codes of ISO 4217"),
    ("PRICE_CURRENCIES", "EURO", "codes of ISO 4217"),
    ("PRICE_CURRENCIES", "EUR,ABC", "codes of ISO 4217"),
    ("PRICE_CURRENCIES", "XAU", "codes of ISO 4217"),
    ("PRICE_CURRENCIES", "EUR,EUR", "each once"),
    ("STATIC_RATES", "ETH/EUR", "such as ETH/EUR=3000,USDC/EUR=0.92"),
    ("STATIC_RATES", "ETH/EUR=0", "such as ETH/EUR=3000"),
    ("STATIC_RATES", "ETH/EUR=NaN", "such as ETH/EUR=3000"),
    ("STATIC_RATES", "ETH/EUR=-1", "such as ETH/EUR=3000"),
    ("STATIC_RATES", "ETH/EUR=1,ETH/EUR=2", "such as ETH/EUR=3000"),
    ("KRAKEN_URL", "api.kraken.com", "it is the source's https or http address"),
    ("KRAKEN_URL", "ftp://api.kraken.com", "https or http address"),
    ("KRAKEN_URL", "https://me:word@api.kraken.com", "without user, password and query"),
    ("COINGECKO_URL", "https://api.coingecko.com?key=word", "without user, password and query"),
    ("COINGECKO_URL", "https://api.coingecko.com:port", "https or http address"),
    ("COINGECKO_URL", "https://api.coingecko.com/\r\nX: y", "https or http address"),
    ("COINGECKO_API_KEY", "CG-key-word\r\nX: y", "its value is wrong; it is the key as CoinGecko shows it"),
    ("RATE_REFRESH_SECONDS", "4", "a whole number of seconds, 5 to 3600"),
    ("RATE_REFRESH_SECONDS", "1.5", "a whole number of seconds"),
    ("RATE_MAX_AGE_SECONDS", "86401", "10 to 86400"),
    ("RATE_MAX_AGE_SECONDS", "60", "it is more than RATE_REFRESH_SECONDS"),
    ("RATE_MAX_SPREAD", "5", "it is a fraction above 0, 0.5 at the most"),
    ("RATE_MAX_SPREAD", "0.51", "0.5 at the most"),
    ("RATE_MAX_SPREAD", "0.0", "a fraction above 0"),
    ("RATE_MAX_SPREAD", "5e-2", "a fraction above 0"),
    ("RATE_LEAST_SOURCES", "0", "it is a whole number, 1 to 3"),
    ("RATE_LEAST_SOURCES", "3", "3 can never agree; RATE_SOURCES lists 2"),
    ("QUOTE_SECONDS", "59", "a whole number of seconds, 60 to 86400"),
]


@pytest.mark.parametrize(("name", "value", "words"), FAULTS)
def test_a_fault_is_named_with_what_would_be_right(chains: str, name: str, value: str, words: str) -> None:
    message = refusal(chains, **TWO | {name: value})
    assert re.search(rf"^  - {name}: .*{re.escape(words)}", message, re.MULTILINE), message
    assert message.count("\n  - ") == 1


def test_only_who_is_asked_for_prices_looks_whether_a_currency_exists(chains: str) -> None:
    """The table of currencies costs 5 MB; the form of the codes is looked at by all."""
    for role in Role:
        if role in (Role.API, Role.SCHEDULER, Role.CLI):
            assert "PRICE_CURRENCIES" in refusal(chains, role, **TWO, PRICE_CURRENCIES="ABC")
        else:
            assert load(chains, role, **TWO, PRICE_CURRENCIES="ABC").rates.currencies == ("ABC",)
        assert "PRICE_CURRENCIES" in refusal(chains, role, **TWO, PRICE_CURRENCIES="abc")


def test_in_production_rates_are_the_markets_and_come_over_tls(chains: str) -> None:
    production = {"ENV": "production", "WEBHOOK_ALLOW_CIDRS": ""}
    assert load(chains, **TWO, **production).rates.sources == ("kraken", "coingecko")
    static = {"RATE_SOURCES": "static", "STATIC_RATES": "ETH/EUR=1,ETH/USD=1"}
    assert "RATE_SOURCES: static is for development and tests" in refusal(chains, **static, **production)
    assert load(chains, **static).rates.sources == ("static",)
    message = refusal(chains, **TWO, **production, KRAKEN_URL="http://api.kraken.com")
    assert "it is the source's https address" in message


def test_static_rates_are_of_all_that_may_be_asked_for(chains: str) -> None:
    message = refusal(chains, RATE_SOURCES="static", STATIC_RATES="ETH/EUR=3000")
    assert "STATIC_RATES: lacks ETH/USD; it has each asset in each of PRICE_CURRENCIES" in message
    assert "lacks ETH/EUR, ETH/USD" in refusal(chains, RATE_SOURCES="static")


def test_an_asset_on_which_too_few_could_ever_agree_is_named(tmp_path: Path) -> None:
    path = listing(tmp_path, NAMES, rates={"kraken": "USDC"})
    message = refusal(path, **TWO)
    assert "CHAINS_FILE: USDC of ethereum has a name in its rates for 1 of RATE_SOURCES, and 2 must agree" in message
    assert "ETH of ethereum" not in message
    assert load(path, **TWO, RATE_LEAST_SOURCES="1").rate_pairs["kraken"][-1] == Pair("USDC", "USD")
    assert load(path, RATE_SOURCES="kraken").rates.policy.least == 1


def test_a_source_is_asked_for_two_hundred_pairs_at_the_most(tmp_path: Path) -> None:
    def tokens(count: int) -> list[dict[str, Any]]:
        return [
            {"symbol": f"T{n}", "address": f"0x{n:040x}", "decimals": 6, "rates": {"kraken": f"T{n}"}}
            for n in range(1, count + 1)
        ]

    path = chains_file(tmp_path, tokens=tokens(100))
    assert len(load(path, RATE_SOURCES="kraken").rate_pairs["kraken"]) == 200
    path = chains_file(tmp_path, tokens=tokens(101))
    assert "PRICE_CURRENCIES: kraken would be asked for 202 pairs" in refusal(path, RATE_SOURCES="kraken")
    path = chains_file(tmp_path, tokens=tokens(100))
    assert "PRICE_CURRENCIES" in refusal(path, RATE_SOURCES="kraken", PRICE_CURRENCIES=",".join(["EUR", "USD", "JPY"]))


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"kraken": "eth"}, "chains[0] (ethereum).native.rates.kraken is of the wrong form; it is Kraken's own code"),
        ({"kraken": "ETH&pair=XBT"}, "native.rates.kraken is of the wrong form"),
        ({"coingecko": "Ethereum"}, "native.rates.coingecko is of the wrong form; it is CoinGecko's id of the coin"),
        ({"coingecko": "a,b"}, "native.rates.coingecko is of the wrong form"),
        ({"static": "ETH/EUR"}, "native.rates.static is of the wrong form"),
        ({"kraken": 1}, "native.rates.kraken"),
        ({"binance": "ETH"}, "native.rates.binance is no known key"),
        ("ETH", "chains[0] (ethereum).native.rates is no mapping of keys to values; it is how sources name it"),
    ],
)
def test_a_faulty_name_is_refused_with_its_place(tmp_path: Path, rates: Any, words: str) -> None:
    assert words in refusal(listing(tmp_path, rates))


def test_the_shipped_file_names_its_assets_for_two_sources(tmp_path: Path) -> None:
    shown = (ROOT / "chains.yaml").read_text()
    path = tmp_path / "chains.yaml"
    path.write_text(re.sub(r"^#  ", "  ", shown, flags=re.MULTILINE).replace('"0x…"', '"0x' + "99" * 20 + '"'))
    named = [token for chain in read_chains(path) for token in chain.tokens if token.rate_names]
    assert {"ETH", "USDC", "USDT", "DAI", "POL", "BNB"} <= {token.symbol for token in named}
    assert load(str(path), **TWO).rates.sources == ("kraken", "coingecko")
    coins = {token.symbol: token.rate_names for token in named}
    assert coins["USDC"] == {"kraken": "USDC", "coingecko": "usd-coin"}
