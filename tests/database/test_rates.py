"""The words of sources, as they are kept: exact, one for each pair, and nothing that is no rate."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.database import rates
from ctrip.database.engine import Sessions
from ctrip.database.models import rates as rows
from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Token
from ctrip.domain.rates import LEAST_RATE, MOST_RATE, Pair, Told
from tests.factories import NOON

pytestmark = pytest.mark.infra

ETHER = Token("ETH", NATIVE, 18, rate_names={"kraken": "ETH", "coingecko": "ethereum"})
ETH_EUR, ETHER_EUR = Pair("ETH", "EUR"), Pair("ethereum", "EUR")


def told(source: str, rate: Decimal | str, as_of: datetime = NOON) -> Told:
    return Told(source, Decimal(rate), as_of)


@pytest.fixture
def kept(sessions: Sessions) -> Sessions:
    """What two sources said of several pairs."""
    of_kraken = {ETH_EUR: "3000", Pair("ETH", "USD"): "3300", Pair("ethereum", "EUR"): "1"}
    of_coingecko = {ETHER_EUR: "3010", Pair("ETH", "EUR"): "2"}
    with sessions.begin() as session:
        rates.store(session, {pair: told("kraken", rate) for pair, rate in of_kraken.items()}, asked_at=NOON)
        rates.store(session, {pair: told("coingecko", rate) for pair, rate in of_coingecko.items()}, asked_at=NOON)
    return sessions


@pytest.fixture
def statements(kept: Sessions) -> Iterator[list[tuple[str, Any]]]:
    """Each statement that is sent, with its values."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        seen.append((statement, values))

    sa.event.listen(kept.engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(kept.engine, "before_cursor_execute", note)


def test_an_asset_is_looked_up_by_the_name_that_each_source_has_for_it_in_one_statement_by_the_key(
    kept: Sessions, statements: list[tuple[str, Any]]
) -> None:
    with kept.begin() as session:
        found = rates.read(session, ETHER, "EUR")
        assert sorted(found, key=lambda each: each.rate) == [told("kraken", "3000"), told("coingecko", "3010")]
        ((statement, values),) = statements
        session.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = "\n".join(session.exec_driver_sql(f"EXPLAIN {statement}", values).scalars())
    assert "pk_rates" in plan
    assert "Seq Scan" not in plan


def test_an_asset_without_a_name_has_no_words_and_nobody_is_asked(
    kept: Sessions, statements: list[tuple[str, Any]]
) -> None:
    with kept.begin() as session:
        assert rates.read(session, Token("NEW", b"\x01" * 20, 6), "EUR") == []
        assert rates.read(session, ETHER, "JPY") == []
    assert len(statements) == 1


@pytest.mark.parametrize(
    "rate",
    [
        LEAST_RATE,
        MOST_RATE,
        Decimal("3012.1234567890123456789012345678901234567890"),
        Decimal("1.5E-7"),
        Decimal("3E+3"),
    ],
)
def test_a_rate_is_kept_to_its_last_digit(sessions: Sessions, rate: Decimal) -> None:
    with sessions.begin() as session:
        rates.store(session, {ETH_EUR: told("kraken", rate)}, asked_at=NOON)
    with sessions.begin() as session:
        assert rates.read(session, ETHER, "EUR") == [told("kraken", rate)]
        assert rates.find_all(session) == {("kraken", ETH_EUR): told("kraken", rate)}


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "Infinity", "1000000000000.1", "0.0000000000009"])
def test_what_is_no_rate_cannot_be_stored(sessions: Sessions, rate: str) -> None:
    with pytest.raises(sa.exc.IntegrityError, match="ck_rates_rate_range"), sessions.begin() as session:
        rates.store(session, {ETH_EUR: told("kraken", rate)}, asked_at=NOON)


def test_an_answer_to_an_earlier_question_that_comes_late_changes_nothing(sessions: Sessions) -> None:
    second = timedelta(seconds=1)
    for rate, asked_at, kept in ((3000, NOON, 3000), (3001, NOON + second, 3001), (2999, NOON, 3001)):
        with sessions.begin() as session:
            rates.store(session, {ETH_EUR: told("kraken", Decimal(rate))}, asked_at=asked_at)
            assert [each.rate for each in rates.read(session, ETHER, "EUR")] == [kept]


def test_what_nobody_is_asked_for_any_more_is_forgotten(kept: Sessions) -> None:
    with kept.begin() as session:
        rates.claim(session, ["kraken", "coingecko"], every=timedelta(seconds=60))
    with kept.begin() as session:
        assert rates.forget(session, {"kraken": [ETH_EUR, Pair("ETH", "USD"), Pair("NEW", "EUR")]}) == 4
        assert set(rates.find_all(session)) == {("kraken", ETH_EUR), ("kraken", Pair("ETH", "USD"))}
        assert set(rates.find_sources(session)) == {"kraken"}
        assert rates.forget(session, {"kraken": [ETH_EUR, Pair("ETH", "USD")]}) == 0
        assert rates.forget(session, {}) == 3
        assert session.scalar(sa.select(sa.func.count()).select_from(rows)) == 0


def test_a_source_that_is_due_is_taken_by_one_and_rests_for_as_long_as_it_asks(sessions: Sessions) -> None:
    every = timedelta(seconds=60)
    with sessions.begin() as session:
        taken = rates.claim(session, ["kraken", "coingecko"], every=every)
        assert set(taken) == {"kraken", "coingecko"}
        assert abs(taken["kraken"] - datetime.now(UTC)) < timedelta(seconds=30)
    with sessions.begin() as session:
        assert rates.claim(session, ["kraken"], every=every) == {}
        rates.note(session, "kraken", error="it answered 429", wait=timedelta(seconds=1000))
        rates.note(session, "coingecko", error=None, wait=timedelta(0))
        states = rates.find_sources(session)
        assert states["kraken"].next_ask_at - taken["kraken"] > timedelta(seconds=999)
        assert states["coingecko"].next_ask_at - taken["coingecko"] == every
        assert (states["kraken"].last_error, states["coingecko"].failing_since) == ("it answered 429", None)


def test_a_source_fails_since_its_first_fault_until_it_tells_all(sessions: Sessions) -> None:
    moments = []
    for error in ("first", "second", None, "third"):
        with sessions.begin() as session:
            rates.claim(session, ["kraken"], every=timedelta(0))
            rates.note(session, "kraken", error=error, wait=timedelta(0))
            state = rates.find_sources(session)["kraken"]
            assert state.last_error == error
            moments.append(state.failing_since)
    first, second, none, third = moments
    assert first == second
    assert none is None
    assert first is not None
    assert third is not None
    assert third > first
