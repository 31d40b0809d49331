"""Blocks read again through endpoints that do not agree: no single one takes back what was right, nor hides a gap."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip import metrics
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.erc20 import address_word
from ctrip.context import Context
from ctrip.database import coverage, payments
from ctrip.database.models import coverage as coverage_rows
from ctrip.database.models import transfers
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.chains import Token
from ctrip.domain.payments import Payment, Status
from ctrip.domain.scanning import BlockRange
from ctrip.errors import ChainError
from ctrip.services import jobs
from ctrip.services.audit import audit
from ctrip.services.rereading import Rescanned, backfill, process_payment, rescan_chain, schedule_backfills
from tests.devchain import ETHER, USDC, DevChain
from tests.dying import Killed, dying
from tests.factories import asked_of
from tests.jobs import BY, due_now, see_through
from tests.jobs import job as job_of
from tests.lying_node import LyingNode, Window
from tests.node_faults import Down, Fault, Json, Surroundings, refusal
from tests.node_lies import Fork
from tests.world import World

pytestmark = pytest.mark.infra
WINDOW = 8
Nodes = list[LyingNode]


class Censor(Fault):
    """A node that hides the coin that its targets were paid, without a trace."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        told = reply.get("result")
        if method.startswith("eth_getBlockBy") and told and params[1]:
            return {
                "result": {**told, "transactions": [each for each in told["transactions"] if not self._hides(each)]}
            }
        if method.startswith("eth_getBlockBy") and told:
            return {
                "result": {**told, "transactions": [each for each in told["transactions"] if not self._knows(each)]}
            }
        is_hidden = method.startswith("eth_getTransaction") and told and self._hides(told)
        return {"result": None} if is_hidden else reply

    def _hides(self, transaction: Json) -> bool:
        return transaction["to"] in {hex_text(address) for address, _, _ in self.around.targets}

    def _knows(self, tx_hash: str) -> bool:
        return self._hides(self.upstream.call("eth_getTransactionByHash", tx_hash))


class DeepFork(Fork):
    """A node whose blocks are its own from before the reorg window on, without any payment."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._last_shared = 2
        self.salt = 1.0

    def _holds(self, tx_hash: str, at: Json) -> bool:
        return not self._is_ours(at)


class OldFork(DeepFork):
    """One whose blocks are of long ago: no moment of ours falls into them."""

    def _block(self, block: Json) -> Json:
        told = super()._block(block)
        return {**told, "timestamp": "0x1"} if self._is_ours(block) else told


class EmptyRanges(Fault):
    """A node that finds nothing in any range of blocks."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return {"result": []} if method == "eth_getLogs" and "fromBlock" in params[0] else reply


class NoLogs(Fault):
    """It tells of blocks, and of no logs."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return refusal(-32603, "internal error") if method == "eth_getLogs" else reply


class OldBlocksOnly(Fault):
    """A node that answers nothing but whole blocks with null, as one that has pruned them."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return {"result": None} if method == "eth_getBlockByNumber" and params[1] else reply


class LeavesOut(Fault):
    """A node that leaves out the logs of Transfers to its targets, wherever they are asked for."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        told = reply.get("result")
        if method == "eth_getLogs" and told:
            return {"result": self._kept(told)}
        if method == "eth_getTransactionReceipt" and told:
            return {"result": {**told, "logs": self._kept(told["logs"])}}
        if method == "eth_getBlockReceipts" and told:
            return {"result": [{**each, "logs": self._kept(each["logs"])} for each in told]}
        return reply

    def _kept(self, logs: list[Json]) -> list[Json]:
        hidden = {hex_text(address_word(address)) for address, _, _ in self.around.targets}
        return [log for log in logs if hidden.isdisjoint(log["topics"])]


class TellsInRangesAlone(LeavesOut):
    """One that leaves them out of their blocks, and tells of them where a range is looked through."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return reply if method == "eth_getLogs" and "fromBlock" in params[0] else super().reply(method, params, reply)


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
    targets = [] if of is None else [(of.address, asked_of(of).token, asked_of(of).amount)]
    for node, fault in zip(among, faults, strict=True):
        node.follow(() if fault is None else (Window(0, float("inf"), fault, seed=1),), targets=targets)


def rescan(world: World, ctx: Context | None = None, *, last: int | None = None) -> Rescanned:
    at = world.cursor()
    last = at.read_block - WINDOW - 2 if last is None else last
    *_, done = rescan_chain(ctx or world.ctx, world.chain.name, first=at.start_block + 1, last=last, by="cli:me")
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


@pytest.mark.parametrize("newest", [True, False], ids=["to the newest block", "old blocks alone"])
def test_a_rescan_passes_over_an_endpoint_on_a_fork(
    ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes], newest: bool
) -> None:
    among = nodes(2)
    world = World(through(ctx, among), anvil)
    asked = world.paid()
    anvil.mine(WINDOW + 5)
    world.scan()
    (true,) = world.transfers(asked)
    before, last = world.rows(), world.cursor().read_block if newest else None
    let(among, DeepFork, None)
    with pytest.raises(ChainError, match=r"than was read|not the one that the listener read"):
        rescan(world, through(ctx, among[:1]), last=last)
    assert world.rows() == before
    with ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers))
    assert rescan(world, through(ctx, among), last=last).transfers_stored == 1
    assert [each.block_hash for each in world.transfers(asked)] == [true.block_hash]


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
    with ctx.sessions.begin() as session:
        assert session.scalars(sa.select(coverage_rows.c.id).where(coverage_rows.c.token == usdc)).all() == []
    let(among, EmptyRanges, None)
    due_now(new)
    done = see_through(listing(ctx, native, Token("NEW", usdc, 6)), {"id": job.id}, backfill)
    assert (done["result"]["transfers_stored"], done["result"]["unread_blocks"]) == (1, 0)
    assert [each.token for each in world.transfers(asked)] == [usdc]


@pytest.fixture
def listed_later(ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes], usdc: bytes) -> "ListedLater":
    return ListedLater(ctx, anvil, nodes(3), usdc)


class ListedLater:
    """A chain whose token is listed when somebody was paid in it, together with another one, long ago."""

    def __init__(self, ctx: Context, anvil: DevChain, among: Nodes, usdc: bytes) -> None:
        self.among, self.usdc, self._ctx = among, usdc, ctx
        chain = ctx.settings.chains[0]
        self.world = World(listing(through(ctx, among), chain.native), anvil)
        self.asked, self.other = self.world.ask(ETHER), self.world.ask(ETHER)
        anvil.mine(3)
        anvil.pay_tokens(usdc, [(self.other.address, USDC), (self.asked.address, 7 * USDC)])
        self.block = anvil.block_number() + 1
        anvil.mine(WINDOW + 2)  # the hit alone is older than what the listener keeps
        self.world.scan()
        assert schedule_backfills(self.through(3)) != []
        (job,) = jobs.matching(ctx, kind="backfill", status=None, limit=9)
        self.job = {"id": job.id}

    def through(self, count: int) -> Context:
        """A process that has just started, lists the token, and reads through the first nodes."""
        ctx = through(self._ctx, self.among[:count])
        return listing(ctx, ctx.settings.chains[0].native, Token("NEW", self.usdc, 6))

    def run(self, ctx: Context) -> dict[str, Any]:
        """Run the job thrice, or until it is over."""
        for _ in range(3):
            due_now(ctx)
            backfill(ctx, self.job["id"])
        return job_of(ctx, self.job["id"])

    def gaps(self) -> list[BlockRange]:
        at = self.world.cursor()
        with self._ctx.sessions.begin() as session:
            return coverage.gaps(session, at.chain_id, self.usdc, BlockRange(at.start_block + 1, at.read_block))

    def amounts(self) -> list[int]:
        return [each.amount for asked in (self.other, self.asked) for each in self.world.transfers(asked)]


@pytest.mark.parametrize("count", [2, 3])
def test_a_block_of_which_another_endpoint_tells_more_is_read_where_it_is_shown(
    listed_later: ListedLater, count: int
) -> None:
    let(listed_later.among, LeavesOut, None, None, of=listed_later.asked)
    said = disputes("logs")
    assert listed_later.run(listed_later.through(count))["status"] == "done"
    assert (listed_later.amounts(), listed_later.gaps()) == ([USDC, 7 * USDC], [])
    assert disputes("logs") == said + 1


def test_a_block_that_shows_less_than_was_told_of_wherever_it_is_read_stays_due(
    listed_later: ListedLater, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctrip.services.rereading.backfilling.LOGS_SPAN", 5)
    let(listed_later.among, LeavesOut, TellsInRangesAlone, None, of=listed_later.asked)
    job = listed_later.run(listed_later.through(2))
    assert "show fewer transfers than endpoints told of" in job["progress"]["waits_for"]
    assert listed_later.amounts() == [USDC], "what they show is stored"
    (gap,) = listed_later.gaps()
    assert gap.last == listed_later.block, "and what came after it is read"
    let(listed_later.among, None, None, None)
    assert listed_later.run(listed_later.through(2))["status"] == "done"
    assert (listed_later.amounts(), listed_later.gaps()) == ([USDC, 7 * USDC], [])


def test_a_backfill_by_logs_passes_over_an_endpoint_on_a_fork(listed_later: ListedLater) -> None:
    let(listed_later.among, DeepFork, None, None)
    job = listed_later.run(listed_later.through(2))
    assert "no other endpoint answers" in job["progress"]["waits_for"], "one on a fork bears nothing out"
    assert listed_later.gaps() != []
    assert listed_later.run(listed_later.through(3))["status"] == "done"
    assert (listed_later.amounts(), listed_later.gaps()) == ([USDC, 7 * USDC], [])


@pytest.mark.parametrize(("fault", "count"), [(LeavesOut, 2), (DeepFork, 3)])
def test_a_payment_is_read_again_where_all_that_was_told_of_is_shown(
    ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes], usdc: bytes, fault: type[Fault], count: int
) -> None:
    among = nodes(count)
    world = World(through(ctx, among), anvil)
    asked, other = world.ask(USDC, token=usdc), world.ask(USDC, token=usdc)
    anvil.pay_tokens(usdc, [(other.address, USDC), (asked.address, USDC)])
    anvil.mine(WINDOW + 2)
    world.scan()
    with ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers).where(transfers.c.payment_id == asked.id))
    let(among, fault, *[None] * (count - 1), of=asked)
    job = jobs.process_payment(ctx, payment_id=asked.id, by=BY)
    assert see_through(through(ctx, among), job, process_payment)["result"]["transfers_stored"] == 1
    assert [each.amount for each in world.transfers(asked)] == [USDC]


@pytest.fixture
def forgotten(ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes], usdc: bytes) -> "Forgotten":
    return Forgotten(ctx, anvil, nodes(2), usdc)


class Forgotten:
    """A payment whose token came before the reorg window, and whose row is gone; a job is to read it again."""

    def __init__(self, ctx: Context, anvil: DevChain, among: Nodes, usdc: bytes) -> None:
        self.among, self.ctx = among, ctx
        self.world = World(through(ctx, among), anvil)
        anvil.mine(3)
        self.asked = self.world.paid(7 * USDC, token=usdc)
        anvil.mine(2 * WINDOW)
        self.world.scan()
        with ctx.sessions.begin() as session:
            session.execute(sa.delete(transfers))
        self.job = jobs.process_payment(ctx, payment_id=self.asked.id, by=BY)

    def run(self, *faults: type[Fault] | None) -> dict[str, Any]:
        """Run the job in a process that has just started, while its nodes have these faults."""
        let(self.among, *faults)
        due_now(self.ctx)
        process_payment(through(self.ctx, self.among), str(self.job["id"]))
        return job_of(self.ctx, str(self.job["id"]))

    def amounts(self) -> list[int]:
        return [each.amount for each in self.world.transfers(self.asked)]


def test_a_payment_of_whose_logs_one_of_several_endpoints_told_alone_is_read_again(forgotten: Forgotten) -> None:
    job = forgotten.run(EmptyRanges, NoLogs)
    assert "no other endpoint answers" in job["progress"]["waits_for"]
    assert forgotten.amounts() == []
    done = forgotten.run(EmptyRanges, None)
    assert (done["status"], done["result"]["transfers_stored"], forgotten.amounts()) == ("done", 1, [7 * USDC])


def test_what_one_endpoint_alone_told_of_is_stored_and_counted_before_another_one_answers(forgotten: Forgotten) -> None:
    job = forgotten.run(None, NoLogs)
    assert "no other endpoint answers" in job["progress"]["waits_for"]
    assert forgotten.amounts() == [7 * USDC]
    done = forgotten.run(None, None)
    assert (done["status"], done["result"]["transfers_stored"], forgotten.amounts()) == ("done", 1, [7 * USDC])
    assert done["result"]["blocks_read"] == WINDOW + 1, "the window, and the block with the transfer, once each"


@pytest.mark.parametrize("faults", [(None, Down), (None, DeepFork), (OldFork, None)])
def test_when_a_payment_was_made_no_endpoint_tells_alone(
    forgotten: Forgotten, faults: tuple[type[Fault] | None, ...]
) -> None:
    job = forgotten.run(*faults)
    assert job["progress"]["waits_for"]
    assert forgotten.amounts() == []
    done = forgotten.run(None, None)
    assert (done["status"], forgotten.amounts()) == ("done", [7 * USDC])


def test_a_backfill_of_whole_blocks_passes_over_an_endpoint_on_a_fork(
    ctx: Context, anvil: DevChain, nodes: Callable[[int], Nodes]
) -> None:
    among = nodes(2)
    world = World(through(ctx, among), anvil)
    asked = world.paid()
    anvil.mine(3 * WINDOW)
    world.scan()
    with ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers))
        session.execute(sa.delete(coverage_rows))
    let(among, DeepFork, None)
    assert schedule_backfills(through(ctx, among)) != []
    (job,) = jobs.matching(ctx, kind="backfill", status=None, limit=9)
    alone = through(ctx, among[:1])
    backfill(alone, job.id)
    assert "than was read" in job_of(alone, job.id)["progress"]["waits_for"]
    assert [each for each in world.rows() if "last_hash" in each] == []
    due_now(ctx)
    done = see_through(through(ctx, among), {"id": job.id}, backfill)
    assert (done["result"]["transfers_stored"], done["result"]["unread_blocks"]) == (1, 0)
    assert [each.token for each in world.transfers(asked)] == [NATIVE]


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
