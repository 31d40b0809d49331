"""The listener on a real dev chain and Postgres: blocks read whole, once, in order, whatever happens in between."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.reading import read_step
from ctrip.context import Context
from ctrip.database import cursors, loops
from ctrip.database.models import loops as loop_rows
from ctrip.database.models import transfers as transfer_rows
from ctrip.domain.loops import Tick
from ctrip.domain.payments import Status
from ctrip.errors import LostFence, NodeUnavailable
from ctrip.services.scanning import scan_chain
from tests.between import Answer, between, forward
from tests.devchain import ETHER, USDC, DevChain
from tests.world import World

pytestmark = pytest.mark.infra


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    return World(ctx, anvil)


def test_a_payment_is_detected_in_a_block_and_confirmed_when_it_is_final(world: World, usdc: bytes) -> None:
    coin, tokens = world.ask(ETHER), world.ask(5 * USDC, token=usdc)
    world.anvil.pay(coin.address, ETHER)
    world.anvil.pay_token(usdc, tokens.address, 5 * USDC)
    world.anvil.mine()
    world.scan()
    assert [world.payment(p).standing.status for p in (coin, tokens)] == [Status.DETECTED] * 2
    world.anvil.mine(world.chain.confirmations - 2)
    world.scan()
    assert world.payment(coin).standing.status is Status.DETECTED, "one confirmation is missing"
    world.anvil.mine()
    world.scan()
    assert [world.events(p) for p in (coin, tokens)] == [["created", "detected", "confirmed"]] * 2


def test_one_read_from_pending_to_final_tells_both_steps(world: World) -> None:
    coin = world.ask(ETHER)
    world.anvil.pay(coin.address, ETHER)
    world.anvil.mine(world.chain.confirmations)
    world.scan()
    assert world.events(coin) == ["created", "detected", "confirmed"]


def test_a_failed_native_transaction_pays_nothing(world: World) -> None:
    coin = world.ask(ETHER)
    world.anvil.set_code(coin.address, bytes.fromhex("5f5ffd"))  # refuses every payment
    world.anvil.send(sender=world.anvil.faucet, to=coin.address, value=ETHER, gas=hex(100_000))
    world.anvil.mine(world.chain.confirmations)
    world.scan()
    assert world.events(coin) == ["created"]
    assert world.transfers(coin) == []


def test_only_reading_expires_a_payment(world: World) -> None:
    coin = world.ask(ETHER, expires_in_s=60)
    world.anvil.mine_at(world.anvil.head_time() + 3600)
    world.scan()
    assert world.payment(coin).standing.status is Status.PENDING, "the late block is not final yet"
    world.anvil.mine(world.chain.confirmations - 1)
    world.scan()
    assert world.events(coin) == ["created", "expired"]


def test_money_mined_before_the_deadline_but_read_long_after_it_is_on_time(world: World) -> None:
    coin = world.ask(ETHER, expires_in_s=60)
    world.anvil.pay(coin.address, ETHER)
    world.anvil.mine()
    world.anvil.mine_at(world.anvil.head_time() + 7200)
    world.anvil.mine(world.chain.confirmations)
    world.scan()
    assert world.events(coin) == ["created", "detected", "confirmed"]


def test_reading_the_same_blocks_twice_stores_nothing_twice(world: World, usdc: bytes) -> None:
    tokens = world.ask(5 * USDC, token=usdc)
    world.anvil.pay_token(usdc, tokens.address, 5 * USDC)
    world.anvil.mine()
    before = world.cursor()
    world.scan()
    with world.ctx.sessions.begin() as session:  # as after a restored backup of the cursor alone
        session.execute(
            sa.text("UPDATE chain_cursors SET read_block = :number, read_hash = :hash"),
            {"number": before.read_block, "hash": before.read_hash},
        )
        cursors.drop_headers_after(session, world.chain.chain_id, before.read_block)
    world.scan()
    assert [transfer.amount for transfer in world.transfers(tokens)] == [5 * USDC]
    assert world.payment(tokens).standing.received == 5 * USDC


def test_an_overtaken_run_writes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    coin = world.ask(ETHER)
    world.anvil.pay(coin.address, ETHER)
    world.anvil.mine()

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        reading = read_step(*args, **kwargs)
        with world.ctx.sessions.begin() as session:
            session.execute(sa.update(loop_rows).values(fence=loop_rows.c.fence + 1))
        return reading

    monkeypatch.setattr("ctrip.services.scanning.read_step", overtaken)
    with world.ctx.sessions.begin() as session:
        session.execute(sa.update(loop_rows).values(next_run_at=sa.func.now(), lease_until=None))
    assert scan_chain(world.ctx, world.chain.chain_id) == Tick()
    assert world.events(coin) == ["created"]
    assert world.transfers(coin) == []


def test_of_many_messages_for_one_loop_one_runs_and_the_rest_die(world: World) -> None:
    with world.ctx.sessions.begin() as session:
        session.execute(sa.update(loop_rows).values(next_run_at=sa.func.now(), lease_until=None))
    together = threading.Barrier(8)

    def run() -> Tick:
        together.wait()
        return scan_chain(world.ctx, world.chain.chain_id)

    with ThreadPoolExecutor(8) as pool:
        ticks = [future.result() for future in [pool.submit(run) for _ in range(8)]]
    assert sum(tick.again_in is not None for tick in ticks) == 1


def test_a_fence_that_was_lost_is_named(world: World) -> None:
    with world.ctx.sessions.begin() as session, pytest.raises(LostFence):
        loops.hold(session, loops.Claim(loops.loop_name("listener", world.chain.chain_id), fence=0))


def test_a_node_that_is_away_moves_nothing_and_what_was_mined_meanwhile_is_found(world: World) -> None:
    coin = world.ask(ETHER, expires_in_s=60)
    world.anvil.pay(coin.address, ETHER)
    world.anvil.mine()
    for fault in ("closes", "500", "rubbish", "empty"):
        with _proxy(world, fault) as ctx:
            world._due()
            tick = scan_chain(ctx, world.chain.chain_id)
            assert tick.again_in, "the loop goes on"
    world.anvil.mine_at(world.anvil.head_time() + 3600)
    world.anvil.mine(world.chain.confirmations)
    assert world.events(coin) == ["created"]
    world.scan()
    assert world.events(coin) == ["created", "detected", "confirmed"], "mined before its deadline: it does not expire"


def test_a_lagging_node_takes_nothing_back(world: World) -> None:
    coin = world.ask(ETHER)
    world.anvil.pay(coin.address, ETHER)
    world.anvil.mine(world.chain.confirmations)
    world.scan()
    with _proxy(world, "lags") as ctx:
        world._due()
        scan_chain(ctx, world.chain.chain_id)
    assert world.events(coin) == ["created", "detected", "confirmed"]
    with world.ctx.sessions.begin() as session:
        rows = session.scalars(sa.select(transfer_rows.c.status)).all()
    assert rows == ["final"]


def test_a_node_of_another_chain_is_not_believed(world: World) -> None:
    other = replace(world.chain, chain_id=1)
    with pytest.raises(NodeUnavailable, match="chain id 31337, not on 1"):
        ChainClient(other).head()


def _proxy(world: World, fault: str) -> AbstractContextManager[Context]:
    """A node between ours and the chain that fails in one way."""

    def answer(body: bytes) -> Answer:
        if fault == "lags":
            behind = f'"{hex(world.anvil.block_number() - 2)}"'.encode()
            return 200, forward(world.anvil.url, body.replace(b'"latest"', behind))
        real = forward(world.anvil.url, body)
        if b"eth_chainId" in body:
            return 200, real
        answers: dict[str, Answer] = {
            "closes": None,
            "500": (500, b"upstream is down"),
            "rubbish": (200, real[: len(real) // 2]),
            "empty": (200, msgspec.json.encode([])),
        }
        return answers[fault]

    return between(world.ctx, answer)


def test_a_run_that_the_node_failed_is_no_tick(world: World) -> None:
    with world.ctx.sessions.begin() as session:
        before = session.scalars(sa.select(loop_rows.c.last_tick_at).where(loop_rows.c.kind == "listener")).one()
    with _proxy(world, "500") as ctx:
        world._due()
        scan_chain(ctx, world.chain.chain_id)
    with world.ctx.sessions.begin() as session:
        row = session.execute(sa.select(loop_rows).where(loop_rows.c.kind == "listener")).one()
    assert (row.last_tick_at, row.lease_until) == (before, None), "operators see that nothing is read; the loop is free"


def test_a_fault_that_nobody_expected_leaves_the_loop_free_for_its_retry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("ctrip.services.scanning.read_step", broken)
    for _ in range(2):
        world._due()
        with pytest.raises(ZeroDivisionError):
            scan_chain(world.ctx, world.chain.chain_id)
        with world.ctx.sessions.begin() as session:
            lease = session.scalars(sa.select(loop_rows.c.lease_until).where(loop_rows.c.kind == "listener")).one()
        assert lease is None, "or the retry would lose the claim and hide the fault"
