"""Nodes that tell stories: what is not borne out is not stored, what one hides another tells, and nobody is robbed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database import cursors
from ctrip.domain.payments import Status
from ctrip.services.audit import audit
from ctrip.services.scanning import scan_chain
from tests.devchain import ETHER, USDC, DevChain
from tests.lying_node import LyingNode, Window
from tests.node_faults import Fault, ForeignReceipts, HeadBack, Json, Removed, Surroundings
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


class CarelessForger(ForgedLogs):
    """Logs in every block, of transactions whose receipts do not hold them."""

    is_thorough = False

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._is_thorough = self.is_thorough

    def chance(self, likelihood: float, *of: object) -> bool:
        return True


class ThoroughForger(CarelessForger):
    """Logs with receipts and filters to match: only another node can tell."""

    is_thorough = True


@pytest.fixture
def nodes(anvil: DevChain) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(closing(LyingNode(anvil.url))) for _ in range(count)]


def world_behind(ctx: Context, anvil: DevChain, nodes: list[LyingNode]) -> World:
    chain = replace(ctx.settings.chains[0], rpc_urls=tuple(node.url for node in nodes))
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


def read_block(world: World) -> int:
    with world.ctx.sessions.begin() as session:
        cursor = cursors.find(session, world.chain.chain_id)
    assert cursor is not None
    return cursor.read_block


@pytest.mark.parametrize("fault", [HidesLogs, CarelessForger, Removed, ForeignReceipts])
def test_one_node_alone_that_contradicts_itself_is_not_believed(
    ctx: Context, anvil: DevChain, nodes: Nodes, usdc: bytes, fault: type[Fault]
) -> None:
    (node,) = nodes(1)
    world = world_behind(ctx, anvil, [node])
    asked, unpaid = world.ask(10 * USDC, token=usdc), world.ask(5 * USDC, token=usdc)
    lie(node, fault, (unpaid.address, usdc, 5 * USDC))
    before = read_block(world)
    anvil.pay_token(usdc, asked.address, 10 * USDC)
    anvil.mine(1)
    scan(world)
    assert read_block(world) == before
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


@pytest.mark.parametrize("fault", [ThoroughForger, ForgedCoin])
def test_a_forgery_with_receipts_to_match_is_never_confirmed(
    ctx: Context, anvil: DevChain, nodes: Nodes, usdc: bytes, fault: type[Fault]
) -> None:
    first, second = nodes(2)
    world = world_behind(ctx, anvil, [first, second])
    unpaid = world.ask(5 * USDC, token=usdc) if fault is ThoroughForger else world.ask(ETHER)
    lie(first, fault, (unpaid.address, unpaid.token, unpaid.amount))
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
