"""Nodes that tell stories: what is not borne out is not stored, what one hides another tells, and nobody is robbed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.domain.payments import Status
from ctrip.services.audit import audit
from ctrip.services.scanning import scan_chain
from tests.devchain import ETHER, USDC, DevChain
from tests.factories import asked_of
from tests.lying_node import LyingNode, Window
from tests.node_faults import Fault, ForeignReceipts, HeadBack, Json, Removed, Sure, Surroundings
from tests.node_lies import EmptyLogs, ForgedCoin, ForgedLogs, Fork
from tests.world import World

pytestmark = pytest.mark.infra

Nodes = Callable[[int], list[LyingNode]]


class HidesLogs(EmptyLogs):
    """`[]` for every log, and no receipts of whole blocks."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._share = 1.0

    def reply(self, method: str, params: list[object], reply: Json) -> Json:
        if method == "eth_getBlockReceipts":
            return {"error": {"code": -32601, "message": "the method eth_getBlockReceipts does not exist"}}
        return super().reply(method, params, reply)


class HidesReceipts(HidesLogs):
    """`[]` for every log, and for the receipts of whole blocks, whatever is in them."""

    def reply(self, method: str, params: list[object], reply: Json) -> Json:
        return {"result": []} if method == "eth_getBlockReceipts" else super().reply(method, params, reply)


class Unfiltered(HidesLogs):
    """`[]` for every log, and filters that tell nothing."""

    def reply(self, method: str, params: list[object], reply: Json) -> Json:
        told = super().reply(method, params, reply)
        if not method.startswith("eth_getBlockBy") or not told.get("result"):
            return told
        return {"result": {**told["result"], "logsBloom": "0x" + "0" * 512}}


class IgnoresFilter(Fault):
    """The logs of all contracts, whichever were asked for."""

    def question(self, method: str, params: list[Json]) -> list[Json]:
        if method != "eth_getLogs":
            return params
        return [{name: value for name, value in params[0].items() if name != "address"}]


class LongerFork(Sure, Fork):
    """A fork without any of the payments, whose head is said to be beyond those of the others."""

    blocks = 5

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._last_shared = int(self.upstream.call("eth_blockNumber"), 16) - self.blocks

    def reply(self, method: str, params: list[object], reply: Json) -> Json:
        told = super().reply(method, params, reply)
        if method != "eth_getBlockByNumber" or params[0] != "latest" or not told.get("result"):
            return told
        return {"result": {**told["result"], "number": hex(int(told["result"]["number"], 16) + 3)}}


class DeepFork(LongerFork):
    """One that begins before all blocks whose headers are kept."""

    blocks = 13


class CarelessForger(Sure, ForgedLogs):
    """Logs in every block, of transactions whose receipts do not hold them."""

    is_thorough = False

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._is_thorough = self.is_thorough


class ThoroughForger(CarelessForger):
    """Logs with receipts and filters to match: only another node can tell."""

    is_thorough = True


class ThoroughCoinForger(Sure, ForgedCoin):
    """The same with coin."""


class SaysFailed(Fault):
    """Receipts of transactions that failed, with all their logs."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        result = reply.get("result")
        if method == "eth_getTransactionReceipt" and result:
            return {"result": {**result, "status": "0x0"}}
        if method == "eth_getBlockReceipts" and result:
            return {"result": [{**receipt, "status": "0x0"} for receipt in result]}
        return reply


@pytest.fixture
def nodes(anvil: DevChain) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(closing(LyingNode(anvil.url))) for _ in range(count)]


def world_behind(ctx: Context, anvil: DevChain, nodes: list[LyingNode], **changes: Any) -> World:
    chain = replace(ctx.settings.chains[0], rpc_urls=tuple(node.url for node in nodes), **changes)
    settings = replace(ctx.settings, chains=(chain,))
    anvil.mine(8)
    return World(replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(chain)}), anvil)


def lie(node: LyingNode, fault: type[Fault], *targets: tuple[bytes, bytes, int]) -> None:
    node.follow((Window(0, float("inf"), fault, seed=1),), targets=targets)


def scan(world: World, times: int = 4) -> None:
    """Let the listener make some steps, whatever comes of them."""
    for _ in range(times):
        world._due()
        scan_chain(world.ctx, world.chain.chain_id)


def disagreements(kind: str) -> float:
    return REGISTRY.get_sample_value("ctrip_chain_disagreements_total", {"chain": "anvil", "kind": kind}) or 0


@pytest.mark.parametrize(
    "fault", [HidesLogs, HidesReceipts, Unfiltered, CarelessForger, Removed, ForeignReceipts, SaysFailed]
)
def test_one_node_alone_that_contradicts_itself_is_not_believed(
    ctx: Context, anvil: DevChain, nodes: Nodes, usdc: bytes, fault: type[Fault]
) -> None:
    (node,) = nodes(1)
    world = world_behind(ctx, anvil, [node])
    asked, unpaid = world.ask(10 * USDC, token=usdc), world.ask(5 * USDC, token=usdc)
    lie(node, fault, (unpaid.address, usdc, 5 * USDC))
    before = world.cursor().read_block
    anvil.pay_token(usdc, asked.address, 10 * USDC)
    anvil.mine(1)
    scan(world)
    assert world.cursor().read_block == before
    node.heal()
    anvil.mine(2)
    world.scan()
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert world.payment(unpaid).standing.received == 0
    assert audit(world.ctx) == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(HidesLogs, "empty_logs"), (CarelessForger, "receipt"), (Fork, None), (HeadBack, None)],
    ids=["hides logs", "forges logs", "is on a fork", "has an old head"],
)
def test_what_one_node_hides_or_makes_up_another_tells(
    ctx: Context, anvil: DevChain, nodes: Nodes, usdc: bytes, fault: type[Fault], kind: str | None
) -> None:
    first, second = nodes(2)
    world = world_behind(ctx, anvil, [first, second])
    asked, unpaid = world.ask(10 * USDC, token=usdc), world.ask(5 * USDC, token=usdc)
    before = 0.0 if kind is None else disagreements(kind)
    lie(first, fault, (unpaid.address, usdc, 5 * USDC))
    anvil.pay_token(usdc, asked.address, 10 * USDC)
    anvil.mine(3)
    scan(world, 6)
    assert world.payment(unpaid).standing.received == 0
    if kind in ("empty_logs", "receipt"):
        assert world.payment(asked).standing.status is Status.CONFIRMED, "the other node was asked"
    if kind is not None:
        assert disagreements(kind) > before
    first.heal()
    anvil.mine()
    world.scan()
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert audit(world.ctx) == []


@pytest.mark.parametrize("fault", [ThoroughForger, ThoroughCoinForger])
def test_a_forgery_with_receipts_to_match_is_never_confirmed(
    ctx: Context, anvil: DevChain, nodes: Nodes, usdc: bytes, fault: type[Fault]
) -> None:
    first, second = nodes(2)
    world = world_behind(ctx, anvil, [first, second])
    unpaid = world.ask(5 * USDC, token=usdc) if fault is ThoroughForger else world.ask(ETHER)
    lie(first, fault, (unpaid.address, asked_of(unpaid).token, asked_of(unpaid).amount))
    for _ in range(6):
        anvil.mine()
        scan(world, 1)
        assert world.payment(unpaid).standing.status in (Status.PENDING, Status.DETECTED)


def test_a_reorg_that_one_of_two_nodes_denies_is_followed_when_they_agree(
    ctx: Context, anvil: DevChain, nodes: Nodes
) -> None:
    first, second = nodes(2)
    world = world_behind(ctx, anvil, [first, second])
    asked = world.ask(ETHER)
    lie(second, Fork)
    anvil.pay(asked.address, ETHER)
    anvil.mine(2)
    world.scan()
    assert world.payment(asked).standing.status is Status.DETECTED
    assert audit(world.ctx) == []


def test_two_nodes_that_both_hide_a_log_are_not_believed(
    ctx: Context, anvil: DevChain, nodes: Nodes, usdc: bytes
) -> None:
    first, second = nodes(2)
    world = world_behind(ctx, anvil, [first, second])
    asked, before = world.ask(10 * USDC, token=usdc), world.cursor().read_block
    for node in (first, second):
        lie(node, HidesReceipts)
    anvil.pay_token(usdc, asked.address, 10 * USDC)
    anvil.mine(1)
    scan(world)
    assert world.cursor().read_block == before
    for node in (first, second):
        node.heal()
    anvil.mine(2)
    world.scan()
    assert world.payment(asked).standing.status is Status.CONFIRMED


@pytest.mark.parametrize("is_coin", [True, False])
def test_what_one_node_says_has_failed_and_another_that_it_moved_is_read_from_that(
    ctx: Context, anvil: DevChain, nodes: Nodes, usdc: bytes, is_coin: bool
) -> None:
    first, second = nodes(2)
    world = world_behind(ctx, anvil, [first, second])
    asked = world.ask(ETHER) if is_coin else world.ask(USDC, token=usdc)
    lie(first, SaysFailed)
    sent = anvil.pay(asked.address, ETHER) if is_coin else anvil.pay_token(usdc, asked.address, USDC)
    anvil.mine()
    world.scan()
    assert [each.tx_hash for each in world.transfers(asked)] == [sent]
    first.heal()
    anvil.mine(2)
    world.scan()
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert audit(world.ctx) == []


def test_a_log_of_a_token_that_nobody_lists_is_no_transfer(
    ctx: Context, anvil: DevChain, nodes: Nodes, usdc: bytes
) -> None:
    first, second = nodes(2)
    world = world_behind(ctx, anvil, [first, second])
    asked, foreign, before = world.ask(10 * USDC, token=usdc), anvil.deploy_token(), disagreements("logs")
    lie(first, IgnoresFilter)
    anvil.pay_token(foreign, asked.address, 10 * USDC)
    anvil.mine(3)
    world.scan()
    assert (world.events(asked), world.transfers(asked)) == (["created"], [])
    assert disagreements("logs") > before


@pytest.mark.parametrize("fork", [LongerFork, DeepFork])
def test_a_reorg_that_two_of_three_nodes_deny_takes_nothing_back_and_stops_nothing(
    ctx: Context, anvil: DevChain, nodes: Nodes, fork: type[Fault]
) -> None:
    first, second, third = nodes(3)
    world = world_behind(ctx, anvil, [first, second, third], reorg_window=8)
    asked = world.ask(ETHER)
    anvil.mine(3)
    anvil.pay(asked.address, ETHER)
    anvil.mine(4)
    world.scan()
    before, events = disagreements("fork"), world.events(asked)
    assert world.payment(asked).standing.status is Status.CONFIRMED
    lie(first, fork)
    other = world.ask(ETHER)
    anvil.pay(other.address, ETHER)
    anvil.mine(3)
    world.scan()
    assert (world.stopped_reason(), world.events(asked)) == (None, events)
    assert world.cursor().read_block == anvil.block_number(), "the others are read at once"
    assert world.payment(other).standing.status is Status.CONFIRMED
    assert disagreements("fork") == before + 1, "who was denied is not asked again soon"
