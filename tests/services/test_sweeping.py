"""The sweeper on a real dev chain and Postgres: final money reaches the treasury once, whatever happens in between."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from eth_account import Account

from ctrip import runs
from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database import cursors, loops, sweeps
from ctrip.database.models import signers, sweep_attempts, sweep_intents
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.gas import Fees
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.payments import Payment, Settlement, Status
from ctrip.domain.sweeps import Attempt, HeldReason, Intent, IntentKind, IntentState
from ctrip.errors import Conflict, LostFence, NodeRefused, NotFound
from ctrip.services import sweeping
from ctrip.services.audit import audit
from ctrip.services.sweeping import sweep_chain
from ctrip.services.sweeping.planning import plan
from ctrip.services.sweeping.run import Run
from ctrip.services.sweeping.signing import sign_sweeps
from tests.between import Answer, between, forward
from tests.conftest import GAS_WALLET, MNEMONIC
from tests.devchain import ETHER, USDC, DevChain
from tests.factories import asked_of
from tests.waiting import wait_until
from tests.world import World

pytestmark = pytest.mark.infra

GWEI = 10**9
REFUSE_ALL = bytes.fromhex("5f5ffd")  # PUSH0 PUSH0 REVERT
ACCEPT_AND_COUNT = bytes.fromhex("5f5460010160005500")  # storage[0] += 1
ANSWER_FALSE = bytes.fromhex("5f5f5260205ff3")  # moves nothing, and returns 32 bytes of zeros


@pytest.fixture
def robbed_world(ctx: Context, anvil: DevChain) -> World:
    """A world in which somebody else has our keys."""
    anvil.mine(20)  # so that no reorg here reaches what all tests stand on
    return World(ctx, anvil)


@pytest.fixture
def world(robbed_world: World, ctx: Context) -> Iterator[World]:
    """A world whose rows and chain the auditor finds in order, whatever a test did to it."""
    yield robbed_world
    robbed_world.scan()
    assert audit(ctx) == []


# --- what a test asks ------------------------------------------------------------------------------------------------


def sweeps_of(world: World, asked: Payment) -> list[Intent]:
    return [intent for intent, _ in evidence(world, asked) if intent.kind is IntentKind.SWEEP]


def topups_of(world: World, asked: Payment) -> list[Intent]:
    return [intent for intent, _ in evidence(world, asked) if intent.kind is IntentKind.TOPUP]


def attempts_of(world: World, asked: Payment) -> list[Attempt]:
    return [
        attempt
        for intent, attempts in evidence(world, asked)
        if intent.kind is IntentKind.SWEEP
        for attempt in attempts
    ]


def evidence(world: World, asked: Payment) -> list[tuple[Intent, tuple[Attempt, ...]]]:
    with world.ctx.sessions.begin() as session:
        return sweeps.of_payment(session, asked.id, limit=100)


def in_order_of_nonce(world: World, asked: Payment) -> list[bytes]:
    return [intent.token for intent in sorted(sweeps_of(world, asked), key=lambda intent: intent.nonce or 0)]


def states(world: World, asked: Payment) -> list[IntentState]:
    return [intent.state for intent in sweeps_of(world, asked)]


def live_until(world: World, condition: Callable[[], object], *, blocks: int = 30) -> None:
    for _ in range(blocks):
        if condition():
            return
        world.live(1)
    raise AssertionError(f"not within {blocks} blocks")


def settled(world: World, *asked: Payment) -> Callable[[], bool]:
    return lambda: all(world.payment(each).standing.status is Status.SETTLED for each in asked)


def failed(world: World, asked: Payment, *, times: int) -> Callable[[], bool]:
    return lambda: states(world, asked).count(IntentState.FAILED) == times


def settlement(world: World, asked: Payment) -> Settlement:
    return world.payment(asked).standing.settlement


def pay(world: World, asked: Payment, amount: int | None = None, *, token: bytes | None = None) -> None:
    """Pay an address, and let it become final; the sweeper sleeps."""
    token = asked_of(asked).token if token is None else token
    amount = asked_of(asked).amount if amount is None else amount
    if token == NATIVE:
        world.anvil.pay(asked.address, amount)
    else:
        world.anvil.pay_token(token, asked.address, amount)
    world.anvil.mine(3)
    world.scan()


def run_of(world: World) -> Run:
    """A claimed tick, for a test that calls its steps one by one and dies in between."""
    ctx, chain = world.ctx, world.chain
    with ctx.sessions.begin() as session:
        session.execute(sa.text("UPDATE loops SET next_run_at = now(), lease_until = NULL"))
        claim = loops.claim(session, loops.loop_name(LoopKind.SWEEPER, chain.chain_id))
        position = cursors.position(session, chain.chain_id)
    assert claim is not None and position is not None and ctx.signer is not None
    loop = runs.Run(ctx, claim, chain, position, ctx.now())
    return Run(loop, client=ctx.clients[chain.chain_id], signer=ctx.signer, cursor=position.cursor)


def make_overdue(world: World) -> None:
    with world.ctx.sessions.begin() as session:
        session.execute(sa.update(sweep_intents).values(sent_at=sweep_intents.c.sent_at - timedelta(minutes=5)))


def with_chain(world: World, **changes: object) -> World:
    """The same world under other settings of its chain."""
    chain: Chain = replace(world.chain, **changes)  # type: ignore[arg-type]
    settings = replace(world.ctx.settings, chains=(chain,))
    world.ctx = replace(world.ctx, settings=settings)
    world.chain = chain
    return world


def with_client(world: World, client: ChainClient) -> World:
    world.ctx = replace(world.ctx, clients={world.chain.chain_id: client})
    return world


def base_fee(world: World, wei: int) -> None:
    """Mine a block with this base fee; the next blocks come down by an eighth each."""
    world.anvil.call("anvil_setNextBlockBaseFeePerGas", hex(wei))
    world.anvil.mine()


def spend_behind_our_back(world: World, asked: Payment, *, nonce: int) -> None:
    """Somebody else has the key of the address, and uses it."""
    Account.enable_unaudited_hdwallet_features()
    with world.ctx.sessions.begin() as session:
        index = session.scalar(
            sa.text("SELECT derivation_index FROM deposit_addresses WHERE payment_id = :id"), {"id": asked.id}
        )
    key = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}").key
    transaction = {"chainId": world.chain.chain_id, "nonce": nonce, "gas": 21_000, "gasPrice": 100 * GWEI, "value": 1}
    signed = Account.sign_transaction(transaction | {"to": "0x" + "66" * 20}, key)
    world.anvil.call("eth_sendRawTransaction", hex_text(bytes(signed.raw_transaction)))


# --- the plain way ---------------------------------------------------------------------------------------------------


def test_coin_goes_to_the_treasury_and_not_one_wei_stays(world: World) -> None:
    asked = world.ask(ETHER)
    before = world.treasury()
    world.anvil.pay(asked.address, ETHER)
    live_until(world, settled(world, asked))
    (swept,) = sweeps_of(world, asked)
    assert world.anvil.balance(asked.address) == 0
    assert swept.amount is not None and swept.gas_cost is not None
    assert world.treasury() - before == swept.amount == ETHER - swept.gas_cost
    assert world.anvil.call("eth_getTransactionCount", hex_text(asked.address), "latest") == "0x1"
    assert world.events(asked) == ["created", "detected", "confirmed", "settled"]
    assert settlement(world, asked) is Settlement.DONE


def test_tokens_are_signed_for_only_when_their_gas_is_final(world: World, usdc: bytes) -> None:
    asked = world.ask(5 * USDC, token=usdc)
    pay(world, asked)
    world.sweep()
    (topup,) = topups_of(world, asked)
    assert (topup.state, states(world, asked)) == (IntentState.SENT, [IntentState.PLANNED])
    for _ in range(2):  # it is mined, but not deep enough
        world.live(1)
        assert (topups_of(world, asked)[0].state, states(world, asked)) == (IntentState.MINED, [IntentState.PLANNED])
    world.live(1)
    assert (topups_of(world, asked)[0].state, states(world, asked)) == (IntentState.DONE, [IntentState.SENT])
    live_until(world, settled(world, asked))
    assert world.treasury(usdc) == 5 * USDC
    assert world.anvil.balance(asked.address, usdc) == 0
    assert world.events(asked) == ["created", "detected", "confirmed", "settled"]


def test_our_own_gas_is_no_payment(world: World, usdc: bytes) -> None:
    asked = world.ask(5 * USDC, token=usdc)
    pay(world, asked)
    live_until(world, settled(world, asked))
    world.live(5)
    (own,) = [transfer for transfer in world.transfers(asked) if transfer.is_own]
    assert own.token == NATIVE
    assert not [intent for intent in sweeps_of(world, asked) if intent.token == NATIVE]


def test_an_address_with_coin_and_tokens_is_emptied_coin_first(world: World, usdc: bytes) -> None:
    asked = world.ask(ETHER)
    world.anvil.pay(asked.address, ETHER)
    world.anvil.pay_token(usdc, asked.address, 7 * USDC)
    world.anvil.mine(3)
    world.scan()
    plan(run_of(world))
    with world.ctx.sessions.begin() as session:  # the tokens come first in the queue
        coin = sweep_intents.c.token == NATIVE
        session.execute(sa.update(sweep_intents).where(coin).values(looked_at=sa.func.now()))
    live_until(world, lambda: states(world, asked) == [IntentState.DONE] * 2)
    assert in_order_of_nonce(world, asked) == [NATIVE, usdc]
    assert world.treasury(usdc) == 7 * USDC
    assert world.payment(asked).standing.status is Status.SETTLED


def test_coin_that_comes_after_gas_was_brought_for_tokens_does_not_take_it_away(world: World, usdc: bytes) -> None:
    asked = world.ask(7 * USDC, token=usdc)
    pay(world, asked)
    world.sweep()  # the top-up is sent
    world.anvil.pay(asked.address, ETHER)
    live_until(world, lambda: states(world, asked) == [IntentState.DONE] * 2)
    assert in_order_of_nonce(world, asked) == [usdc, NATIVE]
    assert len(topups_of(world, asked)) == 1
    assert world.anvil.balance(asked.address) == 0, "what was left of the gas went along with the coin"


def test_what_comes_after_settlement_is_swept_too(world: World) -> None:
    asked = world.ask(ETHER)
    world.anvil.pay(asked.address, ETHER)
    live_until(world, settled(world, asked))
    before = world.treasury()
    world.anvil.pay(asked.address, 3 * ETHER)
    live_until(world, lambda: states(world, asked) == [IntentState.DONE] * 2)
    assert world.anvil.balance(asked.address) == 0
    assert world.treasury() - before == sweeps_of(world, asked)[1].amount
    assert world.payment(asked).standing.status is Status.SETTLED


def test_coin_that_is_less_than_an_earlier_top_up_left_behind_is_swept_all_the_same(world: World, usdc: bytes) -> None:
    asked = world.ask(ETHER)
    world.anvil.pay(asked.address, ETHER)
    world.anvil.pay_token(usdc, asked.address, 7 * USDC)
    world.anvil.mine()
    base_fee(world, 50 * GWEI)
    live_until(world, lambda: states(world, asked) == [IntentState.DONE] * 2)
    left_over = world.anvil.balance(asked.address)
    assert left_over > 0
    base_fee(world, 7)  # so cheap that little coin is worth a sweep
    world.anvil.pay(asked.address, left_over // 2)
    live_until(world, lambda: states(world, asked) == [IntentState.DONE] * 3)
    assert world.anvil.balance(asked.address) == 0, "what was left over went along"
    world.anvil.pay(asked.address, left_over // 2)  # less than what went along
    live_until(world, lambda: states(world, asked) == [IntentState.DONE] * 4)
    assert world.anvil.balance(asked.address) == 0


def test_gas_that_comes_out_of_a_payments_own_coin_counts_as_swept(world: World, usdc: bytes) -> None:
    native = replace(world.chain.native, threshold=ETHER // 10)
    with_chain(world, tokens=(native, *world.chain.tokens[1:]))
    asked = world.ask(ETHER // 20)
    world.anvil.pay(asked.address, ETHER // 20)
    world.anvil.pay_token(usdc, asked.address, 7 * USDC)
    live_until(world, lambda: states(world, asked) == [IntentState.DONE])
    assert world.treasury(usdc) == 7 * USDC
    assert not topups_of(world, asked), "its own coin pays for the gas"
    assert settlement(world, asked) is Settlement.BELOW_THRESHOLD
    world.anvil.pay(asked.address, ETHER)
    live_until(world, settled(world, asked))
    assert world.anvil.balance(asked.address) == 0


def test_many_addresses_are_swept_side_by_side(world: World, usdc: bytes) -> None:
    asked = [world.ask(USDC, token=usdc) for _ in range(18)] + [world.ask(ETHER) for _ in range(2)]
    world.anvil.pay_tokens(usdc, [(each.address, USDC) for each in asked[:18]])
    for each in asked[18:]:
        world.anvil.pay(each.address, ETHER)
    live_until(world, settled(world, *asked), blocks=60)
    assert world.treasury(usdc) == 18 * USDC
    assert sum(world.anvil.balance(each.address) for each in asked[18:]) == 0
    with world.ctx.sessions.begin() as session:
        nonces = sorted(session.scalars(sa.select(sweep_intents.c.nonce).where(sweep_intents.c.sender == GAS_WALLET)))
    assert nonces == list(range(nonces[0], nonces[0] + 18)), "no gap, none twice"


# --- crashes and company ---------------------------------------------------------------------------------------------


def test_a_crash_between_storing_and_broadcasting_sends_the_same_bytes(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    killed = run_of(world)
    plan(killed)
    sign_sweeps(killed)
    (stored,) = attempts_of(world, asked)
    assert world.anvil.receipt(stored.tx_hash) is None
    world.sweep()
    world.anvil.mine()
    assert world.anvil.raw(stored.tx_hash) == stored.raw
    live_until(world, settled(world, asked))
    assert attempts_of(world, asked) == [stored]


def test_a_crash_between_broadcasting_and_marking_sends_the_same_bytes_again(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    killed = run_of(world)
    plan(killed)
    sign_sweeps(killed)
    (stored,) = attempts_of(world, asked)
    killed.client.send_raw(stored.raw)
    with pytest.raises(NodeRefused, match="already"):
        killed.client.send_raw(stored.raw)
    world.sweep()
    assert states(world, asked) == [IntentState.SENT]
    live_until(world, settled(world, asked))
    assert attempts_of(world, asked) == [stored]


def test_a_sweep_that_was_mined_before_it_was_marked_is_found_by_its_receipt(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    killed = run_of(world)
    plan(killed)
    sign_sweeps(killed)
    killed.client.send_raw(attempts_of(world, asked)[0].raw)
    world.anvil.mine()
    world.sweep()
    assert states(world, asked) == [IntentState.MINED]


def test_a_run_that_was_overtaken_signs_nothing(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    overtaken = run_of(world)
    plan(overtaken)
    world.sweep()
    with pytest.raises(LostFence):
        sign_sweeps(overtaken)
        plan(overtaken)
    assert len(attempts_of(world, asked)) == 1


def test_two_sweepers_at_once_sweep_once(world: World, usdc: bytes) -> None:
    asked = [world.ask(ETHER), world.ask(USDC, token=usdc)]
    world.anvil.pay(asked[0].address, ETHER)
    world.anvil.pay_token(usdc, asked[1].address, USDC)
    world.anvil.mine(3)
    world.scan()
    stop, winners = threading.Event(), set[int]()

    def sweeper(number: int) -> None:
        while not stop.is_set():
            with world.ctx.sessions.begin() as session:
                session.execute(sa.text("UPDATE loops SET next_run_at = now() WHERE kind = 'sweeper'"))
            if sweep_chain(world.ctx, world.chain.chain_id) != Tick():
                winners.add(number)

    def are_done() -> bool:
        return _mine_and(world, settled(world, *asked)) and len(winners) > 1

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(sweeper, number) for number in range(4)]
        try:
            wait_until(are_done, within_s=60, what="both are settled, and more than one sweeper had its turns")
        finally:
            stop.set()
        for one in running:
            one.result()
    for each in asked:
        assert len(sweeps_of(world, each)) == len(attempts_of(world, each)) == 1
    assert world.treasury(usdc) == USDC
    assert len(topups_of(world, asked[1])) == 1


def _mine_and(world: World, condition: Callable[[], bool]) -> bool:
    world.anvil.mine()
    world.scan()
    return condition()


# --- prices ----------------------------------------------------------------------------------------------------------


def test_a_sweep_that_waits_too_long_is_priced_higher_on_the_same_nonce(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    before = world.treasury()
    world.sweep()
    make_overdue(world)
    world.sweep()
    first, second = attempts_of(world, asked)
    assert second.price.max_fee * 8 >= first.price.max_fee * 9
    assert first.amount + first.gas_reserved == second.amount + second.gas_reserved == ETHER
    world.sweep()
    live_until(world, settled(world, asked))
    assert world.anvil.receipt(first.tx_hash) is None
    assert world.anvil.receipt(second.tx_hash) is not None
    assert world.anvil.balance(asked.address) == 0
    assert world.treasury() - before == second.amount == sweeps_of(world, asked)[0].amount


def test_where_the_first_of_two_attempts_lands_it_is_the_one_that_counts(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    world.sweep()
    make_overdue(world)
    world.sweep()  # the second is stored, and never sent
    first, _ = attempts_of(world, asked)
    live_until(world, settled(world, asked))
    (swept,) = sweeps_of(world, asked)
    assert (swept.mined_tx_hash, swept.amount) == (first.tx_hash, first.amount)


def test_a_sweep_of_tokens_gets_more_gas_before_it_is_priced_higher(world: World, usdc: bytes) -> None:
    asked = world.ask(5 * USDC, token=usdc)
    pay(world, asked)
    live_until(world, lambda: states(world, asked) == [IntentState.SENT])
    world.anvil.drop_pool()
    make_overdue(world)
    world.sweep()
    (_, second) = topups_of(world, asked)
    assert second.amount is not None and len(attempts_of(world, asked)) == 1
    world.anvil.drop_pool()  # the sweep itself must not be mined meanwhile
    live_until(world, settled(world, asked), blocks=40)
    assert world.treasury(usdc) == 5 * USDC


def test_a_base_fee_above_the_ceiling_holds_the_sweep_until_it_falls(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    base_fee(world, 300 * GWEI)
    world.scan()
    world.sweep()
    (held,) = sweeps_of(world, asked)
    assert (held.state, held.held_reason, held.nonce) == (IntentState.HELD, HeldReason.FEE_CEILING, None)
    assert settlement(world, asked) is Settlement.HELD
    base_fee(world, GWEI)
    world.scan()
    world.sweep()
    assert settlement(world, asked) is Settlement.WAITING
    live_until(world, settled(world, asked))
    assert world.events(asked) == ["created", "detected", "confirmed", "updated", "updated", "settled"]


def test_a_sent_sweep_at_the_ceiling_is_held_with_its_nonce_and_goes_on_with_it(world: World) -> None:
    asked = world.ask(ETHER)
    base_fee(world, 180 * GWEI)
    pay(world, asked)
    world.sweep()
    base_fee_before = attempts_of(world, asked)[0].price.max_fee
    world.anvil.drop_pool()
    base_fee(world, 300 * GWEI)
    world.scan()
    make_overdue(world)
    world.sweep()
    (held,) = sweeps_of(world, asked)
    assert (held.state, held.held_reason, held.nonce) == (IntentState.HELD, HeldReason.FEE_CEILING, 0)
    base_fee(world, GWEI)
    world.scan()
    live_until(world, settled(world, asked))
    assert {attempt.price.max_fee >= base_fee_before for attempt in attempts_of(world, asked)} == {True}
    assert [intent.nonce for intent in sweeps_of(world, asked)] == [0]


def test_a_chain_without_eip_1559_is_swept_by_legacy_transactions_to_the_last_wei(world: World) -> None:
    class LegacyClient(ChainClient):
        def fees(self) -> Fees:
            return Fees(base_fee=None, priority_fee=0, gas_price=5 * GWEI)

    with_client(world, LegacyClient(world.chain))
    asked = world.ask(ETHER)
    pay(world, asked)
    world.sweep()
    make_overdue(world)
    world.sweep()
    first, second = attempts_of(world, asked)
    assert (first.price.priority_fee, second.price.priority_fee) == (None, None)
    assert second.price.max_fee * 8 >= first.price.max_fee * 9
    live_until(world, settled(world, asked))
    assert world.anvil.balance(asked.address) == 0


# --- reorgs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_sweep_whose_block_is_gone_is_sent_again_with_the_same_bytes(world: World, blocks: int) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    world.anvil.mine(3)
    world.scan()
    world.sweep()
    world.live(blocks)  # 1: mined … 3: done
    world.anvil.reorg(blocks)
    world.anvil.mine()
    world.scan()
    assert states(world, asked) == [IntentState.SENT]
    assert world.payment(asked).standing.status is Status.CONFIRMED
    world.sweep()
    (sent,) = attempts_of(world, asked)
    assert world.anvil.raw(sent.tx_hash) == sent.raw, "it is in the node's pool again"
    live_until(world, settled(world, asked))
    assert attempts_of(world, asked) == [sent]
    assert world.anvil.balance(asked.address) == 0
    reverted = ["reverted", "settled"] if blocks == 3 else []
    assert world.events(asked) == ["created", "detected", "confirmed", "settled", *reverted]


def test_a_sweep_whose_money_is_gone_is_held_and_signed_anew_for_other_money_on_the_same_nonce(world: World) -> None:
    asked = world.ask(ETHER)
    world.anvil.pay(asked.address, 3 * ETHER)
    live_until(world, settled(world, asked))
    before = world.treasury()
    world.anvil.reorg(8)
    world.anvil.mine()
    world.scan()
    world.live(2)
    (held,) = sweeps_of(world, asked)
    assert (held.state, held.held_reason, held.nonce) == (IntentState.HELD, HeldReason.UNCOVERED, 0)
    assert world.payment(asked).standing.status is Status.PENDING
    world.anvil.pay(asked.address, ETHER // 2)
    world.anvil.pay(asked.address, ETHER // 2)
    live_until(world, settled(world, asked))
    (swept,) = sweeps_of(world, asked)
    assert (swept.nonce, len(attempts_of(world, asked))) == (0, 2)
    assert world.anvil.balance(asked.address) == 0
    assert before - world.treasury() > ETHER, "the first is gone with its block"


def test_a_held_nonce_does_not_lock_other_money_in(world: World, usdc: bytes) -> None:
    asked = world.ask(5 * USDC, token=usdc)
    world.anvil.pay_token(usdc, asked.address, 5 * USDC)
    live_until(world, settled(world, asked))
    world.anvil.reorg(14)  # the payment, the top-up and the sweep
    world.anvil.mine()
    world.scan()
    world.live(2)
    assert [(each.held_reason, each.nonce) for each in sweeps_of(world, asked)] == [(HeldReason.UNCOVERED, 0)]
    before = world.treasury()
    world.anvil.pay(asked.address, ETHER)
    live_until(world, lambda: states(world, asked) == [IntentState.DONE] * 2)
    coin = next(intent for intent in sweeps_of(world, asked) if intent.token == NATIVE)
    assert (coin.nonce, world.treasury() - before) == (1, coin.amount)


def test_a_lost_transaction_is_broadcast_again(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    world.sweep()
    world.anvil.drop_pool()
    live_until(world, settled(world, asked))
    assert len(attempts_of(world, asked)) == 1


def test_nothing_is_signed_on_balances_of_another_branch(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    world.anvil.reorg(3)  # the listener does not know yet
    world.anvil.mine(3)
    world.sweep()
    assert states(world, asked) == [IntentState.PLANNED]
    assert attempts_of(world, asked) == []


def test_a_sweep_seen_in_a_block_that_the_listener_never_read_is_not_done(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    world.sweep()
    world.anvil.mine()
    world.sweep()  # the sweeper is ahead of the listener
    assert states(world, asked) == [IntentState.MINED]
    world.anvil.reorg(1)
    world.anvil.mine(3)
    world.scan()  # for the listener nothing was ever taken back
    world.sweep()
    assert states(world, asked) == [IntentState.SENT]
    live_until(world, settled(world, asked))
    assert len(attempts_of(world, asked)) == 1


def test_a_reorg_that_is_read_while_the_chain_is_asked_signs_nothing(world: World) -> None:
    class MovingClient(ChainClient):
        def estimate_gas(self, *, sender: bytes, recipient: bytes, value: int = 0, call: bytes = b"") -> int:
            world.anvil.reorg(4)
            world.anvil.mine(2)
            world.scan()
            return super().estimate_gas(sender=sender, recipient=recipient, value=value, call=call)

    asked = world.ask(ETHER)
    pay(world, asked)
    still = world.ctx
    with_client(world, MovingClient(world.chain))
    world.sweep()
    world.ctx = still
    assert states(world, asked) == [IntentState.PLANNED]
    assert attempts_of(world, asked) == []


def test_no_more_than_the_final_balance_is_ever_signed_for(robbed_world: World) -> None:
    world = robbed_world
    asked = world.ask(3 * ETHER)
    pay(world, asked)
    world.anvil.set_balance(asked.address, ETHER)  # less than the rows say
    world.anvil.mine(3)
    world.anvil.pay(asked.address, 5 * ETHER)
    world.anvil.mine()
    world.scan()
    world.sweep()
    (signed,) = attempts_of(world, asked)
    assert signed.amount + signed.gas_reserved == ETHER


# --- what can go wrong -----------------------------------------------------------------------------------------------


def test_a_sweep_that_fails_on_the_chain_costs_its_nonce_and_is_planned_again(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    before = world.treasury()
    world.sweep()
    world.anvil.set_code(world.chain.treasury, REFUSE_ALL)
    live_until(world, lambda: states(world, asked)[0] is IntentState.FAILED)
    world.anvil.set_code(world.chain.treasury, b"")
    live_until(world, settled(world, asked))
    failed, swept = sweeps_of(world, asked)
    assert (failed.state, failed.failure, failed.nonce) == (IntentState.FAILED, "reverted", 0)
    assert failed.gas_cost is not None and swept.gas_cost is not None
    assert (swept.state, swept.nonce) == (IntentState.DONE, 1)
    assert world.treasury() - before == swept.amount == ETHER - failed.gas_cost - swept.gas_cost
    assert world.anvil.balance(asked.address) == 0


def test_a_treasury_that_refuses_is_noticed_before_anything_is_signed(world: World) -> None:
    asked = world.ask(ETHER)
    world.anvil.set_code(world.chain.treasury, REFUSE_ALL)
    pay(world, asked)
    world.sweep()
    (held,) = sweeps_of(world, asked)
    assert (held.state, held.held_reason, held.nonce) == (IntentState.HELD, HeldReason.REVERTS, None)
    world.anvil.set_code(world.chain.treasury, b"")
    live_until(world, settled(world, asked))


def test_a_treasury_that_is_a_contract_gets_what_its_gas_leaves(world: World) -> None:
    world.anvil.set_code(world.chain.treasury, ACCEPT_AND_COUNT)
    asked = world.ask(ETHER)
    pay(world, asked)
    before = world.treasury()
    live_until(world, settled(world, asked))
    left = world.anvil.balance(asked.address)
    (swept,) = sweeps_of(world, asked)
    assert swept.gas_cost is not None
    assert 0 < left < swept.gas_cost
    assert world.treasury() - before == swept.amount == ETHER - swept.gas_cost - left
    world.anvil.pay(asked.address, ETHER)
    live_until(world, lambda: states(world, asked) == [IntentState.DONE] * 2)
    assert world.anvil.balance(asked.address) < swept.gas_cost, "what was left behind went along"


def test_a_token_that_answers_false_fails_and_waits_for_a_human_after_three_times(world: World, usdc: bytes) -> None:
    asked = world.ask(5 * USDC, token=usdc)
    pay(world, asked)
    code = bytes.fromhex(world.anvil.call("eth_getCode", hex_text(usdc), "latest")[2:])
    live_until(world, lambda: states(world, asked) == [IntentState.SENT])
    world.anvil.set_code(usdc, ANSWER_FALSE)
    live_until(world, failed(world, asked, times=1))
    assert sweeps_of(world, asked)[0].failure == "no Transfer of the amount in its logs"
    for times in (2, 3):
        world.anvil.set_code(usdc, code)
        live_until(world, lambda: states(world, asked)[-1] is IntentState.SENT)
        world.anvil.set_code(usdc, ANSWER_FALSE)
        live_until(world, failed(world, asked, times=times))
    world.anvil.set_code(usdc, code)
    world.live(3)
    *_, held = sweeps_of(world, asked)
    assert (held.state, held.held_reason, held.nonce) == (IntentState.HELD, HeldReason.REPEATED_FAILURE, None)
    assert settlement(world, asked) is Settlement.HELD
    sweeping.resume_sweep(world.ctx, held.id, by="tests")
    live_until(world, settled(world, asked))
    assert world.treasury(usdc) == 5 * USDC


def test_a_key_that_another_uses_too_stops_its_address(robbed_world: World) -> None:
    world = robbed_world
    asked = world.ask(ETHER)
    pay(world, asked)
    live_until(world, settled(world, asked))
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine()
    spend_behind_our_back(world, asked, nonce=1)
    world.anvil.mine(3)
    world.scan()
    world.sweep()
    _, held = sweeps_of(world, asked)
    assert (held.state, held.held_reason, held.nonce) == (IntentState.HELD, HeldReason.FOREIGN_NONCE, None)
    world.live(3)
    assert len(attempts_of(world, asked)) == 1
    sweeping.resume_sweep(world.ctx, held.id, by="tests")  # a human has looked: it was our own doing
    live_until(world, lambda: states(world, asked) == [IntentState.DONE] * 2)
    assert sweeps_of(world, asked)[1].nonce == 2
    assert [found.invariant for found in audit(world.ctx)] == ["5 balance_covers_the_rows"], "what was stolen is missed"


def test_a_sweep_under_way_cannot_be_resumed(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    world.sweep()
    (sent,) = sweeps_of(world, asked)
    with pytest.raises(NotFound):
        sweeping.resume_sweep(world.ctx, sent.id, by="tests")
    with pytest.raises(NotFound):
        sweeping.resume_sweep(world.ctx, "swp_none", by="tests")
    world.anvil.reorg(3)
    world.anvil.mine()
    world.scan()
    world.sweep()
    with pytest.raises(Conflict):
        sweeping.resume_sweep(world.ctx, sent.id, by="tests")


def test_a_nonce_that_another_spent_is_never_guessed_around(robbed_world: World) -> None:
    world = robbed_world
    asked = world.ask(ETHER)
    pay(world, asked)
    killed = run_of(world)
    plan(killed)
    sign_sweeps(killed)  # stored, and then somebody is faster
    spend_behind_our_back(world, asked, nonce=0)
    world.anvil.mine()
    world.anvil.pay(asked.address, ETHER)
    live_until(world, lambda: sweeps_of(world, asked)[0].held_reason is HeldReason.FOREIGN_NONCE)
    world.live(3)
    assert [(each.held_reason, each.nonce) for each in sweeps_of(world, asked)] == [(HeldReason.FOREIGN_NONCE, 0)]
    assert len(attempts_of(world, asked)) == 1


def test_whose_transaction_spent_a_nonce_waits_for_a_node_that_knows_its_state(robbed_world: World) -> None:
    world = robbed_world
    asked, other = world.ask(ETHER), world.ask(ETHER)
    pay(world, asked)
    killed = run_of(world)
    plan(killed)
    sign_sweeps(killed)
    spend_behind_our_back(world, asked, nonce=0)
    world.anvil.mine()
    world.anvil.pay(asked.address, ETHER)
    world.anvil.pay(other.address, ETHER)
    world.anvil.mine(3)
    world.scan()

    def answer(body: bytes) -> Answer:
        if b"eth_getTransactionCount" in body and b'"latest"' not in body:
            return 200, b'{"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "missing trie node"}}'
        return 200, forward(world.anvil.url, body)

    whole, said = world.ctx, []
    with between(whole, answer) as world.ctx:
        for _ in range(4):
            world.live(1)
            said.append(sweeps_of(world, asked)[0].held_reason)
        assert HeldReason.NODE_REFUSES in said and HeldReason.FOREIGN_NONCE not in said
        assert [each.nonce for each in sweeps_of(world, other)] == [0], "others go on"
    world.ctx = whole
    live_until(world, lambda: sweeps_of(world, asked)[0].held_reason is HeldReason.FOREIGN_NONCE)


def test_an_empty_gas_wallet_holds_the_top_up_until_it_is_filled(world: World, usdc: bytes) -> None:
    world.anvil.set_balance(GAS_WALLET, 0)
    asked = world.ask(5 * USDC, token=usdc)
    pay(world, asked)
    world.sweep()
    (held,) = topups_of(world, asked)
    assert (held.state, held.held_reason, held.nonce) == (IntentState.HELD, HeldReason.GAS_WALLET_EMPTY, None)
    assert settlement(world, asked) is Settlement.HELD
    world.anvil.set_balance(GAS_WALLET, ETHER)
    live_until(world, settled(world, asked))
    assert len(topups_of(world, asked)) == 1


def test_dust_that_cannot_pay_its_own_gas_is_held_until_more_comes(world: World) -> None:
    asked = world.ask(1000)
    pay(world, asked)
    world.sweep()
    (held,) = sweeps_of(world, asked)
    assert (held.state, held.held_reason) == (IntentState.HELD, HeldReason.DUST)
    assert settlement(world, asked) is Settlement.HELD
    world.anvil.pay(asked.address, ETHER)
    live_until(world, settled(world, asked))
    assert world.anvil.balance(asked.address) == 0


def test_what_is_below_the_threshold_is_left_until_there_is_enough(world: World, usdc: bytes) -> None:
    coin, token = world.chain.tokens
    with_chain(world, tokens=(coin, replace(token, threshold=5 * USDC)))
    asked = world.ask(3 * USDC, token=usdc)
    pay(world, asked)
    world.live(2)
    assert (sweeps_of(world, asked), settlement(world, asked)) == ([], Settlement.BELOW_THRESHOLD)
    world.anvil.pay_token(usdc, asked.address, 2 * USDC)
    live_until(world, settled(world, asked))
    assert world.treasury(usdc) == 5 * USDC


def test_a_treasury_that_the_settings_changed_takes_what_is_signed_from_then_on(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    plan(run_of(world))
    with world.ctx.sessions.begin() as session:  # a wrong row moves nothing
        session.execute(sa.update(sweep_intents).values(recipient=b"\x66" * 20))
    live_until(world, settled(world, asked))
    assert world.anvil.balance(b"\x66" * 20) == 0


def test_a_node_that_is_away_costs_a_tick_and_nothing_else(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    client = world.ctx.clients[world.chain.chain_id]
    dead = ChainClient(replace(world.chain, rpc_urls=("http://127.0.0.1:1",)))
    away = replace(world.ctx, clients={world.chain.chain_id: dead})
    with world.ctx.sessions.begin() as session:
        session.execute(sa.text("UPDATE loops SET next_run_at = now(), lease_until = NULL"))
    again_in = sweep_chain(away, world.chain.chain_id).again_in
    assert again_in is not None and again_in >= world.chain.poll
    assert states(world, asked) == [IntentState.PLANNED]
    with world.ctx.sessions.begin() as session:
        assert session.scalar(sa.text("SELECT lease_until FROM loops WHERE kind = 'sweeper'")) is None
    assert world.ctx.clients[world.chain.chain_id] is client
    live_until(world, settled(world, asked))


def test_a_stopped_chain_is_not_swept(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    with world.ctx.sessions.begin() as session:
        cursors.stop(session, world.chain.chain_id, "a reorg deeper than the window")
    world.sweep()
    assert sweeps_of(world, asked) == []


def test_the_gas_wallets_balance_is_stored_for_those_who_have_no_key(world: World) -> None:
    for _ in range(31):
        world.sweep()
    assert sweeping.gas_balances(world.ctx) == {world.chain.chain_id: world.anvil.balance(GAS_WALLET)}


def test_money_that_became_final_long_ago_is_found_by_and_by(world: World) -> None:
    asked = world.ask(ETHER)
    pay(world, asked)
    world.anvil.mine(3 * world.chain.reorg_window)
    world.scan()
    world.sweep()
    assert states(world, asked) == []
    turn = asked.address[0]  # its slice comes in one of the next SLICES ticks
    with world.ctx.sessions.begin() as session:
        fence = sa.text("UPDATE loops SET fence = fence / :n * :n + :n + :turn - 1 WHERE kind = 'sweeper'")
        session.execute(fence, {"n": sweeps.SLICES, "turn": turn})
    world.sweep()
    assert states(world, asked) == [IntentState.SENT]


def test_every_nonce_row_is_one_above_what_the_chain_has_seen(world: World, usdc: bytes) -> None:
    asked = world.ask(USDC, token=usdc)
    pay(world, asked)
    live_until(world, settled(world, asked))
    with world.ctx.sessions.begin() as session:
        rows = session.execute(sa.select(signers.c.sender, signers.c.next_nonce)).all()
        assert session.scalar(sa.select(sa.func.count()).select_from(sweep_attempts)) == 2
    assert {sender for sender, _ in rows} == {GAS_WALLET, asked.address}
    for sender, next_nonce in rows:
        assert int(world.anvil.call("eth_getTransactionCount", hex_text(sender), "latest"), 16) == next_nonce


def test_a_token_that_does_not_tell_its_balances_stops_no_other_money(robbed_world: World, usdc: bytes) -> None:
    world = robbed_world  # the token's balances, which the auditor asks for, are gone for good
    tokens, coin = world.ask(5 * USDC, token=usdc), world.ask(ETHER)
    world.anvil.pay_token(usdc, tokens.address, 5 * USDC)
    world.anvil.pay(coin.address, ETHER)
    world.anvil.mine(world.chain.confirmations)
    world.scan()
    world.anvil.set_code(usdc, REFUSE_ALL)
    world.live(12, until=lambda: world.payment(coin).standing.status is Status.SETTLED)
    assert world.payment(coin).standing.status is Status.SETTLED
    assert world.payment(tokens).standing.settlement is Settlement.HELD
