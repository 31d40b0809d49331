"""Sources of rates are asked in the background: once, each for itself, and whatever one of them does."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import rates as kept
from ctrip.database.models import rate_sources
from ctrip.database.models import rates as rows
from ctrip.domain.rates import Pair, Refusal, Told, agree
from ctrip.errors import RateRefused, RateUnavailableError, Unavailable
from ctrip.outbound.rates import Answer, CoinGecko, Kraken, RateSource, Static
from ctrip.services import housekeeping, overview, rates
from tests.outbound.peers import answers, peer

pytestmark = pytest.mark.infra

BASES = {"ETH": Decimal(3000), "USDC": Decimal("0.92"), "ethereum": Decimal(3010), "usd-coin": Decimal("0.93")}


class Teller:
    """A source that says what the test wants, of all that it is asked for."""

    def __init__(
        self, name: str, tell: Callable[[Pair], Decimal] | None = None, *, age: timedelta = timedelta(0)
    ) -> None:
        self.name = name
        self.rounds = 0
        self.age = age
        self._tell = tell or (lambda pair: BASES[pair.base])

    def ask(self, pairs: Sequence[Pair], *, asked_at: datetime) -> Answer:
        self.rounds += 1
        told: dict[Pair, Told] = {}
        refused: dict[Pair, RateRefused] = {}
        for pair in pairs:
            try:
                told[pair] = Told(self.name, self._tell(pair), asked_at - self.age)
            except RateRefused as error:
                refused[pair] = error
        return Answer(told, refused)


class Broken:
    """A source that fails as a whole, however the test wants it."""

    def __init__(self, error: RateRefused | Exception) -> None:
        self._error = error

    def ask(self, pairs: Sequence[Pair], *, asked_at: datetime) -> Answer:
        if isinstance(self._error, RateRefused):
            return Answer(failure=self._error)
        raise self._error


def asking(ctx: Context, **sources: RateSource) -> Context:
    """A scheduler's context with these sources, two of which must agree where there are two."""
    policy = replace(ctx.settings.rates.policy, sources=tuple(sources), least=min(2, len(sources)))
    told = replace(ctx.settings.rates, sources=tuple(sources), policy=policy, currencies=("EUR",))
    return replace(ctx, settings=replace(ctx.settings, rates=told), rate_sources=sources)


def make_due(ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rate_sources).values(next_ask_at=sa.text("now() - interval '1 s'")))


def rate_of(ctx: Context, symbol: str = "ETH") -> Decimal:
    """What a client would be quoted: the words read and agreed on in one transaction."""
    token = ctx.settings.chains[0].token(symbol)
    assert token is not None
    with ctx.sessions.begin() as session:
        words = kept.read(session, token, "EUR")
        now = session.execute(sa.select(sa.func.now())).scalar_one()
    return agree(words, ctx.settings.rates.policy, now, pair=f"{symbol}/EUR").rate


def refusal_of(ctx: Context) -> str:
    with pytest.raises(RateUnavailableError) as refused:
        rate_of(ctx)
    return refused.value.detail


def states(ctx: Context) -> dict[str, kept.SourceState]:
    with ctx.sessions.begin() as session:
        return kept.find_sources(session)


def counted(source: str, reason: str) -> float:
    return metrics.RATE_REFUSALS.labels(source=source, reason=reason)._value.get()


# --- all is well ----------------------------------------------------------------------------------------------------


def test_what_sources_tell_is_kept_and_agreed_on(ctx: Context) -> None:
    ctx = asking(ctx, kraken=Teller("kraken"), coingecko=Teller("coingecko"))
    assert rates.refresh(ctx) == 2
    assert rate_of(ctx) == 3005
    assert rate_of(ctx, "USDC") == Decimal("0.925")
    assert {name: state.last_error for name, state in states(ctx).items()} == {"kraken": None, "coingecko": None}


def test_a_source_is_asked_again_when_its_time_has_come_and_no_sooner(ctx: Context) -> None:
    kraken = Teller("kraken")
    ctx = asking(ctx, kraken=kraken)
    assert [rates.refresh(ctx) for _ in range(3)] == [1, 0, 0]
    make_due(ctx)
    assert [rates.refresh(ctx) for _ in range(2)] == [1, 0]
    assert kraken.rounds == 2


def test_many_schedulers_at_once_ask_a_source_once(ctx: Context) -> None:
    tellers = {name: Teller(name) for name in ("kraken", "coingecko", "static")}
    ctx = asking(ctx, **tellers)
    for round_number in range(1, 6):
        ready = threading.Barrier(8)

        def refresh(_: int, ready: threading.Barrier = ready) -> int:
            ready.wait()
            return rates.refresh(ctx)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(refresh, range(8))) == 3
        assert [teller.rounds for teller in tellers.values()] == [round_number] * 3
        make_due(ctx)


def test_no_transaction_is_open_while_a_source_is_asked(ctx: Context) -> None:
    open_then: list[int] = []

    def tell(_: Pair) -> Decimal:
        open_then.append(ctx.sessions.engine.pool.checkedout())  # type: ignore[attr-defined]
        return Decimal(1)

    rates.refresh(asking(ctx, kraken=Teller("kraken", tell)))
    assert open_then == [0, 0]


def test_static_rates_go_the_same_way_and_are_new_with_each_round(ctx: Context) -> None:
    ctx = asking(ctx, static=Static(ctx.settings.rates.static))
    rates.refresh(ctx)
    assert rate_of(ctx) == 2990
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(as_of=sa.text("now() - interval '1 hour'")))
    assert "static is stale since" in refusal_of(ctx)
    make_due(ctx)
    rates.refresh(ctx)
    assert rate_of(ctx) == 2990


def test_without_sources_nobody_is_asked_and_postgres_neither(ctx: Context) -> None:
    class Nothing:
        def begin(self) -> None:
            raise AssertionError

    assert rates.refresh(replace(asking(ctx), sessions=Nothing())) == 0  # type: ignore[arg-type]


# --- all is not well ------------------------------------------------------------------------------------------------


def test_a_source_that_is_down_is_noted_and_hinders_no_other(ctx: Context) -> None:
    before = counted("kraken", "status")
    with peer(answers(502, body=b"<html>")) as down:
        url = f"http://127.0.0.1:{down.port}"
        ctx = asking(ctx, kraken=Kraken(url), coingecko=Teller("coingecko"), static=Teller("static"))
        with capture_logs() as lines:
            assert rates.refresh(ctx) == 3
    assert len(down.requests) == 1
    assert [(line["source"], line["error"]) for line in lines if line["event"] == "rates_refused"] == [
        ("kraken", "it answered 502")
    ]
    assert counted("kraken", "status") == before + 1
    state = states(ctx)["kraken"]
    assert state.last_error == "it answered 502"
    assert state.failing_since is not None
    assert rate_of(ctx) == 3005, "the two others agree"

    ctx = asking(ctx, kraken=Teller("kraken"), coingecko=Teller("coingecko"), static=Teller("static"))
    make_due(ctx)
    rates.refresh(ctx)
    assert (states(ctx)["kraken"].failing_since, states(ctx)["kraken"].last_error) == (None, None)


def test_a_fault_is_told_to_the_log_when_it_changes_and_when_it_is_over(ctx: Context) -> None:
    first, second = (Broken(RateRefused(words, reason=Refusal.ERROR)) for words in ("first", "second"))
    with capture_logs() as lines:
        for source in (first, first, second, Teller("kraken"), Teller("kraken"), second):
            rates.refresh(asking(ctx, kraken=source))
            make_due(ctx)
    told = [(line["event"], line.get("error")) for line in lines]
    assert told == [
        ("rates_refused", "first"),
        ("rates_refused", "second"),
        ("rates_told_again", None),
        ("rates_refused", "second"),
    ]


def test_one_that_is_left_alone_is_not_believed_where_two_must_agree(ctx: Context) -> None:
    down = Broken(RateRefused("the connection was refused", reason=Refusal.UNREACHABLE))
    ctx = asking(ctx, kraken=Teller("kraken"), coingecko=down)
    rates.refresh(ctx)
    assert refusal_of(ctx) == (
        "there is no rate for ETH/EUR: 1 of 2 sources agree, 2 must (kraken says 3000, coingecko is silent)"
    )


def test_one_that_lies_beside_two_honest_ones_changes_nothing_and_beside_one_stops_all(ctx: Context) -> None:
    def liar(_: Pair) -> Decimal:
        return Decimal(1)

    honest = {"kraken": Teller("kraken"), "static": Teller("static")}
    three = asking(ctx, coingecko=Teller("coingecko", liar), **honest)
    rates.refresh(three)
    assert rate_of(three) == 3000
    two = asking(ctx, kraken=honest["kraken"], coingecko=Teller("coingecko", liar))
    assert "kraken 3000 is an outlier, coingecko 1 is an outlier" in refusal_of(two)


def test_what_a_source_told_before_stays_while_it_is_away_and_grows_too_old(ctx: Context) -> None:
    ctx = asking(ctx, kraken=Teller("kraken"))
    rates.refresh(ctx)
    ctx = replace(ctx, rate_sources={"kraken": Broken(RateRefused("it answered 500", reason=Refusal.STATUS))})
    make_due(ctx)
    rates.refresh(ctx)
    assert rate_of(ctx) == 3000, "a minute ago is new enough"
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(as_of=sa.text("now() - interval '301 s'")))
    assert "kraken is stale since" in refusal_of(ctx)


def test_a_source_whose_own_clock_stands_still_is_stale_though_it_answers(ctx: Context) -> None:
    ctx = asking(ctx, coingecko=Teller("coingecko", age=timedelta(seconds=301)), kraken=Teller("kraken"))
    rates.refresh(ctx)
    assert "coingecko is stale since" in refusal_of(ctx)


def test_a_pair_that_is_refused_hinders_no_other_pair(ctx: Context) -> None:
    def tell(pair: Pair) -> Decimal:
        if pair.base == "USDC":
            raise RateRefused("it does not know the pair", reason=Refusal.MISSING)
        return BASES[pair.base]

    ctx = asking(ctx, kraken=Teller("kraken", tell))
    before = counted("kraken", "missing")
    rates.refresh(ctx)
    assert rate_of(ctx) == 3000
    assert states(ctx)["kraken"].last_error == "USDC/EUR: it does not know the pair"
    assert counted("kraken", "missing") == before + 1


@pytest.mark.parametrize(("asked", "waited"), [(None, 60), (30, 60), (600, 600), (999_999_999, 3600)])
def test_a_source_rests_for_as_long_as_it_asks_and_an_hour_at_the_most(
    ctx: Context, asked: int | None, waited: int
) -> None:
    busy = Broken(RateRefused("it answered 429", reason=Refusal.LIMITED, retry_after_s=asked))
    ctx = asking(ctx, kraken=busy)
    rates.refresh(ctx)
    with ctx.sessions.begin() as session:
        left = session.scalar(sa.select(rate_sources.c.next_ask_at - sa.func.now()))
    assert left is not None
    assert timedelta(seconds=waited - 30) < left <= timedelta(seconds=waited)


def test_an_exception_that_nobody_expects_hinders_no_other_source_and_is_told(ctx: Context) -> None:
    ctx = asking(ctx, coingecko=Broken(ZeroDivisionError("a bug")), kraken=Teller("kraken"), static=Teller("static"))
    with pytest.raises(ZeroDivisionError):
        rates.refresh(ctx)
    assert rate_of(ctx) == 3000


def test_a_source_is_asked_again_after_a_crash_in_between(ctx: Context) -> None:
    kraken = Teller("kraken")
    dying = asking(ctx, kraken=Broken(KeyError()))
    with pytest.raises(KeyError):
        rates.refresh(dying)
    ctx = asking(ctx, kraken=kraken)
    assert rates.refresh(ctx) == 0, "it was claimed"
    make_due(ctx)
    assert rates.refresh(ctx) == 1
    assert rate_of(ctx) == 3000


def test_no_secret_gets_into_a_row_and_no_row_grows_long(ctx: Context) -> None:
    told = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw " + "x" * 9_999
    ctx = asking(ctx, kraken=Broken(RateRefused(told, reason=Refusal.ERROR)))
    rates.refresh(ctx)
    error = states(ctx)["kraken"].last_error
    assert error is not None
    assert error.startswith("[redacted] xxx")
    assert len(error) == 300


def test_where_postgres_is_away_nobody_is_asked(ctx: Context) -> None:
    kraken = Teller("kraken")

    class Away:
        def begin(self) -> None:
            raise Unavailable("the database cannot be reached just now")

    with pytest.raises(Unavailable):
        rates.refresh(replace(asking(ctx, kraken=kraken), sessions=Away()))  # type: ignore[arg-type]
    assert kraken.rounds == 0


def test_all_of_it_with_the_sources_as_they_are(ctx: Context) -> None:
    """Kraken and CoinGecko in their own formats, one of them with a pair that it does not know."""
    now = int(ctx.now().timestamp())
    ticker = b'{"error": [], "result": {"XETHZEUR": {"a": ["3001", "1", "1.0"], "b": ["3000.5", "1", "1.0"]}}}'
    price = f'{{"ethereum": {{"eur": 3010.123456789012345678, "last_updated_at": {now}}}}}'.encode()
    with peer(answers(200, body=ticker)) as exchange, peer(answers(200, body=price)) as aggregator:
        sources: dict[str, RateSource] = {
            "kraken": Kraken(f"http://127.0.0.1:{exchange.port}"),
            "coingecko": CoinGecko(f"http://127.0.0.1:{aggregator.port}", api_key=None),
        }
        ctx = asking(ctx, **sources)
        rates.refresh(ctx)
    assert rate_of(ctx) == Decimal("3005.311728394506172839")
    assert states(ctx)["coingecko"].last_error == "usd-coin/EUR: it does not know the pair"
    assert states(ctx)["kraken"].last_error == "USDC/EUR: it has no bid for the pair that was asked for"


# --- what is shown, and forgotten -----------------------------------------------------------------------------------


def test_a_report_says_of_each_asset_what_was_told_and_agreed_on(ctx: Context) -> None:
    ctx = asking(ctx, kraken=Teller("kraken"), coingecko=Broken(RateRefused("no", reason=Refusal.ERROR)))
    rates.refresh(ctx)
    report = rates.report(ctx)
    assert [(each.symbol, each.currency, each.rate) for each in report.quoted] == [
        ("ETH", "EUR", None),
        ("USDC", "EUR", None),
    ]
    assert [told.rate for told in report.quoted[0].told] == [3000]
    assert "coingecko is silent" in str(report.quoted[0].refusal)
    assert report.sources["coingecko"].last_error == "no"


def test_the_oldest_rate_of_a_source_is_watched_and_what_has_no_rate_is_counted(ctx: Context) -> None:
    down = Broken(RateRefused("no", reason=Refusal.ERROR))
    ctx = asking(ctx, kraken=Teller("kraken"), coingecko=down)
    assert overview.take(ctx).rates == overview.RateHealth({"kraken": None, "coingecko": None}, 2)
    rates.refresh(ctx)
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).where(rows.c.base == "USDC").values(as_of=sa.text("to_timestamp(1000)")))
        session.execute(
            rows.insert().values(
                source="kraken",
                base="GONE",
                currency="EUR",
                rate=1,
                as_of=sa.text("to_timestamp(1)"),
                asked_at=sa.func.now(),
            )
        )
    health = overview.take(ctx).rates
    assert health.oldest["kraken"] is not None
    assert health.oldest["kraken"].timestamp() == 1000, "that of what nobody asks for does not count"
    assert health.oldest["coingecko"] == states(ctx)["coingecko"].failing_since
    assert health.unavailable == 2
    assert overview.take(asking(ctx)).rates == overview.RateHealth({}, 0)


def test_what_is_no_longer_configured_is_forgotten(ctx: Context) -> None:
    both = asking(ctx, kraken=Teller("kraken"), coingecko=Teller("coingecko"))
    rates.refresh(both)
    housekeeping.forget(both)
    with ctx.sessions.begin() as session:
        assert len(kept.find_all(session)) == 4
    housekeeping.forget(asking(ctx, kraken=Teller("kraken")))
    with ctx.sessions.begin() as session:
        assert {source for source, _ in kept.find_all(session)} == {"kraken"}
    housekeeping.forget(asking(ctx))
    with ctx.sessions.begin() as session:
        assert kept.find_all(session) == {}
    assert states(ctx) == {}
