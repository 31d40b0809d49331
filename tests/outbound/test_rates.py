"""Sources of rates: what Kraken and CoinGecko are asked and say, and everything that is not taken from them."""

import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ctrip.domain.rates import Pair, Refusal, Told
from ctrip.outbound import rate_pages
from ctrip.outbound.rates import Answer, CoinGecko, Kraken, RateSource, Static
from tests.certificates import self_signed
from tests.outbound.peers import Behaviour, Peer, answers, drips, floods, mute_peer, peer, says, silence

ASKED_AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
ETH_EUR, ETH_JPY, BTC_EUR = Pair("ETH", "EUR"), Pair("ETH", "JPY"), Pair("XBT", "EUR")
ETHER_EUR, ETHER_JPY, DOLLAR_EUR = Pair("ethereum", "EUR"), Pair("ethereum", "JPY"), Pair("usd-coin", "EUR")
KEY = "CG-key-word"


def json_of(content: object) -> Behaviour:
    text = content if isinstance(content, str) else json.dumps(content)
    return answers(200, "Content-Type: application/json", body=text.encode())


def ticker(name: str, bid: object) -> dict[str, Any]:
    """What Kraken answers to one pair, as it documents it."""
    sizes = {"a": ["3013.0", "1", "1.000"], "c": ["3012.5", "0.1"], "v": ["1", "2"], "t": [1, 2], "o": "3000.0"}
    return {"error": [], "result": {name: {**sizes, "b": bid}}}


def kraken(url: str, **options: Any) -> RateSource:
    return Kraken(url, **options)


def coingecko(url: str, **options: Any) -> RateSource:
    return CoinGecko(url, api_key=KEY, **options)


ASKS: dict[str, tuple[Callable[..., RateSource], Pair]] = {
    "kraken": (kraken, ETH_EUR),
    "coingecko": (coingecko, ETHER_EUR),
}
EITHER = pytest.mark.parametrize(("make", "pair"), ASKS.values(), ids=ASKS.keys())


def base(of: Peer) -> str:
    return of.url.removesuffix("/hooks")


def refusal(answer: Answer) -> tuple[str, str]:
    """The one thing that was refused: its reason and its words."""
    assert not answer.told
    (error,) = [*answer.refused.values(), *filter(None, [answer.failure])]
    return error.reason, error.detail


@contextmanager
def by_pair(*pages: tuple[str, Behaviour]) -> Iterator[Peer]:
    """A server that answers each pair of Kraken's by its own page."""
    behaviours = dict(pages)
    served: list[Peer] = []

    def behave(sock: Any) -> None:
        (query,) = [query for request in served[0].requests[-1:] for query in [target(request)[1]]]
        behaviours[query["pair"][0]](sock)

    with peer(behave) as here:
        served.append(here)
        yield here


def target(request: bytes) -> tuple[str, dict[str, list[str]]]:
    """The path and the query of a request."""
    parts = urlsplit(request.split(b" ")[1].decode())
    return parts.path, parse_qs(parts.query, strict_parsing=True)


def headers(request: bytes) -> dict[str, str]:
    lines = request.decode().split("\r\n\r\n")[0].split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


# --- what is asked, and what is taken -------------------------------------------------------------------------------


def test_kraken_is_asked_for_one_pair_at_a_time_and_its_bid_is_taken_as_of_the_question() -> None:
    pages = {
        "ETHEUR": ticker("XETHZEUR", ["3012.10000", "1", "1.000"]),
        "ETHJPY": ticker("XETHZJPY", ["440000.5", "1", "1.000"]),
        "XBTEUR": ticker("XXBTZEUR", ["90000.1", "1", "1.000"]),
    }
    with by_pair(*((pair, json_of(page)) for pair, page in pages.items())) as server:
        answer = Kraken(base(server) + "/proxy").ask([ETH_EUR, ETH_JPY, BTC_EUR], asked_at=ASKED_AT)
    assert answer == Answer(
        {
            ETH_EUR: Told("kraken", Decimal("3012.1"), ASKED_AT),
            ETH_JPY: Told("kraken", Decimal("440000.5"), ASKED_AT),
            BTC_EUR: Told("kraken", Decimal("90000.1"), ASKED_AT),
        }
    )
    assert [target(request) for request in server.requests] == [
        ("/proxy/0/public/Ticker", {"pair": [pair]}) for pair in pages
    ]
    sent = headers(server.requests[0])
    assert sent["host"] == f"127.0.0.1:{server.port}"
    assert sent["user-agent"].startswith("ctrip/")
    assert KEY not in str(server.requests)


@pytest.mark.parametrize("name", ["XETHZEUR", "ETHEUR", "XETHEUR", "ETHZEUR"])
def test_kraken_may_call_a_pair_in_its_older_way_or_its_newer(name: str) -> None:
    with peer(json_of(ticker(name, ["3012.1"]))) as server:
        assert kraken(base(server)).ask([ETH_EUR], asked_at=ASKED_AT).told[ETH_EUR].rate == Decimal("3012.1")


def test_a_warning_of_kraken_beside_a_result_is_no_error() -> None:
    page = ticker("XETHZEUR", ["3012.1"]) | {"error": ["WGeneral:Something is slow"]}
    with peer(json_of(page)) as server:
        assert kraken(base(server)).ask([ETH_EUR], asked_at=ASKED_AT).told[ETH_EUR].rate == Decimal("3012.1")


def test_coingecko_is_asked_once_for_all_and_no_digit_of_its_numbers_is_lost() -> None:
    page = """{"ethereum": {"eur": 3012.1234567890123456789012345, "jpy": 4.4e5, "last_updated_at": 1795348790},
               "usd-coin": {"eur": 1.23e-7, "last_updated_at": 1795348800}, "other": {"eur": 1}}"""
    with peer(json_of(page)) as server:
        asked = [ETHER_EUR, ETHER_JPY, DOLLAR_EUR]
        answer = coingecko(base(server)).ask(asked, asked_at=ASKED_AT)
    moment = datetime(2026, 11, 22, 11, 59, 50, tzinfo=UTC)
    assert answer.failure is None
    assert answer.told == {
        ETHER_EUR: Told("coingecko", Decimal("3012.1234567890123456789012345"), moment),
        ETHER_JPY: Told("coingecko", Decimal(440_000), moment),
        DOLLAR_EUR: Told("coingecko", Decimal("0.000000123"), ASKED_AT),
    }
    assert answer.refused == {}
    (request,) = server.requests
    path, query = target(request)
    assert path == "/api/v3/simple/price"
    assert query == {
        "ids": ["ethereum,usd-coin"],
        "vs_currencies": ["eur,jpy"],
        "include_last_updated_at": ["true"],
        "precision": ["full"],
    }
    assert KEY not in path
    assert headers(request)["x-cg-demo-api-key"] == KEY


def test_a_key_is_sent_to_the_api_that_its_plan_is_for() -> None:
    assert CoinGecko("https://pro-api.coingecko.com", api_key=KEY)._headers == {"x-cg-pro-api-key": KEY}
    assert CoinGecko("https://api.coingecko.com", api_key=KEY)._headers == {"x-cg-demo-api-key": KEY}
    assert CoinGecko("https://api.coingecko.com", api_key=None)._headers == {}


def test_static_rates_are_what_was_written_down_as_of_now() -> None:
    answer = Static({ETH_EUR: Decimal(3000)}).ask([ETH_EUR, ETH_JPY], asked_at=ASKED_AT)
    assert answer.told == {ETH_EUR: Told("static", Decimal(3000), ASKED_AT)}
    assert [(pair, error.reason) for pair, error in answer.refused.items()] == [(ETH_JPY, Refusal.MISSING)]


def test_over_tls_the_certificate_must_be_the_hosts_and_of_a_known_authority(tmp_path: Path) -> None:
    page = json_of(ticker("XETHZEUR", ["3012.1"]))
    outcomes = {}
    for host in ("localhost", "elsewhere.example"):
        certificate = str(self_signed(host, tmp_path))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        for trust in (ssl.create_default_context(cafile=certificate), None):
            with peer(page, tls=context) as server:
                answer = Kraken(f"https://localhost:{server.port}", trust=trust).ask([ETH_EUR], asked_at=ASKED_AT)
            outcomes[host, trust is not None] = answer
    assert outcomes.pop(("localhost", True)).told
    refused = ("unreachable", "the certificate is expired, for another name or from an unknown authority")
    assert [refusal(answer) for answer in outcomes.values()] == [refused] * 3


# --- what is refused, whoever says it -------------------------------------------------------------------------------

HUGE = b'{"error": [], "a": "' + b"x" * rate_pages.MAX_BODY_BYTES + b'"}'
NOT_THEM: list[tuple[str, Behaviour, str, str]] = [
    ("HTML", answers(200, "Content-Type: text/html", body=b"<html>Just a moment\xe2\x80\xa6"), "malformed", "no JSON"),
    ("nothing", answers(200), "malformed", "no JSON"),
    ("no UTF-8", answers(200, body=b'{"error": "\xff"}'), "malformed", "no JSON"),
    ("a list", answers(200, body=b"[1]"), "malformed", "no JSON object"),
    ("a number", answers(200, body=b"3000"), "malformed", "no JSON object"),
    ("cut JSON", answers(200, body=b'{"ethereum": {"eur": 30'), "malformed", "no JSON"),
    ("cut off", says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"), "malformed", "the answer is cut off"),
    ("a cut chunk", says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}"), "malformed", "cut off"),
    ("nested without end", answers(200, body=b'{"a":' * 9_000), "malformed", "no JSON"),
    ("a number of 9000 digits", answers(200, body=b'{"a": ' + b"9" * 9_000), "malformed", "no JSON"),
    ("too much", answers(200, body=HUGE), "malformed", "larger than 49152 bytes"),
    ("a flood", says(b"HTTP/1.1 200 OK\r\n\r\n", then=floods(b"x" * 65_536)), "malformed", "larger than 49152 bytes"),
    ("a redirect", answers(301, "Location: http://169.254.169.254/"), "status", "it answered 301"),
    ("no content", answers(204), "status", "it answered 204"),
    ("refused", answers(403, body=b"<html>"), "status", "it answered 403"),
    ("broken", answers(500, body=b'{"error": []}'), "status", "it answered 500"),
    ("too often", answers(429), "limited", "it answered 429"),
    ("no HTTP", says(b"hello\r\n\r\n"), "unreachable", "the answer was no HTTP"),
    ("hung up", says(), "unreachable", "the connection was closed before an answer came"),
]


@EITHER
@pytest.mark.parametrize(
    ("behave", "reason", "words"), [case[1:] for case in NOT_THEM], ids=[case[0] for case in NOT_THEM]
)
def test_an_answer_that_is_not_theirs_is_refused_in_words(
    make: Callable[..., RateSource], pair: Pair, behave: Behaviour, reason: str, words: str
) -> None:
    with peer(behave) as server:
        told = refusal(make(base(server)).ask([pair], asked_at=ASKED_AT))
    assert told[0] == reason
    assert words in told[1]
    assert len(told[1]) < 100
    assert len(server.requests) == 1, "no redirect is followed, nothing is asked again"


SLOW: dict[str, Behaviour] = {
    "says nothing": silence,
    "drips its status line": drips(b"H"),
    "drips headers": says(b"HTTP/1.1 200 OK\r\n", then=drips(b"A: b\r\n")),
    "drips a body of known length": says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", then=drips(b"[")),
    "drips a body": says(b"HTTP/1.1 200 OK\r\n\r\n", then=drips(b"[")),
    "drips a chunk": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n", then=drips(b"[")),
    "is whole and does not end": says(b"HTTP/1.1 200 OK\r\n\r\n{}", then=silence),
}


@EITHER
@pytest.mark.parametrize("behave", SLOW.values(), ids=SLOW.keys())
def test_a_request_ends_in_time_whatever_is_slow(
    make: Callable[..., RateSource], pair: Pair, behave: Behaviour
) -> None:
    with peer(behave) as server:
        begun = time.monotonic()
        told = refusal(make(base(server), request_s=0.5).ask([pair], asked_at=ASKED_AT))
        assert time.monotonic() - begun < 5
    assert told == ("unreachable", "the destination took too long")


@EITHER
def test_a_server_that_is_not_there_is_named_in_words(make: Callable[..., RateSource], pair: Pair) -> None:
    assert refusal(make("http://127.0.0.1:1").ask([pair], asked_at=ASKED_AT)) == (
        "unreachable",
        "the connection was refused",
    )
    with mute_peer() as server:
        url = f"https://127.0.0.1:{server.port}"
        told = refusal(make(url, request_s=0.5, trust=ssl.create_default_context()).ask([pair], asked_at=ASKED_AT))
    assert told == ("unreachable", "the destination took too long")


@EITHER
@pytest.mark.parametrize(
    ("wait", "seconds"), [("7", 7), ("Sun, 22 Nov 2026 12:02:00 GMT", 120), ("soon", None), ("-1", None)]
)
def test_what_a_source_asks_us_to_wait_is_told(
    make: Callable[..., RateSource], pair: Pair, wait: str, seconds: int | None
) -> None:
    page = answers(429, f"Retry-After: {wait}", "Date: Sun, 22 Nov 2026 12:00:00 GMT")
    with peer(page) as server:
        failure = make(base(server)).ask([pair], asked_at=ASKED_AT).failure
    assert failure is not None
    assert failure.retry_after_s == seconds


# --- what each of them may say wrongly ------------------------------------------------------------------------------

UNKNOWN = {"error": ["EQuery:Unknown asset pair"]}
NO_BIDS: list[object] = [[], "3012.1", None, [3012.1], [["3012.1"]], {}]
SAID_BY_KRAKEN: list[tuple[object, str, str]] = [
    (UNKNOWN, "missing", "it does not know the pair"),
    ({"error": ["EGeneral:Internal error"]}, "error", "it answered with an error: EGeneral:Internal error"),
    (
        {"error": ["EService:Unavailable"], **ticker("XETHZEUR", ["1"])} | {"error": ["EService:Unavailable"]},
        "error",
        "E",
    ),
    ({"error": ["WGeneral:slow", "EService:Busy"]}, "error", "EService:Busy"),
    ({"error": ["EAPI:Rate limit exceeded"]}, "limited", "EAPI:Rate limit exceeded"),
    ({"error": ["EGeneral:Too many requests"]}, "limited", "EGeneral:Too many requests"),
    ({"error": [f"E\x1b[2J {KEY}"]}, "error", "it answered with an error"),
    ({"error": "no"}, "malformed", "whether there was an error"),
    ({"error": [1]}, "malformed", "whether there was an error"),
    ({"result": {}}, "malformed", "whether there was an error"),
    ({"error": []}, "malformed", "not that of one pair"),
    ({"error": [], "result": {}}, "malformed", "not that of one pair"),
    ({"error": [], "result": []}, "malformed", "not that of one pair"),
    (
        {"error": [], "result": {"XETHZEUR": {"b": ["1"]}, "XETHZUSD": {"b": ["2"]}}},
        "malformed",
        "not that of one pair",
    ),
    (ticker("XETHZUSD", ["3012.1"]), "malformed", "no bid for the pair"),
    (ticker("XXBTZEUR", ["90000.1"]), "malformed", "no bid for the pair"),
    (ticker("METHEUR", ["3100.1"]), "malformed", "no bid for the pair"),
    ({"error": [], "result": {"XETHZEUR": "3012.1"}}, "malformed", "no bid"),
    *((ticker("XETHZEUR", bid), "malformed", "no bid") for bid in NO_BIDS),
    *((ticker("XETHZEUR", [bid]), "absurd", "is no rate") for bid in ("0.00000", "-1", "NaN", "", "1e13", "1,5")),
]


@pytest.mark.parametrize(("page", "reason", "words"), SAID_BY_KRAKEN)
def test_an_answer_of_kraken_with_a_fault_inside_is_refused(page: object, reason: str, words: str) -> None:
    with peer(json_of(page)) as server:
        told = refusal(kraken(base(server)).ask([ETH_EUR], asked_at=ASKED_AT))
    assert told[0] == reason
    assert words in told[1]
    assert KEY not in told[1]
    assert told[1].isprintable()


def test_kraken_is_asked_for_the_next_pair_where_one_alone_is_at_fault() -> None:
    pages = {
        "ETHEUR": UNKNOWN,
        "ETHJPY": ticker("XETHZJPY", ["0"]),
        "XBTEUR": ticker("XXBTZEUR", ["90000.1"]),
    }
    with by_pair(*((pair, json_of(page)) for pair, page in pages.items())) as server:
        answer = kraken(base(server)).ask([ETH_EUR, ETH_JPY, BTC_EUR], asked_at=ASKED_AT)
    assert list(answer.told) == [BTC_EUR]
    assert {pair: error.reason for pair, error in answer.refused.items()} == {ETH_EUR: "missing", ETH_JPY: "absurd"}
    assert answer.failure is None


@pytest.mark.parametrize("behave", [answers(429), answers(502), says(), json_of({"error": ["EService:Unavailable"]})])
def test_kraken_is_not_asked_again_in_a_round_where_it_is_not_itself(behave: Behaviour) -> None:
    with by_pair(("ETHEUR", json_of(ticker("XETHZEUR", ["3012.1"]))), ("ETHJPY", behave)) as server:
        answer = kraken(base(server)).ask([ETH_EUR, ETH_JPY, BTC_EUR], asked_at=ASKED_AT)
    assert list(answer.told) == [ETH_EUR]
    assert answer.refused == {}
    assert answer.failure is not None
    assert len(server.requests) == 2


def test_a_round_ends_in_time_though_every_answer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctrip.outbound.rates.ROUND_S", 1.5)
    with peer(json_of(ticker("XETHZEUR", ["3012.1"]))) as server:
        answer = kraken(base(server)).ask([ETH_EUR] * 100_000, asked_at=ASKED_AT)
    assert answer.told
    assert answer.failure is not None
    assert answer.failure.reason == "unreachable"
    assert len(server.requests) < 10_000


def prices(**of_ether: object) -> dict[str, object]:
    return {"ethereum": {"eur": 3012.1, "last_updated_at": 1795348790} | of_ether}


SAID_BY_COINGECKO: list[tuple[object, str, str]] = [
    ({"status": {"error_code": 429, "error_message": f"slow down, {KEY}"}}, "limited", "an error, code 429"),
    ({"status": {"error_code": 10002, "error_message": KEY}}, "error", "it answered with an error, code 10002"),
    ({"status": {"error_code": KEY}}, "error", "it answered with an error"),
    ({"error": f"invalid key {KEY}"}, "error", "it answered with an error"),
    ({}, "missing", "it does not know the pair"),
    ({"ethereum": {}}, "missing", "it does not know the pair"),
    ({"ethereum": None}, "missing", "it does not know the pair"),
    (prices(eur=None), "missing", "it does not know the pair"),
    ({"ethereum": {"usd": 3012.1, "last_updated_at": 1795348790}}, "missing", "it does not know the pair"),
    ({"status": {"eur": 0.02, "last_updated_at": 1795348790}}, "missing", "it does not know the pair"),  # a coin
    ({"ethereum": 3012.1}, "malformed", "no list of prices"),
    ({"ethereum": ["eur"]}, "malformed", "no list of prices"),
    *((prices(eur=price), "malformed", "no number") for price in ("3012.1", True, [3012.1], {"eur": 1})),
    *((prices(last_updated_at=at), "malformed", "no number") for at in (None, "1795348790", -1, 1.5, 10**10, True)),
    *((prices(eur=price), "absurd", "is no rate") for price in (0, 0.0, -1, 1e13, 1e-13, float("nan"), float("inf"))),
]


@pytest.mark.parametrize(("page", "reason", "words"), SAID_BY_COINGECKO)
def test_an_answer_of_coingecko_with_a_fault_inside_is_refused(page: object, reason: str, words: str) -> None:
    with peer(json_of(page)) as server:
        told = refusal(coingecko(base(server)).ask([ETHER_EUR], asked_at=ASKED_AT))
    assert told[0] == reason
    assert words in told[1]
    assert KEY not in told[1]


def test_what_coingecko_says_of_one_pair_does_not_hang_on_what_it_says_of_another() -> None:
    page = prices(jpy=0) | {"usd-coin": {"eur": 0.92, "last_updated_at": 1795348790}}
    with peer(json_of(page)) as server:
        asked = [ETHER_EUR, ETHER_JPY, DOLLAR_EUR, Pair("gone", "EUR")]
        answer = coingecko(base(server)).ask(asked, asked_at=ASKED_AT)
    assert {pair: told.rate for pair, told in answer.told.items()} == {
        ETHER_EUR: Decimal("3012.1"),
        DOLLAR_EUR: Decimal("0.92"),
    }
    reasons = {pair: error.reason for pair, error in answer.refused.items()}
    assert reasons == {ETHER_JPY: "absurd", Pair("gone", "EUR"): "missing"}
