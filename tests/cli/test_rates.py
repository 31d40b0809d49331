"""`ctrip rates`: what each source says, how old it is, and what is agreed on or why not."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import rates as kept
from ctrip.database.models import rates as rows
from ctrip.domain.rates import Pair
from ctrip.outbound.rates import Static
from ctrip.services import rates
from tests.tool import Tool

pytestmark = pytest.mark.infra


@pytest.fixture
def told(ctx: Context) -> Context:
    """A scheduler has asked the fixed rates."""
    ctx = replace(ctx, rate_sources={"static": Static(ctx.settings.rates.static)})
    assert rates.refresh(ctx) == 1
    return ctx


def test_each_asset_has_its_rate_and_each_source_its_word(ctrip: Tool, told: Context) -> None:
    ran = ctrip("rates")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()[2:]]
    assert [(line[1], line[2], line[3], line[4], line[-1]) for line in lines] == [
        ("ETH", "EUR", "static", "2990", "2990"),
        ("ETH", "USD", "static", "3250", "3250"),
        ("USDC", "EUR", "static", "0.92", "0.92"),
        ("USDC", "USD", "static", "1", "1"),
    ]
    first = ctrip("rates", "--json").json[0]
    word = first.pop("told")[0]
    assert 0 <= word.pop("age_seconds") < 30
    assert word == {"source": "static", "rate": "2990", "as_of": first["as_of"]}
    assert first | {"as_of": None} == {
        "chain": "anvil",
        "token": "ETH",
        "currency": "EUR",
        "rate": "2990",
        "as_of": None,
        "refusal": None,
    }


def test_where_an_asset_has_no_rate_it_says_why_and_ends_with_1(ctrip: Tool, told: Context) -> None:
    with told.sessions.begin() as session:
        session.execute(
            sa.update(rows).where(rows.c.base == "USDC", rows.c.currency == "EUR").values(as_of=sa.func.to_timestamp(0))
        )
        session.execute(sa.delete(rows).where(rows.c.base == "ETH"))
        kept.note(session, "static", error="it answered 502 \x1b[2J", wait=timedelta(0))
    ran = ctrip("rates")
    assert ran.code == 1
    assert [line.split()[-1] for line in ran.out.splitlines()[2:]] == ["nothing", "nothing", "nothing", "1"]
    assert "static fails since" in ran.err
    assert "it answered 502 ·[2J" in ran.err
    assert "there is no rate for ETH/EUR: 0 of 1 sources agree, 1 must (static is silent)" in ran.err
    assert "USDC/EUR: 0 of 1 sources agree, 1 must (static is stale since 1970-01-01T00:00:00Z)" in ran.err
    refusals = [each["refusal"] is None for each in ctrip("rates", "--json").json]
    assert refusals == [False, False, False, True]


def test_sources_that_disagree_are_shown_side_by_side(
    ctrip: Tool, told: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_SOURCES", "static,kraken")
    with told.sessions.begin() as session:
        words = kept.find_all(session)
        word = replace(words["static", Pair("ETH", "EUR")], source="kraken", rate=Decimal("2000.5"))
        kept.store(session, {Pair("ETH", "EUR"): word}, asked_at=word.as_of)
    ran = ctrip("rates")
    assert ran.code == 1
    assert [line.split()[3:5] for line in ran.out.splitlines()[2:4]] == [["static", "2990"], ["kraken", "2000.5"]]
    assert "static 2990 is an outlier, kraken 2000.5 is an outlier" in ran.err


def test_without_sources_it_says_that_prices_are_off(
    ctrip: Tool, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_SOURCES", "")
    ran = ctrip("rates")
    assert (ran.code, ran.err) == (0, "prices are off: RATE_SOURCES names no source\n")
    assert "none" in ran.out
