"""Far behind the head: spans are read several at once and stored in their order, and no endpoint's word stops them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database.models import chain_cursors, chain_headers, deposit_addresses, transfers
from ctrip.database.models import coverage as rows_of_coverage
from ctrip.domain.payments import Payment, Status
from ctrip.domain.scanning import Cursor
from ctrip.services.audit import audit
from ctrip.services.scanning import scan_chain
from ctrip.services.scanning.catching_up import SPAN
from tests.devchain import ETHER, DevChain
from tests.lying_node import LyingNode, Window
from tests.node_faults import Fault, HeadAhead, Json, Surroundings, refusal
from tests.node_lies import Fork
from tests.world import World

pytestmark = pytest.mark.infra

WITHHELD = range(40, 60)
BLOCKS = 200
Nodes = Callable[[int], list[LyingNode]]


class Withholds(Fault):
    """A node that refuses some blocks."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return refusal(-32000, "try again") if set(WITHHELD).intersection(_whole(method, params)) else reply


class PrunedBlocks(Fault):
    """A node that has no old blocks, and says so by null."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return {"result": None} if any(number < BLOCKS for number in _whole(method, params)) else reply


class PrunedLogs(Fault):
    """A node that has no old logs, and says so in Erigon's words."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return refusal(4444, "pruned history unavailable") if method == "eth_getLogs" else reply


class ForksLater(Fork):
    """A node on a fork that begins after what is withheld, and withholds that too."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._last_shared = WITHHELD[-1] + 3

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        if set(WITHHELD).intersection(_whole(method, params)):
            return refusal(-32000, "try again")
        return super().reply(method, params, reply)


def _whole(method: str, params: list[Any]) -> list[int]:
    """The number of the block that is asked for with its transactions, if one is."""
    is_whole = method == "eth_getBlockByNumber" and params[1] and params[0] != "latest"
    return [int(params[0], 16)] if is_whole else []


@pytest.fixture
def nodes(anvil: DevChain) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(closing(LyingNode(anvil.url))) for _ in range(count)]


@pytest.fixture
def world_before(ctx: Context, anvil: DevChain) -> Callable[[list[LyingNode]], World]:
    def make(behind: list[LyingNode]) -> World:
        chain = replace(ctx.settings.chains[0], rpc_urls=tuple(node.url for node in behind), reorg_window=8)
        settings = replace(ctx.settings, chains=(chain,))
        return World(replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(chain)}), anvil)

    return make


WorldBefore = Callable[[list[LyingNode]], World]


def be(node: LyingNode, fault: type[Fault]) -> None:
    node.follow((Window(0, float("inf"), fault, seed=1),), targets=())


def step(world: World) -> timedelta | None:
    world._due()
    return scan_chain(world.ctx, world.chain.chain_id).again_in


def steps(world: World, most: int, *, to: int) -> Cursor:
    """Let the listener run until it has read block `to`, `most` times."""
    for _ in range(most):
        if world.cursor().read_block >= to:
            break
        step(world)
    return world.cursor()


def paid_far_apart(world: World) -> tuple[Payment, Payment]:
    """Two payments: one paid before what may be withheld, one after it. Nothing of that is read yet."""
    first, second = world.ask(ETHER), world.ask(ETHER)
    world.anvil.pay(first.address, ETHER)
    world.anvil.mine(80)
    world.anvil.pay(second.address, ETHER)
    world.anvil.mine(BLOCKS - 80)
    with world.ctx.sessions.begin() as session:
        session.execute(sa.update(chain_cursors).values(head_block=world.anvil.block_number()))
    return first, second


def stored(world: World) -> list[int]:
    with world.ctx.sessions.begin() as session:
        return list(session.scalars(sa.select(transfers.c.block_number).order_by(transfers.c.block_number)))


@pytest.mark.parametrize("fault", [Withholds, ForksLater])
def test_what_lies_before_blocks_that_nobody_tells_is_final_and_nothing_after_them_is_stored(
    nodes: Nodes, world_before: WorldBefore, fault: type[Fault]
) -> None:
    (node,) = behind = nodes(1)
    world = world_before(behind)
    first, second = paid_far_apart(world)
    be(node, fault)
    cursor = steps(world, 12, to=BLOCKS)
    assert WITHHELD[0] - SPAN <= cursor.read_block < WITHHELD[0], "as far as whole spans are told"
    assert world.payment(first).standing.status is Status.CONFIRMED
    assert len(stored(world)) == 1

    node.heal()
    world.scan()
    assert world.events(second) == ["created", "detected", "confirmed"]
    assert audit(world.ctx) == []


def test_what_was_read_on_a_fork_that_is_gone_is_read_again(nodes: Nodes, world_before: WorldBefore) -> None:
    (node,) = behind = nodes(1)
    world = world_before(behind)
    first, second = paid_far_apart(world)
    be(node, Withholds)
    cursor = steps(world, 12, to=BLOCKS)
    world.anvil.reorg(world.anvil.block_number() - cursor.read_block + 2)
    world.anvil.mine(4)
    node.heal()
    world.scan()
    assert world.payment(first).standing.status is Status.CONFIRMED
    assert world.payment(second).standing.received == 0
    assert audit(world.ctx) == []


@pytest.mark.parametrize("fault", [PrunedBlocks, PrunedLogs])
def test_an_endpoint_without_old_blocks_leaves_them_to_the_next(
    nodes: Nodes, world_before: WorldBefore, fault: type[Fault]
) -> None:
    behind = nodes(2)
    world = world_before(behind)
    first, second = paid_far_apart(world)
    be(behind[0], fault)
    world.scan()
    assert {world.payment(each).standing.status for each in (first, second)} == {Status.CONFIRMED}
    assert audit(world.ctx) == []


@pytest.mark.parametrize(("count", "liar"), [(1, 0), (2, 0), (3, 2)])
def test_a_head_that_there_is_not_stops_nothing_for_longer_than_it_is_told(
    nodes: Nodes, world_before: WorldBefore, count: int, liar: int
) -> None:
    behind = nodes(count)
    world = world_before(behind)
    asked = world.ask(ETHER)
    be(behind[liar], HeadAhead)
    world.anvil.mine(3)
    for _ in range(4):
        step(world)
    behind[liar].heal()
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine(30)
    assert steps(world, 12, to=world.anvil.block_number()).read_block == world.anvil.block_number()
    assert world.payment(asked).standing.status is Status.CONFIRMED


def test_of_several_endpoints_one_that_goes_on_telling_a_head_that_there_is_not_is_passed_over(
    nodes: Nodes, world_before: WorldBefore
) -> None:
    behind = nodes(2)
    world = world_before(behind)
    be(behind[0], HeadAhead)
    first, second = paid_far_apart(world)
    world.scan()
    assert {world.payment(each).standing.status for each in (first, second)} == {Status.CONFIRMED}


class ForksEarly(Fork):
    """A node on a fork of its own that begins soon after what was read."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._last_shared = 46


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("leaps", [(100, 1, 1, 1), (3,) * 8], ids=["far behind", "at the head"])
def test_one_endpoint_of_several_on_a_fork_leads_nobody_away(
    nodes: Nodes, world_before: WorldBefore, leaps: tuple[int, ...], count: int
) -> None:
    behind = nodes(count)
    world = world_before(behind)
    world.anvil.mine(40)
    world.scan()
    asked = world.ask(ETHER)
    be(behind[0], ForksEarly)
    for leap in leaps:
        world.anvil.mine(leap)
        step(world)
    behind[0].heal()
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine(4)
    world.scan()
    assert world.cursor().stopped_reason is None
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert audit(world.ctx) == []


def test_a_head_whose_blocks_are_not_told_yet_is_waited_for(nodes: Nodes, world_before: WorldBefore) -> None:
    class Late(Fault):
        def reply(self, method: str, params: list[Any], reply: Json) -> Json:
            return {"result": None} if _whole(method, params) else reply

    (node,) = behind = nodes(1)
    world = world_before(behind)
    be(node, Late)
    world.anvil.mine(2)
    assert step(world) == world.chain.poll


def test_a_chain_that_is_listed_later_is_read_from_the_first_address_that_was_issued(
    nodes: Nodes, world_before: WorldBefore
) -> None:
    world = world_before(nodes(1))
    asked = world.ask(ETHER)
    issued_at = datetime.fromtimestamp(world.anvil.head_time(), UTC)
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine(BLOCKS, seconds_apart=60)
    with world.ctx.sessions.begin() as session:
        session.execute(sa.update(deposit_addresses).values(created_at=issued_at))
        for table in (chain_cursors, chain_headers, rows_of_coverage):
            session.execute(sa.delete(table))
    world.scan()
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert audit(world.ctx) == []
