"""What one node made up: never final while nobody else bears it out, and gone when that node does not uphold it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database.models import transfers
from ctrip.domain.addresses import NATIVE
from ctrip.domain.payments import Payment, Status
from ctrip.services.audit import audit
from tests.devchain import ETHER, USDC, DevChain
from tests.lying_node import LyingNode, Window
from tests.node_faults import Down, Fault
from tests.node_lies import ForgedCoin, ForgedLogs
from tests.world import World

pytestmark = pytest.mark.infra
EVER = 1e9
SEED = 4
"""With this one ForgedLogs is thorough: its receipts and bloom filters agree with what it makes up."""


@pytest.fixture
def nodes(anvil: DevChain) -> Iterator[tuple[LyingNode, LyingNode]]:
    pair = LyingNode(anvil.url), LyingNode(anvil.url)
    yield pair
    for node in pair:
        node.close()


class Lies:
    """A world that is read through a liar and a witness."""

    def __init__(self, ctx: Context, anvil: DevChain, nodes: tuple[LyingNode, LyingNode]) -> None:
        self._honest = ctx
        self._nodes = nodes
        self.world = World(ctx, anvil)

    def scan(self) -> None:
        """Read through both nodes, as a worker does that has just started and remembers nothing of them."""
        chain = replace(self.world.chain, rpc_urls=tuple(node.url for node in self._nodes))
        self.world.ctx = replace(self._honest, clients={chain.chain_id: ChainClient(chain)})
        self.world.scan()
        self.world.ctx = self._honest

    def let(self, liar: type[Fault] | None, witness: type[Fault] | None, asked: Payment) -> None:
        for node, fault in zip(self._nodes, (liar, witness), strict=True):
            script = () if fault is None else (Window(0, EVER, fault, SEED),)
            node.follow(script, targets=[(asked.address, asked.token, asked.amount)])


@pytest.mark.parametrize("fault", [ForgedLogs, ForgedCoin], ids=["tokens", "coin"])
def test_a_payment_that_one_node_made_up_is_not_confirmed_and_is_taken_back_with_the_lie(
    ctx: Context, anvil: DevChain, usdc: bytes, nodes: tuple[LyingNode, LyingNode], fault: type[Fault]
) -> None:
    lies = Lies(ctx, anvil, nodes)
    world = lies.world
    asked = world.ask(ETHER) if fault is ForgedCoin else world.ask(10 * USDC, token=usdc)
    other = world.ask(ETHER)
    anvil.pay(other.address, ETHER)
    lies.let(fault, Down, asked)
    anvil.mine(6)
    lies.scan()
    assert world.payment(asked).standing.status is Status.DETECTED, "the lie is believed as far as nothing hangs on it"
    anvil.mine(world.chain.confirmations)
    lies.scan()
    assert world.payment(asked).standing.status is Status.DETECTED, "the only witness is away"
    with ctx.sessions() as session:
        waits = session.scalars(sa.select(transfers.c.asked_at).where(transfers.c.payment_id == asked.id))
        assert any(waits), "what is newer is asked for first, from now on"
    lies.let(fault, None, asked)
    lies.scan()
    assert world.payment(asked).standing.status is Status.DETECTED, "one says so, one does not"
    lies.let(None, None, asked)
    anvil.mine(world.chain.confirmations)  # what was made up last is not asked for before
    lies.scan()
    assert (world.payment(asked).standing.status, world.transfers(asked)) == (Status.PENDING, [])
    assert world.payment(other).standing.status is Status.CONFIRMED
    assert [transfer.token for transfer in world.transfers(other)] == [NATIVE]
    assert audit(ctx) == []
