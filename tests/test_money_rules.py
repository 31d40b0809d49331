"""The money rules on real parts: what was paid how and when, what the payment became, what was told, what was swept."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import sweep_intents
from ctrip.domain.addresses import NATIVE
from ctrip.domain.payments import Payment, Settlement, Status
from ctrip.services import payments as merchant
from ctrip.services.audit import audit
from tests.devchain import ETHER, USDC, DevChain
from tests.factories import asked_of
from tests.world import World

pytestmark = pytest.mark.infra

LIFE = 16
"""Blocks in which a payment of tokens is final, its gas is topped up, and its sweep is final, with one to spare."""
SECONDS = 600
"""How long the payments here may be paid."""


@dataclass
class Buyers:
    """Two who were asked for the same, one in coin and one in tokens, and do the same. Shares are percents of it."""

    world: World
    usdc: bytes
    asked: tuple[Payment, ...]

    def pay(self, *shares: int) -> None:
        """Send shares, each a transaction, all for the next block."""
        for asked in self.asked:
            for share in shares:
                self._send(asked, asked_of(asked).token, asked_of(asked).amount * share // 100)

    def pay_other(self) -> None:
        """Send the asset that was not asked for."""
        for asked in self.asked:
            other, amount = (self.usdc, 3 * USDC) if asked_of(asked).token == NATIVE else (NATIVE, ETHER)
            self._send(asked, other, amount)

    def pay_at_once(self, *shares: int) -> None:
        """Send shares of tokens in one transaction."""
        for asked in self.asked:
            self.world.anvil.pay_tokens(
                self.usdc, [(asked.address, asked_of(asked).amount * share // 100) for share in shares]
            )

    def _send(self, asked: Payment, token: bytes, amount: int) -> None:
        if token == NATIVE:
            self.world.anvil.pay(asked.address, amount)
        else:
            self.world.anvil.pay_token(token, asked.address, amount)

    def block(self, count: int = 1) -> None:
        """Let blocks pass that are read, but not swept."""
        for _ in range(count):
            self.world.anvil.mine()
            self.world.scan()

    def live(self) -> None:
        """Let as many blocks pass as it takes for all to come to rest."""
        self.world.live(LIFE)

    def miss_the_deadline(self, *, by_s: int = 1) -> None:
        """Let the next block be too late."""
        self.world.anvil.mine_at(int(self.asked[0].expires_at.timestamp()) + by_s)
        self.world.scan()

    def cancel(self) -> None:
        for asked in self.asked:
            merchant.cancel(self.world.ctx, asked.merchant_id, asked.id)

    def accept(self) -> None:
        for asked in self.asked:
            merchant.accept(self.world.ctx, asked.merchant_id, asked.id)


Act = Callable[[Buyers], None]


@dataclass(frozen=True)
class Case:
    """What happens, and how it ends: `status amount_status timing settlement`, the events, and the percents swept."""

    acts: tuple[Act, ...]
    standing: str
    events: str
    swept: int
    asked: dict[str, Any] = field(default_factory=dict)


def pay(*shares: int) -> Act:
    return lambda buyers: buyers.pay(*shares)


def block(count: int = 1) -> Act:
    return lambda buyers: buyers.block(count)


live, cancel, accept, late = Buyers.live, Buyers.cancel, Buyers.accept, Buyers.miss_the_deadline

CASES = {
    "exact": Case((pay(100), live), "settled exact on_time done", "created detected confirmed settled", swept=100),
    "in three parts": Case(
        (pay(30), block(), pay(30), block(), pay(40), live),
        "settled exact on_time done",
        "created partially_paid partially_paid detected confirmed settled",
        swept=100,
    ),
    "two transfers in one block": Case(
        (pay(60, 40), live), "settled exact on_time done", "created detected confirmed settled", swept=100
    ),
    "under": Case(
        (pay(99), live, late, block(3), live),
        "expired partial - done",
        "created partially_paid expired",
        swept=99,
    ),
    "under, accepted": Case(
        (pay(99), block(), late, block(3), accept, live),
        "settled partial - done",
        "created partially_paid expired accepted settled",
        swept=99,
    ),
    "under, within the tolerance": Case(
        (pay(99), live),
        "settled partial on_time done",
        "created detected confirmed settled",
        swept=99,
        asked={"tolerance_bps": 100},
    ),
    "over": Case((pay(150), live), "settled over on_time done", "created detected confirmed settled", swept=150),
    "late": Case(
        (pay(100), late, block(2), live), "expired exact late done", "created late expired updated", swept=100
    ),
    "late, then accepted": Case(
        (pay(100), late, block(2), accept, live),
        "settled exact late done",
        "created late expired accepted settled",
        swept=100,
    ),
    "late and swept, then accepted": Case(
        (pay(100), late, block(2), live, accept),
        "settled exact late done",
        "created late expired updated accepted settled",
        swept=100,
    ),
    "late by its last part": Case(
        (pay(60), block(), pay(40), late, block(2), live),
        "expired exact late done",
        "created partially_paid late expired updated",
        swept=100,
    ),
    "paid in the very last second": Case(
        (pay(100), lambda buyers: buyers.miss_the_deadline(by_s=0), live),
        "settled exact on_time done",
        "created detected confirmed settled",
        swept=100,
    ),
    "never paid": Case((block(), late, block(3)), "expired none - none", "created expired", swept=0),
    "canceled, then paid": Case(
        (cancel, pay(100), live),
        "canceled exact on_time done",
        "created canceled late updated updated",
        swept=100,
    ),
    "canceled, then paid, then accepted": Case(
        (cancel, pay(100), block(3), accept, live),
        "settled exact on_time done",
        "created canceled late updated accepted settled",
        swept=100,
    ),
    "the wrong asset": Case(
        (lambda buyers: buyers.pay_other(), live),
        "pending none - none",
        "created transfer.unexpected",
        swept=0,
    ),
    "the wrong asset, then the right one": Case(
        (lambda buyers: buyers.pay_other(), block(3), pay(100), live, live),
        "settled exact on_time done",
        "created transfer.unexpected detected confirmed settled",
        swept=100,
    ),
    "a second payment after settlement": Case(
        (pay(100), live, pay(100), live),
        "settled over on_time done",
        "created detected confirmed settled updated transfer.unexpected",
        swept=200,
    ),
    "nothing, spent often": Case((pay(0, 0, 0), live), "pending none - none", "created", swept=0),
}


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    return World(ctx, anvil)


@pytest.mark.parametrize("name", CASES)
def test_a_payment_ends_as_its_rules_say(world: World, usdc: bytes, name: str) -> None:
    case = CASES[name]
    asked = tuple(_ask(world, token, **case.asked) for token in (NATIVE, usdc))
    _check(world, Buyers(world, usdc, asked), case)


def test_three_transfers_in_one_transaction_add_up(world: World, usdc: bytes) -> None:
    case = replace(CASES["exact"], acts=(lambda buyers: buyers.pay_at_once(30, 30, 40), live))
    _check(world, Buyers(world, usdc, (_ask(world, usdc),)), case)


def _ask(world: World, token: bytes, **asked: Any) -> Payment:
    amount = ETHER if token == NATIVE else 10 * USDC
    return world.ask(amount, token=token, expires_in_s=SECONDS, **asked)


def _check(world: World, buyers: Buyers, case: Case) -> None:
    before = {asked_of(asked).token: world.treasury(asked_of(asked).token) for asked in buyers.asked}
    for act in case.acts:
        act(buyers)
    for asked in buyers.asked:
        standing = world.payment(asked).standing
        seen = f"{standing.status} {standing.amount_status} {standing.timing or '-'} {standing.settlement}"
        assert (seen, " ".join(world.events(asked))) == (case.standing, case.events), asked_of(asked).symbol
        assert world.deliveries(asked) == len(world.events(asked)), "each event is owed to the payment's URL"
        assert _taken(world, asked) == asked_of(asked).amount * case.swept // 100, asked_of(asked).symbol
    for token, there in before.items():
        assert world.treasury(token) - there == _arrived(world, token), "the treasury has what the rows say"
    assert audit(world.ctx) == []


def _taken(world: World, asked: Payment) -> int:
    """The base units of a payment's asset that sweeps took, gas included, save what top-ups had brought."""
    of = sweep_intents.c
    here = sa.and_(of.kind == "sweep", of.state == "done", of.address == asked.address)
    spent = of.gas_cost - sa.func.coalesce(of.own_coin, 0) if asked_of(asked).token == NATIVE else sa.literal(0)
    query = sa.select(sa.func.sum(sa.case((of.token == asked_of(asked).token, of.amount), else_=0) + spent)).where(here)
    with world.ctx.sessions.begin() as session:
        return int(session.scalar(query) or 0)


def _arrived(world: World, token: bytes) -> int:
    of = sweep_intents.c
    query = sa.select(sa.func.sum(of.amount)).where(of.kind == "sweep", of.state == "done", of.token == token)
    with world.ctx.sessions.begin() as session:
        return int(session.scalar(query) or 0)


# --- what is no payment ---------------------------------------------------------------------------------------------


def test_coin_that_was_refused_on_the_chain_was_not_paid(world: World) -> None:
    asked = world.ask(ETHER)
    world.anvil.set_code(asked.address, bytes.fromhex("5f5ffd"))
    paid = world.anvil.send(sender=world.anvil.faucet, to=asked.address, value=ETHER, gas=hex(100_000))
    world.live(5)
    assert world.anvil.wait_mined(paid)["status"] == "0x0"
    assert (world.events(asked), world.transfers(asked)) == (["created"], [])
    assert audit(world.ctx) == []


def test_a_token_that_is_not_listed_is_no_money(world: World) -> None:
    asked = world.ask(10 * USDC, token=world.chain.tokens[1].address)
    forged = world.anvil.deploy_token()
    world.anvil.pay_token(forged, asked.address, 10 * USDC)
    world.live(5)
    assert world.ctx.clients[world.chain.chain_id].balances([(asked.address, forged)]) == [10 * USDC]
    assert (world.events(asked), world.transfers(asked)) == (["created"], [])
    assert audit(world.ctx) == []


def test_two_payments_paid_in_one_block_are_each_settled(world: World, usdc: bytes) -> None:
    buyers = Buyers(world, usdc, tuple(_ask(world, token) for token in (usdc, usdc, NATIVE, NATIVE)))
    buyers.pay(100)
    buyers.live()
    for asked in buyers.asked:
        assert world.events(asked) == ["created", "detected", "confirmed", "settled"]
    assert len({world.transfers(asked)[0].block_number for asked in buyers.asked}) == 1
    assert audit(world.ctx) == []


def test_one_transaction_may_pay_two(world: World, usdc: bytes) -> None:
    first, second = (_ask(world, usdc) for _ in range(2))
    world.anvil.pay_tokens(usdc, [(first.address, asked_of(first).amount), (second.address, asked_of(second).amount)])
    world.live(LIFE)
    assert [world.payment(asked).standing.status for asked in (first, second)] == [Status.SETTLED] * 2


def test_what_nobody_asked_for_is_swept_and_its_gas_is_no_payment(world: World, usdc: bytes) -> None:
    coin, tokens = _ask(world, NATIVE), _ask(world, usdc)
    Buyers(world, usdc, (coin, tokens)).pay_other()
    world.live(LIFE)
    held = world.ctx.clients[world.chain.chain_id].balances([(coin.address, usdc), (tokens.address, NATIVE)])
    assert held == [0, 0]
    assert any(transfer.is_own for transfer in world.transfers(coin)), "the sweep of the tokens was topped up with coin"
    for asked in (coin, tokens):
        now = world.payment(asked).standing
        assert (now.status, now.received, now.settlement) == (Status.PENDING, 0, Settlement.NONE)


# --- reorgs that change time ----------------------------------------------------------------------------------------


def test_a_payment_in_a_block_that_replaced_the_very_first_is_found(ctx: Context, anvil: DevChain) -> None:
    anvil.mine(3)
    world = World(ctx, anvil)
    asked = world.ask(ETHER)
    world.anvil.call("anvil_rollback", 2)
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine(5)
    world.scan()
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert audit(world.ctx) == []


def test_a_chain_that_got_shorter_brings_back_a_payment_that_waits_longer_than_others(world: World) -> None:
    asked = world.ask(ETHER, required=10, expires_in_s=5)
    while world.payment(asked).standing.status is Status.PENDING:
        world.anvil.mine()
        world.scan()
    world.anvil.call("anvil_rollback", 5)
    world.anvil.pay(b"\x11" * 20, 1)  # or the next block could be the very one that was there
    world.anvil.mine()
    world.scan()
    assert world.payment(asked).standing.status is Status.PENDING
    assert audit(world.ctx) == []
    world.anvil.mine(10)
    world.scan()
    assert world.events(asked) == ["created", "expired", "reverted", "expired"]
