"""Prices in fiat on real Postgres: asked for, quoted, chosen once, expired by all of their chains."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import cursors, deadlines, evidence
from ctrip.database import payments as rows
from ctrip.database.engine import Sessions
from ctrip.database.models import chain_cursors, events
from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Chain
from ctrip.domain.evidence import evidence_object, explain
from ctrip.domain.finality import Finality, FinalityRule, Tier
from ctrip.domain.ids import Prefix
from ctrip.domain.payments import Payment, Status
from ctrip.domain.transfers import TransferStatus
from ctrip.errors import (
    ChainNotReady,
    Conflict,
    InvalidAmount,
    InvalidValue,
    NotFound,
    RateUnavailableError,
)
from ctrip.services import creating, payments, prices
from ctrip.services.audit import audit
from ctrip.services.creating import AssetRequest, PaymentRequest, PriceRequest
from ctrip.settings.rates import RateSettings
from tests.api import READ_BLOCK, make_context
from tests.factories import (
    CHAIN_ID,
    MERCHANT_ID,
    NOON,
    OTHER_CHAIN_ID,
    TOKEN,
    asked_of,
    block_time,
    make_chain,
    make_price,
    read_to,
    store_merchant,
    store_payment,
    store_rates,
    store_transfer,
)

pytestmark = pytest.mark.infra
COIN, USDC = AssetRequest("anvil"), AssetRequest("anvil", "USDC")
OTHER = make_chain(name="other", chain_id=OTHER_CHAIN_ID)
CHAINS = {chain.chain_id: chain for chain in (make_chain(), OTHER)}


@pytest.fixture
def ctx(sessions: Sessions) -> Context:
    with sessions.begin() as session:
        store_merchant(session)
        read_to(session, READ_BLOCK)
        store_rates(session, ETH_EUR="3000", USDC_EUR="0.9", ETH_JPY="500000.5")
    return make_context(sessions)


def ask(ctx: Context, price: str = "49.90", *, of: tuple[AssetRequest, ...] = (COIN, USDC), **fields: Any) -> Payment:
    currency = fields.pop("currency", "EUR")
    request = PaymentRequest(PriceRequest(price, currency, of), **fields)
    creating.create(ctx, MERCHANT_ID, request=request)
    with ctx.sessions.begin() as session:
        newest = session.execute(sa.text("SELECT id FROM payments ORDER BY id DESC LIMIT 1")).scalar_one()
    return stored(ctx, newest)


def stored(ctx: Context, payment_id: str) -> Payment:
    with ctx.sessions.begin() as session:
        found = rows.find(session, payment_id)
    assert found is not None
    return found


def choose(ctx: Context, payment: Payment, token: str | None = "USDC", chain: str = "anvil") -> dict[str, Any]:
    return prices.choose(ctx, MERCHANT_ID, payment.id, chain=chain, token=token)


def told(ctx: Context, payment: Payment) -> list[str]:
    with ctx.sessions.begin() as session:
        query = sa.select(events.c.version, events.c.type).where(events.c.payment_id == payment.id)
        found = session.execute(query.order_by(events.c.version)).all()
    assert [row.version for row in found] == list(range(1, len(found) + 1))
    return [row.type.removeprefix("payment.") for row in found]


def with_chain(ctx: Context, **changes: Any) -> Context:
    """The context with another configuration of `anvil`."""
    first, *others = ctx.settings.chains
    chains = (dataclasses.replace(first, **changes), *others)
    return dataclasses.replace(ctx, settings=dataclasses.replace(ctx.settings, chains=chains))


# --- asking ---------------------------------------------------------------------------------------------------------


def test_a_price_is_asked_for_without_an_asset(ctx: Context) -> None:
    payment = ask(ctx, confirmations=5)
    assert (payment.asked, payment.choice, payment.standing.status) == (None, None, Status.PENDING)
    assert payment.price is not None
    assert (payment.price.price, payment.price.currency) == (Decimal("49.90"), "EUR")
    assert [(each.symbol, each.required) for each in payment.price.accepted] == [("ETH", 5), ("USDC", 5)]
    assert told(ctx, payment) == ["created"]


@pytest.mark.parametrize(
    ("price", "currency", "of", "param"),
    [
        ("49.90", "GBP", (COIN,), "price"),
        ("49.90", "EUR", (AssetRequest("nowhere"),), "assets"),
        ("49.90", "EUR", (AssetRequest("resting"),), "assets"),
        ("49.90", "EUR", (COIN, AssetRequest("anvil", "NONE")), "assets"),
        ("49.90", "EUR", (AssetRequest("anvil", "ODD"),), "assets"),
        ("49.90", "EUR", (AssetRequest("anvil", "DAI"),), "assets"),
        ("49.90", "EUR", (USDC, COIN, AssetRequest("anvil", "0x" + TOKEN.hex())), "assets"),
        ("49.901", "EUR", (COIN,), "price"),
        ("100.5", "JPY", (COIN,), "price"),
        ("0", "EUR", (COIN,), "price"),
        ("1e3", "EUR", (COIN,), "price"),
    ],
)
def test_what_cannot_be_priced_is_refused_by_its_field(
    ctx: Context, price: str, currency: str, of: tuple[AssetRequest, ...], param: str
) -> None:
    with pytest.raises(InvalidValue) as refused:
        ask(ctx, price, of=of, currency=currency)
    assert refused.value.param == param


def test_without_sources_no_price_is_told(ctx: Context) -> None:
    off = dataclasses.replace(ctx, settings=dataclasses.replace(ctx.settings, rates=RateSettings()))
    with pytest.raises(InvalidValue) as refused:
        ask(off)
    assert refused.value.param == "price"


def test_each_accepted_chain_was_read(ctx: Context) -> None:
    fresh = ctx.settings.chains[1]
    tokens = (dataclasses.replace(fresh.native, rate_names={"static": "ETH"}),)
    chains = (ctx.settings.chains[0], dataclasses.replace(fresh, tokens=tokens))
    ready = dataclasses.replace(ctx, settings=dataclasses.replace(ctx.settings, chains=chains))
    with pytest.raises(ChainNotReady) as refused:
        ask(ready, of=(COIN, AssetRequest("fresh")))
    assert refused.value.param == "assets"


# --- choosing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "currency", "token", "atomic"),
    [
        ("49.90", "EUR", "USDC", "55444445"),  # 55.4444…: one unit less would be worth less than the price
        ("45", "EUR", "USDC", "50000000"),  # exact: nothing is added
        ("49.90", "EUR", None, "16633333333333334"),
        ("0.01", "EUR", "USDC", "11112"),
        ("1", "JPY", None, "1999998000002"),
    ],
)
def test_the_amount_is_rounded_up_to_the_assets_smallest_unit(
    ctx: Context, price: str, currency: str, token: str | None, atomic: str
) -> None:
    payment = ask(ctx, price, currency=currency)
    shown = choose(ctx, payment, token)
    assert shown["amount_atomic"] == atomic
    assert (shown["chain"], shown["token"], shown["version"]) == ("anvil", token, 2)
    assert told(ctx, payment) == ["created", "updated"]
    assert shown == payments.find(ctx, MERCHANT_ID, payment.id)
    assert audit(ctx) == []


def test_the_rate_is_locked_until_the_quote_is_over(ctx: Context) -> None:
    payment = ask(ctx, expires_in=timedelta(hours=5))
    shown = choose(ctx, payment)
    until = datetime.fromisoformat(shown["expires_at"]) - datetime.fromisoformat(shown["quote"]["locked_at"])
    assert until == ctx.settings.rates.quote
    with ctx.sessions.begin() as session:
        store_rates(session, USDC_EUR="0.1")
    now: dict[str, Any] = payments.find(ctx, MERCHANT_ID, payment.id)
    assert (now["quote"]["rate"], now["amount"]) == ("0.9", "55.444445")


def test_a_quote_never_outlasts_the_payment(ctx: Context) -> None:
    payment = ask(ctx, expires_in=timedelta(seconds=60))
    choose(ctx, payment)
    assert stored(ctx, payment.id).expires_at == payment.expires_at


def test_an_asset_is_chosen_once(ctx: Context) -> None:
    payment = ask(ctx)
    choose(ctx, payment)
    for token in ("USDC", None):
        with pytest.raises(Conflict):
            choose(ctx, payment, token)
    with pytest.raises(Conflict):
        prices.quotes(ctx, MERCHANT_ID, payment.id)


def test_of_16_who_choose_at_once_one_does(ctx: Context) -> None:
    payment = ask(ctx)

    def try_one(number: int) -> bool:
        try:
            choose(ctx, payment, "USDC" if number % 2 else None)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(try_one, range(16))) == 1
    assert told(ctx, payment) == ["created", "updated"]


def test_more_confirmations_are_taken_over_and_the_tier_of_the_amount_too(ctx: Context) -> None:
    first = ctx.settings.chains[0]
    usdc = dataclasses.replace(first.tokens[1], tiers=(Tier(40_000_000, FinalityRule(Finality.FINALIZED, 8)),))
    tiered = with_chain(ctx, tokens=(first.native, usdc))
    for confirmations, required in ((None, 8), (5, 8), (20, 20)):
        payment = ask(tiered, confirmations=confirmations)
        choose(tiered, payment)
        assert asked_of(stored(ctx, payment.id)).rule == FinalityRule(Finality.FINALIZED, required)


def test_what_cannot_be_chosen(ctx: Context) -> None:
    payment = ask(ctx, of=(USDC,))
    for chain, token in (("anvil", None), ("anvil", "DAI"), ("nowhere", "USDC"), ("fresh", None)):
        with pytest.raises(InvalidValue):
            choose(ctx, payment, token, chain)
    disabled = with_chain(ctx, enabled=False)
    with pytest.raises(InvalidValue):
        choose(disabled, payment)
    with pytest.raises(NotFound):
        prices.choose(ctx, "mer_another", payment.id, chain="anvil", token="USDC")
    assert told(ctx, payment) == ["created"]
    choose(ctx, payment, "0x" + TOKEN.hex().upper())


def _cancel(ctx: Context, payment: Payment) -> None:
    payments.cancel(ctx, MERCHANT_ID, payment.id)


def _let_time_pass(ctx: Context, payment: Payment) -> None:
    with ctx.sessions.begin() as session:
        session.execute(sa.text("UPDATE payments SET expires_at = now() - interval '1 second'"))


@pytest.mark.parametrize("end", [_cancel, _let_time_pass])
def test_what_is_over_has_nothing_to_choose(ctx: Context, end: Callable[[Context, Payment], None]) -> None:
    payment = ask(ctx)
    end(ctx, payment)
    with pytest.raises(Conflict):
        choose(ctx, payment)
    with pytest.raises(Conflict):
        prices.quotes(ctx, MERCHANT_ID, payment.id)


def test_a_payment_of_an_amount_has_nothing_to_choose(ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
    with pytest.raises(Conflict):
        choose(ctx, payment)


@pytest.mark.parametrize("old", [None, timedelta(seconds=301), timedelta(seconds=-61)])
def test_without_a_rate_nothing_is_chosen_and_nothing_made_up(ctx: Context, old: timedelta | None) -> None:
    payment = ask(ctx)
    with ctx.sessions.begin() as session:
        session.execute(sa.text("DELETE FROM rates WHERE base = 'USDC'"))
        if old is not None:
            store_rates(session, as_of=ctx.now() - old, USDC_EUR="0.9")
    with pytest.raises(RateUnavailableError):
        choose(ctx, payment)
    assert stored(ctx, payment.id) == payment
    assert told(ctx, payment) == ["created"]
    assert choose(ctx, payment, None)["token"] is None, "another asset has one"


def test_a_price_that_no_amount_can_hold_is_refused_and_stays_open(ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        store_rates(session, ETH_EUR="0.000000000001")
    first = ctx.settings.chains[0]
    fine = with_chain(ctx, tokens=(dataclasses.replace(first.native, decimals=60), *first.tokens[1:]))
    payment = ask(fine, "999999999999999")
    with pytest.raises(InvalidAmount):
        choose(fine, payment, None)
    assert stored(ctx, payment.id).asked is None


# --- quotes ---------------------------------------------------------------------------------------------------------


def test_quotes_say_what_each_asset_would_cost_and_lock_nothing(ctx: Context) -> None:
    payment = ask(ctx)
    with ctx.sessions.begin() as session:
        session.execute(sa.text("DELETE FROM rates WHERE base = 'ETH'"))
    answer: dict[str, Any] = prices.quotes(ctx, MERCHANT_ID, payment.id)
    coin, token = answer["data"]
    assert (coin["token"], coin["amount"], coin["rate"]) == (None, None, None)
    assert "ETH" in coin["unavailable"] and "static" in coin["unavailable"]
    assert (token["token"], token["amount"], token["amount_atomic"]) == ("USDC", "55.444445", "55444445")
    assert (token["rate"], token["unavailable"]) == ("0.9", None)
    assert stored(ctx, payment.id) == payment


# --- money before and after the choice ------------------------------------------------------------------------------


def _arrives(ctx: Context, payment: Payment, amount: int, block: int, **changes: Any) -> None:
    with ctx.sessions.begin() as session:
        store_transfer(session, payment, amount, block, id=ctx.new_id(Prefix.TRANSFER), **changes)
        rows.reassess(session, [payment.id], chains=CHAINS, new_id=ctx.new_id)


def test_money_before_the_choice_is_unexpected_and_stays_so(ctx: Context) -> None:
    payment = ask(ctx, "45")
    _arrives(ctx, payment, 50_000_000, 10, status=TransferStatus.FINAL)
    assert told(ctx, payment) == ["created", "transfer.unexpected"]
    shown = choose(ctx, payment)
    assert (shown["status"], shown["received"], shown["amount"]) == ("pending", "0", "50")
    _arrives(ctx, payment, 50_000_000, 12, status=TransferStatus.FINAL, block_time=ctx.now())
    assert stored(ctx, payment.id).standing.status is Status.CONFIRMED
    found: dict[str, Any] = payments.transfers(ctx, MERCHANT_ID, payment.id, limit=10)
    assert [(each["counts"], each["reason"]) for each in found["data"]] == [(False, "before_choice"), (True, None)]
    assert audit(ctx) == []


def test_one_that_was_paid_too_early_cannot_be_canceled(ctx: Context) -> None:
    payment = ask(ctx)
    _arrives(ctx, payment, 5, 10)
    with pytest.raises(Conflict):
        payments.cancel(ctx, MERCHANT_ID, payment.id)


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_chains(ctx: Context) -> Payment:
    """A payment whose deadline is the time of block 5, and that either of two chains may pay."""
    with ctx.sessions.begin() as session:
        price = make_price(make_chain(), OTHER)
        return store_payment(
            session, new_id=ctx.new_id, asked=None, price=price, created_at=NOON, expires_at=block_time(5)
        )


def due(ctx: Context, chain: Chain) -> list[str]:
    with ctx.sessions.begin() as session:
        return list(session.scalars(deadlines.DUE, {"of_chain": chain.chain_id, "most": 10}))


def settle(ctx: Context, payment: Payment) -> Status:
    with ctx.sessions.begin() as session:
        rows.reassess(session, [payment.id], chains=CHAINS, new_id=ctx.new_id)
    return stored(ctx, payment.id).standing.status


def reads(ctx: Context, chain: Chain, to: int, **changes: Any) -> None:
    with ctx.sessions.begin() as session:
        read_to(session, to, chain=chain, **changes)


def test_it_expires_when_all_accepted_chains_are_read_past_its_deadline(ctx: Context, two_chains: Payment) -> None:
    anvil = make_chain()
    # anvil is at block 20; the other one was never read, then not far enough: block 5 is the deadline itself.
    assert (due(ctx, anvil), settle(ctx, two_chains)) == ([two_chains.id], Status.PENDING)
    assert due(ctx, anvil) == [], "it waits for the other one now, and keeps nobody busy here"
    reads(ctx, OTHER, 7)
    assert (due(ctx, anvil), due(ctx, OTHER), settle(ctx, two_chains)) == ([], [], Status.PENDING)
    reads(ctx, OTHER, 8, after=7)
    assert (due(ctx, anvil), due(ctx, OTHER)) == ([], [two_chains.id])
    assert settle(ctx, two_chains) is Status.EXPIRED
    assert told(ctx, two_chains) == ["created", "expired"]
    assert (due(ctx, anvil), due(ctx, OTHER)) == ([], [])


def test_a_reorg_of_any_of_them_brings_it_back(ctx: Context, two_chains: Payment) -> None:
    reads(ctx, OTHER, 8)
    assert settle(ctx, two_chains) is Status.EXPIRED
    reads(ctx, OTHER, 6, after=3, fork="b")
    assert due(ctx, OTHER) == [two_chains.id]
    assert settle(ctx, two_chains) is Status.PENDING
    assert told(ctx, two_chains) == ["created", "expired", "reverted"]
    assert audit(ctx) == []


def test_each_chain_has_its_own_rule(ctx: Context, two_chains: Payment) -> None:
    strict = make_price(make_chain(), dataclasses.replace(OTHER, finality=Finality.FINALIZED))
    with ctx.sessions.begin() as session:
        patient = store_payment(
            session, new_id=ctx.new_id, asked=None, price=strict, created_at=NOON, expires_at=block_time(5)
        )
    reads(ctx, OTHER, 20)
    for payment in (two_chains, patient):
        settle(ctx, payment)
    assert stored(ctx, two_chains.id).standing.status is Status.EXPIRED
    assert due(ctx, OTHER) == [], "the other waits for the chain's own word"
    with ctx.sessions.begin() as session:
        of = chain_cursors.c
        final = {"finalized_block": 6, "finalized_time": block_time(6)}
        session.execute(sa.update(chain_cursors).where(of.chain_id == OTHER_CHAIN_ID).values(final))
    assert due(ctx, OTHER) == [patient.id]
    assert settle(ctx, patient) is Status.EXPIRED


def test_a_chain_that_it_does_not_accept_has_no_say(ctx: Context) -> None:
    reads(ctx, OTHER, 20)
    with ctx.sessions.begin() as session:
        payment = store_payment(
            session, new_id=ctx.new_id, asked=None, price=make_price(), created_at=NOON, expires_at=block_time(5)
        )
    assert (due(ctx, OTHER), due(ctx, make_chain())) == ([], [payment.id])


def test_what_is_chosen_ends_by_its_own_chain_alone(ctx: Context) -> None:
    payment = ask(ctx)
    choose(ctx, payment)
    with ctx.sessions.begin() as session:
        session.execute(sa.text("UPDATE payments SET expires_at = :then"), {"then": block_time(5)})
    assert due(ctx, make_chain()) == [payment.id]
    assert settle(ctx, payment) is Status.EXPIRED


def test_its_deadline_is_near_on_the_chain_that_it_waits_for(ctx: Context, two_chains: Payment) -> None:
    def near(chain: Chain) -> tuple[object, object]:
        with ctx.sessions.begin() as session:
            position = cursors.position(session, chain.chain_id)
            assert position is not None
            return deadlines.in_reach(session, chain.chain_id, before=block_time(20)), position.deadline

    reads(ctx, OTHER, 7)
    assert near(make_chain()) == ((two_chains.expires_at, 3), two_chains.expires_at)
    assert near(OTHER) == (None, None)
    settle(ctx, two_chains)
    assert near(make_chain()) == (None, None)
    assert near(OTHER) == ((two_chains.expires_at, 3), two_chains.expires_at)


@pytest.mark.parametrize("chains", [(make_chain(),), (make_chain(), dataclasses.replace(OTHER, enabled=False))])
def test_a_chain_that_is_not_served_any_more_has_no_say(
    ctx: Context, two_chains: Payment, chains: tuple[Chain, ...]
) -> None:
    anvil = chains[0]
    with ctx.sessions.begin() as session:
        # It was waited for when it went.
        session.execute(sa.text("UPDATE payments SET waits_for = :chain"), {"chain": OTHER_CHAIN_ID})
    assert due(ctx, anvil) == []
    served = dataclasses.replace(ctx, settings=dataclasses.replace(ctx.settings, chains=chains))
    assert (prices.watch_served(served), prices.watch_served(served)) == (1, 0)
    assert due(ctx, anvil) == [two_chains.id]
    with ctx.sessions.begin() as session:
        rows.reassess(session, [two_chains.id], chains=served.settings.chains_by_id, new_id=ctx.new_id)
    assert stored(ctx, two_chains.id).standing.status is Status.EXPIRED
    assert audit(served) == []


def test_what_is_waited_for_elsewhere_costs_a_head_nothing(ctx: Context, two_chains: Payment) -> None:
    settle(ctx, two_chains)
    with ctx.sessions.begin() as session:
        copy = (
            "INSERT INTO payments SELECT (jsonb_populate_record(p, jsonb_build_object("
            "'id', p.id || n, 'address', '\\x' || lpad(to_hex(n), 40, '0')))).*"
            " FROM payments p, generate_series(1, 5000) n"
        )
        session.execute(sa.text(copy))
        session.execute(sa.text("ANALYZE payments"))
        query = deadlines.DUE.params(of_chain=CHAIN_ID, most=250)
        said = query.compile(dialect=session.dialect, compile_kwargs={"literal_binds": True})
        (plan,) = session.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {said}").scalar_one()
    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 200


def test_evidence_says_what_nobody_chose_and_how_far_each_chain_was_read(ctx: Context, two_chains: Payment) -> None:
    _arrives(ctx, two_chains, 5, 10)
    with ctx.sessions.begin() as session:
        found = evidence.gather(session, two_chains.id, chains=[make_chain()], most=10)
    told = explain(found)
    assert told[0] == (
        "it asks for 49.90 EUR; nobody has chosen an asset yet, of "
        "ETH on anvil, USDC on anvil, ETH on other, USDC on other"
    )
    assert "anvil was read up to block 20" in told
    assert "other is not in CHAINS_FILE any more: nothing on it is read" in told
    assert any("came before an asset was chosen" in each for each in told)
    assert evidence_object(found)["payment"]


def test_what_another_asset_or_one_endpoint_says_of_time_does_not_shut_out_what_is_paid(ctx: Context) -> None:
    payment = ask(ctx, "45")
    late = ctx.now() + timedelta(minutes=20)
    _arrives(ctx, payment, 1, 10, block_time=late, token=NATIVE)
    _arrives(ctx, payment, 1, 11, block_time=late, chain_id=OTHER_CHAIN_ID)
    _arrives(ctx, payment, 1, 12, block_time=late, is_verified=False)
    choose(ctx, payment)
    choice = stored(ctx, payment.id).choice
    assert choice is not None
    assert choice.counts_after <= choice.chosen_at
    _arrives(ctx, payment, 50_000_000, 13, block_time=ctx.now() + timedelta(seconds=1))
    assert stored(ctx, payment.id).standing.status is Status.DETECTED


def test_the_rows_forbid_half_a_choice(ctx: Context) -> None:
    payment = ask(ctx)
    for change in (
        "chain_id = 31337",
        "quote = '{}'",
        "price = NULL",
        "price = 'NaN'",
        "price = 0",
        "assets = NULL",
        "assets = '[]'",
        "waits_for = NULL",
    ):
        with pytest.raises(sa.exc.IntegrityError), ctx.sessions.begin() as session:
            session.execute(sa.text(f"UPDATE payments SET {change} WHERE id = '{payment.id}'"))
