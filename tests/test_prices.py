"""A price in fiat on real parts: money before and after the choice, late, never; all of it is swept."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from ctrip.context import Context
from ctrip.database import payments as payment_rows
from ctrip.domain.addresses import NATIVE
from ctrip.domain.payments import Payment, Settlement, Status
from ctrip.domain.rates import RatePolicy
from ctrip.domain.transfers import Reason
from ctrip.services import creating, prices
from ctrip.services import payments as merchant
from ctrip.services.audit import audit
from ctrip.services.creating import AssetRequest, PaymentRequest, PriceRequest
from ctrip.settings.rates import RateSettings
from tests.devchain import ETHER, USDC, DevChain
from tests.factories import store_rates
from tests.world import World

pytestmark = pytest.mark.infra
LIFE = 16
"""Blocks in which money is final, its gas is topped up, and its sweep is final, with one to spare."""


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    (chain,) = ctx.settings.chains
    coin, usdc = (replace(token, rate_names={"static": token.symbol}) for token in chain.tokens)
    policy = RatePolicy(("static",), least=1, oldest=RateSettings().policy.oldest, spread=Decimal("0.05"))
    rates = RateSettings(sources=("static",), currencies=("EUR",), policy=policy)
    settings = replace(ctx.settings, chains=(replace(chain, tokens=(coin, usdc)),), rates=rates)
    with ctx.sessions.begin() as session:
        store_rates(session, ETH_EUR="3000", USDC_EUR="0.9")
    return World(replace(ctx, settings=settings), anvil)


def ask(world: World, price: str = "45") -> Payment:
    """Ask for a price as a merchant does."""
    assets = (AssetRequest("anvil"), AssetRequest("anvil", "USDC"))
    creating.create(world.ctx, world.merchant_id, request=PaymentRequest(PriceRequest(price, "EUR", assets)))
    listed: dict[str, Any] = merchant.matching(world.ctx, world.merchant_id, filters={}, limit=1)
    with world.ctx.sessions.begin() as session:
        found = payment_rows.find(session, listed["data"][0]["id"])
    assert found is not None
    return found


def choose(world: World, asked: Payment, token: str | None) -> dict[str, Any]:
    return prices.choose(world.ctx, world.merchant_id, asked.id, chain="anvil", token=token)


def reasons(world: World, asked: Payment) -> list[Reason | None]:
    """Why what others sent does not count; gas for the sweep is ours."""
    return [transfer.reason for transfer in world.transfers(asked) if not transfer.is_own]


def late(world: World, asked: Payment) -> None:
    """Let the chain go on to where the deadline has passed for good."""
    world.anvil.mine_at(int(world.payment(asked).expires_at.timestamp()) + 1)
    world.anvil.mine(world.chain.confirmations)


def test_a_chosen_price_is_paid_and_settled(world: World, usdc: bytes) -> None:
    asked = ask(world)
    chosen = choose(world, asked, "USDC")
    world.anvil.pay_token(usdc, asked.address, int(chosen["amount_atomic"]))
    world.live(LIFE)
    assert world.events(asked) == ["created", "updated", "detected", "confirmed", "settled"]
    assert world.treasury(usdc) == 50 * USDC
    assert audit(world.ctx) == []


def test_money_before_the_choice_is_told_swept_and_does_not_count(world: World, usdc: bytes) -> None:
    asked = ask(world)
    world.anvil.pay_token(usdc, asked.address, 50 * USDC)
    world.live(LIFE)
    assert world.events(asked) == ["created", "transfer.unexpected"]
    chosen = choose(world, asked, "USDC")
    assert (chosen["received"], chosen["status"]) == ("0", "pending")
    world.anvil.pay_token(usdc, asked.address, 50 * USDC)
    world.live(LIFE)
    assert reasons(world, asked) == [Reason.BEFORE_CHOICE, None]
    assert world.payment(asked).standing.status is Status.SETTLED
    assert world.treasury(usdc) == 100 * USDC
    assert audit(world.ctx) == []


def test_it_is_settled_when_what_counts_is_swept_and_not_by_what_came_before(world: World, usdc: bytes) -> None:
    asked = ask(world)
    world.anvil.pay_token(usdc, asked.address, 50 * USDC)
    world.live(LIFE)
    choose(world, asked, "USDC")
    world.anvil.pay_token(usdc, asked.address, 50 * USDC)
    world.anvil.mine(world.chain.confirmations)
    world.scan()
    standing = world.payment(asked).standing
    assert (standing.status, standing.settlement) == (Status.CONFIRMED, Settlement.WAITING), "nothing has moved since"
    world.live(LIFE)
    assert world.payment(asked).standing.status is Status.SETTLED
    assert world.treasury(usdc) == 100 * USDC


def test_a_block_that_was_not_read_yet_may_hold_money_from_before_the_choice(world: World) -> None:
    asked = ask(world)
    world.anvil.set_time(world.anvil.head_time() - 60)
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine()
    choose(world, asked, None)
    world.live(LIFE)
    assert reasons(world, asked) == [Reason.BEFORE_CHOICE]
    assert world.payment(asked).standing.received == 0


def test_the_wrong_asset_after_the_choice_is_unexpected(world: World, usdc: bytes) -> None:
    asked = ask(world)
    choose(world, asked, None)
    world.anvil.pay_token(usdc, asked.address, 50 * USDC)
    world.live(LIFE)
    assert reasons(world, asked) == [Reason.ASSET]
    assert world.events(asked) == ["created", "updated", "transfer.unexpected"]
    assert world.treasury(usdc) == 50 * USDC


def test_what_nobody_chose_expires_when_the_chain_says_so(world: World) -> None:
    asked = ask(world)
    world.live(LIFE)
    assert world.payment(asked).standing.status is Status.PENDING
    late(world, asked)
    world.scan()
    assert world.events(asked) == ["created", "expired"]
    assert audit(world.ctx) == []


def test_money_after_the_quote_is_late_and_may_be_accepted(world: World) -> None:
    asked = ask(world)
    chosen = choose(world, asked, None)
    late(world, asked)
    world.anvil.pay(asked.address, int(chosen["amount_atomic"]))
    world.live(LIFE)
    assert world.events(asked)[:4] == ["created", "updated", "expired", "late"]
    merchant.accept(world.ctx, world.merchant_id, asked.id)
    assert world.payment(asked).standing.status is Status.SETTLED
    assert world.treasury(NATIVE) > 0
    assert audit(world.ctx) == []
