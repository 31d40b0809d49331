"""When coin of a contract came: by one node's word alone it is neither late nor on time for good."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.domain.payments import Payment, Status, Timing
from ctrip.services.audit import audit
from ctrip.services.scanning import scan_chain
from tests.devchain import ETHER, DevChain
from tests.lying_node import LyingNode, Window
from tests.node_blocks import EarlyTimes, WrongTimes
from tests.node_faults import RESET, Answer, Fault, Json, Surroundings
from tests.services.test_inflows import Contracts
from tests.world import World

pytestmark = pytest.mark.infra
WINDOW = 16
Worlds = Callable[[int], tuple[Contracts, list[LyingNode]]]
Outcome = tuple[Status, Timing | None]


@pytest.fixture
def worlds(ctx: Context, anvil: DevChain) -> Iterator[Worlds]:
    """Make a world that is read through so many nodes."""
    with ExitStack() as stack:

        def make(count: int) -> tuple[Contracts, list[LyingNode]]:
            nodes = [stack.enter_context(closing(LyingNode(anvil.url))) for _ in range(count)]
            chain = replace(ctx.settings.chains[0], rpc_urls=tuple(node.url for node in nodes), reorg_window=WINDOW)
            settings = replace(ctx.settings, chains=(chain,))
            return Contracts(
                replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(chain)}), anvil
            ), nodes

        yield make


def be(node: LyingNode, fault: type[Fault]) -> None:
    node.follow((Window(0, float("inf"), fault, seed=1),), targets=())


def go_on(world: Contracts, times: int = 1) -> None:
    """Let blocks come, the listener read, and each of two endpoints look, whatever comes of it."""
    for _ in range(times):
        world.anvil.mine(2)
        for _ in range(4):
            world._due()
            scan_chain(world.ctx, world.chain.chain_id)
        for by in (1, 0):
            world.check(by=by)


def disputed_times(world: World) -> float:
    labels = {"chain": world.chain.name, "kind": "time"}
    return REGISTRY.get_sample_value("ctrip_chain_disagreements_total", labels) or 0.0


def outcome(world: Contracts, asked: Payment) -> Outcome:
    standing = world.payment(asked).standing
    return standing.status, standing.timing


@pytest.mark.parametrize("count", [2, 3])
def test_coin_of_a_contract_that_came_too_late_is_late_though_one_node_told_an_earlier_time(
    worlds: Worlds, anvil: DevChain, count: int
) -> None:
    world, nodes = worlds(count)
    asked = world.ask(ETHER, expires_in_s=60)
    be(nodes[0], EarlyTimes)
    anvil.mine(2, seconds_apart=120)
    world.forwarded(asked)
    go_on(world, 4)
    assert outcome(world, asked)[0] is not Status.CONFIRMED
    nodes[0].heal()
    go_on(world, 4)
    assert outcome(world, asked) == (Status.EXPIRED, Timing.LATE)
    assert audit(world.ctx) == []


@pytest.mark.parametrize("count", [2, 3])
def test_coin_that_one_node_tells_a_false_time_of_is_seen_and_final_once_two_tell_the_same(
    worlds: Worlds, anvil: DevChain, count: int
) -> None:
    world, nodes = worlds(count)
    asked, before = world.ask(ETHER), disputed_times(world)
    world.forwarded(asked)
    world.see()
    be(nodes[0], EarlyTimes)
    go_on(world, 3)
    if count == 2:
        assert outcome(world, asked)[0] is Status.DETECTED, "one against one"
        nodes[0].heal()
        go_on(world, 1)
    assert outcome(world, asked) == (Status.CONFIRMED, Timing.ON_TIME)
    nodes[0].heal()
    assert audit(world.ctx) == []
    assert disputed_times(world) > before


class SlowClock(WrongTimes):
    """The right blocks, and another one is the last before a deadline."""

    seconds = -8


class OldStateGone(Fault):
    """It has no state before the newest block."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._newest: str = self.upstream.call("eth_getBlockByNumber", "latest", False)["hash"]

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        if method not in ("eth_call", "eth_getBalance") or self._newest in str(params):
            return reply
        return self.of_old(reply)

    def of_old(self, reply: Json) -> Json:
        return {"error": {"code": -32000, "message": "missing trie node"}}


class HiddenCoin(OldStateGone):
    """No address held any coin before the newest block."""

    is_lie = True

    def of_old(self, reply: Json) -> Json:
        return {"result": "0x" + "0" * (len(reply["result"]) - 2)}


class BlocksAway(Fault):
    """It tells balances, and is gone when asked for a block."""

    def answer(self, body: bytes) -> Answer:
        return RESET if b"eth_getBlockByNumber" in body else super().answer(body)


@pytest.mark.parametrize(
    ("fault", "wrong", "count"),
    [
        (EarlyTimes, 1, 3),
        (WrongTimes, 1, 3),
        (SlowClock, 1, 2),
        (HiddenCoin, 1, 2),
        (OldStateGone, 1, 3),
        (BlocksAway, 2, 2),
    ],
)
def test_what_came_by_a_deadline_that_left_the_reorg_window_is_on_time_whatever_nodes_are_wrong_about(
    worlds: Worlds, anvil: DevChain, fault: type[Fault], wrong: int, count: int
) -> None:
    world, nodes = worlds(count)
    asked, late = world.ask(ETHER, expires_in_s=60), world.ask(ETHER, expires_in_s=60)
    world.check()
    world.forwarded(asked)
    anvil.mine()
    anvil.mine_at(anvil.head_time() + 61)
    world.forwarded(late)
    anvil.mine(WINDOW + 10)
    world.scan()
    for node in nodes[:wrong]:
        be(node, fault)
    world.check(by=0)
    for node in nodes[:wrong]:
        node.heal()
    # A process that has just begun holds nothing against any of them.
    world.ctx = replace(world.ctx, clients={world.chain.chain_id: ChainClient(world.chain)})
    go_on(world, 3)
    assert [outcome(world, each) for each in (asked, late)] == [
        (Status.CONFIRMED, Timing.ON_TIME),
        (Status.EXPIRED, Timing.LATE),
    ]
    assert audit(world.ctx) == []


def test_the_audit_finds_coin_of_a_contract_with_another_time_than_its_block_has(
    worlds: Worlds, anvil: DevChain
) -> None:
    world, _ = worlds(1)
    asked = world.ask(ETHER)
    world.forwarded(asked)
    world.see()
    assert audit(world.ctx) == []
    with world.ctx.sessions.begin() as session:
        session.execute(sa.text("UPDATE transfers SET block_time = block_time - :by"), {"by": timedelta(hours=2)})
    assert "1 transfer_is_stored_as_it_is" in {violation.invariant for violation in audit(world.ctx)}
