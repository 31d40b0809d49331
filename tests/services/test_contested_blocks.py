"""Blocks read again through endpoints that do not agree: no single one takes back what was right, nor hides a gap."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip import metrics
from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database import payments
from ctrip.database.models import coverage as coverage_rows
from ctrip.database.models import transfers
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.chains import Token
from ctrip.domain.payments import Payment, Status
from ctrip.errors import ChainError
from ctrip.services import jobs
from ctrip.services.audit import audit
from ctrip.services.rereading import Rescanned, backfill, rescan_chain, schedule_backfills
from tests.devchain import ETHER, USDC, DevChain
from tests.dying import Killed, dying
from tests.jobs import due_now, see_through
from tests.lying_node import LyingNode, Window
from tests.node_faults import Down, Fault, Json, Surroundings
from tests.node_lies import Fork
from tests.world import World

pytestmark = pytest.mark.infra
WINDOW = 8
Nodes = list[LyingNode]


class Censor(Fault):
    """A node that hides the coin that its targets were paid, without a trace."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        block, hidden = reply.get("result"), {hex_text(address) for address, _, _ in self.around.targets}
        if method.startswith("eth_getBlockBy") and block and params[1]:
            kept = [each for each in block["transactions"] if each["to"] not in hidden]
            return {"result": {**block, "transactions": kept}}
        return reply


class DeepFork(Fork):
    """A node whose blocks are its own from before the reorg window on, without any payment."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._last_shared = 2
        self.salt = 1.0

    def _holds(self, tx_hash: str, at: Json) -> bool:
        return not self._is_ours(at)


class EmptyRanges(Fault):
    """A node that finds nothing in any range of blocks."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return {"result": []} if method == "eth_getLogs" and "fromBlock" in params[0] else reply


class OldBlocksOnly(Fault):
    """A node that answers nothing but whole blocks with null, as one that has pruned them."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return {"result": None} if method == "eth_getBlockByNumber" and params[1] else reply


@pytest.fixture
def nodes(anvil: DevChain) -> Iterator[Callable[[int], Nodes]]:
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(closing(LyingNode(anvil.url))) for _ in range(count)]


def through(ctx: Context, among: Nodes) -> Context:
    """A process that has just started, and reads through these nodes."""
    chain = replace(ctx.settings.chains[0], rpc_urls=tuple(node.url for node in among), reorg_window=WINDOW)
    settings = replace(ctx.settings, chains=(chain, *ctx.settings.chains[1:]))
    return replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(chain)})


def let(among: Nodes, *faults: type[Fault] | None, of: Payment | None = None) -> None:
    targets = [] if of is None else [(of.address, of.token, of.amount)]
    for node, fault in zip(among, faults, strict=True):
        node.follow(() if fault is None else (Window(0, float("inf"), fault, seed=1),), targets=targets)


def rescan(world: World, ctx: Context | None = None) -> Rescanned:
    at = world.cursor()
    *_, done = rescan_chain(
        ctx or world.ctx, world.chain.name, first=at.start_block + 1, last=at.read_block - WINDOW - 2, by="cli:me"
    )
    return done


def disputes(kind: str) -> float:
    return metrics.CHAIN_DISAGREEMENTS.labels(chain="anvil", kind=kind)._value.get()


def test_what_is_not_found_again_is_taken_back_where_all_endpoints_lack_it_alone(
    ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes]
) -> None:
    among = nodes(2)
    world = World(through(ctx, among), anvil)
    asked, other = world.paid(), world.paid()
    anvil.mine(WINDOW + 5)
    world.scan()
    before = world.rows()
    for second in (None, Down):
        let(among, Censor, second, of=asked)
        said = disputes("receipt")
        assert rescan(world, through(ctx, among)).transfers_orphaned == 0
        assert disputes("receipt") == said + 1
        assert world.rows() == before, "one endpoint's word takes no money back"
    let(among, Censor, Censor, of=asked)
    assert rescan(world, through(ctx, among)).transfers_orphaned == 1
    assert world.payment(asked).standing.status is Status.PENDING
    assert world.payment(other).standing.status is Status.CONFIRMED


def test_an_endpoint_on_a_fork_older_than_the_reorg_window_changes_no_row(
    ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes]
) -> None:
    among = nodes(2)
    world = World(through(ctx, among), anvil)
    world.paid()
    anvil.mine(WINDOW + 5)
    world.scan()
    before = world.rows()
    let(among, DeepFork, None)
    for listed, why in ((among, "told of another block 4 than"), (among[:1], "no other endpoint bears it out")):
        with pytest.raises(ChainError, match=why):
            rescan(world, through(ctx, listed))
        assert world.rows() == before


def stand(ctx: Context, **where: object) -> None:
    """Let the only transfer stand somewhere else."""
    with ctx.sessions.begin() as session:
        session.execute(sa.update(transfers).values(**where))


def test_old_rows_of_a_fork_are_put_right_where_another_endpoint_agrees(
    ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes]
) -> None:
    among = nodes(2)
    world = World(through(ctx, among), anvil)
    asked = world.paid()
    anvil.mine(WINDOW + 5)
    world.scan()
    (true,) = world.transfers(asked)
    stand(ctx, block_number=world.cursor().read_block, block_hash=b"\x07" * 32)
    with pytest.raises(ChainError, match=f"was read in block {world.cursor().read_block} before"):
        rescan(world, through(ctx, among))
    stand(ctx, block_number=true.block_number, block_hash=b"\x07" * 32)
    done = rescan(world, through(ctx, among))
    assert (done.transfers_stored, done.transfers_orphaned) == (1, 1)
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert world.events(asked) == ["created", "detected", "confirmed"], "it was never gone"
    assert audit(world.ctx) == []


def test_what_loses_its_transfer_is_assessed_in_the_transaction_that_takes_it(
    ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes]
) -> None:
    world = World(through(ctx, nodes(2)), anvil)
    false, true = world.ask(ETHER), world.paid()
    with ctx.sessions.begin() as session:
        made_up = {"payment_id": false.id, "recipient": false.address, "tx_hash": b"\x07" * 32}
        session.execute(sa.update(transfers).where(transfers.c.payment_id == true.id).values(made_up))
        chains = world.ctx.settings.chains_by_id
        payments.reassess(session, [false.id, true.id], chains=chains, new_id=ctx.new_id)
    anvil.mine(WINDOW + 5)
    world.scan()
    assert [world.payment(each).standing.status for each in (false, true)] == [Status.CONFIRMED, Status.PENDING]
    with pytest.raises(Killed):
        rescan(world, dying(world.ctx, when=lambda: world.transfers(false) == []))
    assert [world.payment(each).standing.status for each in (false, true)] == [Status.PENDING, Status.CONFIRMED]
    assert audit(world.ctx) == []


def listing(ctx: Context, *tokens: Token) -> Context:
    """The context of a process that was started with these tokens listed."""
    chain = replace(ctx.settings.chains[0], tokens=tokens)
    settings = replace(ctx.settings, chains=(chain, *ctx.settings.chains[1:]))
    return replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(chain)})


def test_a_range_that_one_of_several_endpoints_looked_through_alone_stays_due(
    ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes], usdc: bytes
) -> None:
    among = nodes(2)
    ctx = through(ctx, among)
    native = ctx.settings.chains[0].native
    world = World(listing(ctx, native), anvil)
    asked = world.ask(ETHER)
    anvil.pay_token(usdc, asked.address, 7 * USDC)
    anvil.mine(WINDOW + 5)
    world.scan()
    world.ctx = new = listing(ctx, native, Token("NEW", usdc, 6))
    let(among, EmptyRanges, Down)
    assert schedule_backfills(new) != []
    (job,) = jobs.matching(new, kind="backfill", status=None, limit=9)
    assert backfill(new, job.id).again_in is not None
    assert "no other endpoint answers" in str(jobs.find(new, job.id)["progress"])
    with ctx.sessions() as session:
        assert session.scalars(sa.select(coverage_rows.c.id).where(coverage_rows.c.token == usdc)).all() == []
    let(among, EmptyRanges, None)
    due_now(new)
    done = see_through(listing(ctx, native, Token("NEW", usdc, 6)), {"id": job.id}, backfill)
    assert (done["result"]["transfers_stored"], done["result"]["unread_blocks"]) == (1, 0)
    assert [each.token for each in world.transfers(asked)] == [usdc]


def test_old_blocks_that_the_first_endpoint_lacks_are_read_again_through_the_next(
    ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes]
) -> None:
    among = nodes(2)
    world = World(through(ctx, among), anvil)
    asked = world.paid()
    anvil.mine(WINDOW + 5)
    world.scan()
    with ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers))
    let(among, OldBlocksOnly, None)
    assert rescan(world, through(ctx, among)).transfers_stored == 1
    assert [each.token for each in world.transfers(asked)] == [NATIVE]
