"""What one node made up or bent: never final while nobody else bears it out, and put right when most deny it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database.models import transfers
from ctrip.domain.addresses import NATIVE
from ctrip.domain.payments import Payment, Status
from ctrip.domain.transfers import TransferStatus
from ctrip.services import jobs
from ctrip.services.audit import audit
from ctrip.services.inflows import check_balances
from ctrip.services.rereading import process_payment, rescan_chain
from tests.devchain import ETHER, USDC, DevChain
from tests.factories import asked_of
from tests.jobs import BY, see_through
from tests.lying_node import LyingNode, Window
from tests.node_bends import Bent
from tests.node_faults import Down, Fault, Json, Sure
from tests.node_lies import ForgedCoin, ForgedLogs
from tests.world import World

pytestmark = pytest.mark.infra
EVER = 1e9


class ForgedEverywhere(Sure, ForgedLogs):
    """One transfer in each block, and all that it says agrees with it."""


class ForgedCoinEverywhere(Sure, ForgedCoin):
    """The same with coin."""


class BentAmount(Bent):
    ways = ("amount",)


class BentRecipient(Bent):
    ways = ("recipient",)


class BentPlace(Bent):
    ways = ("place",)


class BentTime(Fault):
    """A node whose blocks are a minute older than those of all others."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        block = reply.get("result")
        if not method.startswith("eth_getBlockBy") or not block:
            return reply
        return {"result": {**block, "timestamp": hex(int(block["timestamp"], 16) - 60)}}


class Moved(Fault):
    """A node that tells of a transaction in the block after its own, and of its logs in both."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        told = reply.get("result")
        if method == "eth_getLogs" and isinstance(told, list):
            block = self.upstream.call("eth_getBlockByHash", params[0]["blockHash"], False)
            before = self.upstream.call("eth_getLogs", {**params[0], "blockHash": block["parentHash"]})
            return {"result": [*told, *(_placed(log, block) for log in before)]}
        if method == "eth_getTransactionReceipt" and told and told["logs"]:
            block = self.upstream.call("eth_getBlockByNumber", hex(int(told["blockNumber"], 16) + 1), False)
            return {"result": {**_placed(told, block), "logs": [_placed(log, block) for log in told["logs"]]}}
        return reply


def _placed(at: Json, block: Json) -> Json:
    return {**at, "blockHash": block["hash"], "blockNumber": block["number"]}


class Lies:
    """A world that is read through some nodes, the first of which lies."""

    def __init__(self, ctx: Context, anvil: DevChain, nodes: Sequence[LyingNode]) -> None:
        self._honest = ctx
        self._nodes = nodes
        self.world = World(ctx, anvil)

    def scan(self) -> None:
        """Read through all nodes, as a worker does that has just started and remembers nothing of them."""
        self.world.ctx = self.through()
        self.world.scan()
        self.world.ctx = self._honest

    def look(self) -> None:
        """Look at balances through all nodes, likewise."""
        self.world._due()
        check_balances(self.through(), self.world.chain.chain_id)

    def through(self) -> Context:
        chain = replace(self.world.chain, rpc_urls=tuple(node.url for node in self._nodes))
        settings = replace(self._honest.settings, chains=(chain, *self._honest.settings.chains[1:]))
        return replace(self._honest, settings=settings, clients={chain.chain_id: ChainClient(chain)})

    def let(self, *faults: type[Fault] | None, of: Payment, amount: int | None = None) -> None:
        """Let the first nodes have these faults, and be honest where it is None; `of` is whom they lie for."""
        for node, fault in zip(self._nodes, faults, strict=False):
            script = () if fault is None else (Window(0, EVER, fault, 0),)
            node.follow(script, targets=[(of.address, asked_of(of).token, amount or asked_of(of).amount)])


@pytest.fixture
def lies(ctx: Context, anvil: DevChain) -> Iterator[Callable[[int], Lies]]:
    with ExitStack() as stack:
        yield lambda count: Lies(ctx, anvil, [stack.enter_context(closing(LyingNode(anvil.url))) for _ in range(count)])


@pytest.mark.parametrize("fault", [ForgedEverywhere, ForgedCoinEverywhere], ids=["tokens", "coin"])
def test_a_payment_that_one_node_made_up_is_not_confirmed_and_is_taken_back_with_the_lie(
    ctx: Context, anvil: DevChain, usdc: bytes, lies: Callable[[int], Lies], fault: type[Fault]
) -> None:
    these = lies(2)
    world = these.world
    asked = world.ask(ETHER) if fault is ForgedCoinEverywhere else world.ask(10 * USDC, token=usdc)
    other = world.ask(ETHER)
    anvil.pay(other.address, ETHER)
    these.let(fault, Down, of=asked)
    anvil.mine(6)
    these.scan()
    assert world.payment(asked).standing.status is Status.DETECTED, "the lie is believed as far as nothing hangs on it"
    anvil.mine(world.chain.confirmations)
    these.scan()
    assert world.payment(asked).standing.status is Status.DETECTED, "the only witness is away"
    with ctx.sessions.begin() as session:
        waits = session.scalars(sa.select(transfers.c.asked_at).where(transfers.c.payment_id == asked.id))
        assert any(waits), "what is newer is asked for first, from now on"
    these.let(fault, None, of=asked)
    these.scan()
    assert world.payment(asked).standing.status is Status.DETECTED, "one says so, one does not"
    these.let(None, None, of=asked)
    anvil.mine(world.chain.confirmations)  # what was made up last is not asked for before
    these.scan()
    assert (world.payment(asked).standing.status, world.transfers(asked)) == (Status.PENDING, [])
    assert world.payment(other).standing.status is Status.CONFIRMED
    assert [transfer.token for transfer in world.transfers(other)] == [NATIVE]
    assert audit(ctx) == []


def time_of(anvil: DevChain, number: int) -> datetime:
    return datetime.fromtimestamp(int(anvil.call("eth_getBlockByNumber", hex(number), False)["timestamp"], 16), UTC)


BENDS: dict[str, tuple[type[Fault], int, bool]] = {
    "the amount of coin, of two nodes": (BentAmount, 2, False),
    "which log it was, of two": (BentPlace, 2, True),
    "when it was, of two": (BentTime, 2, True),
    "who got tokens, of three, and still says so": (BentRecipient, 3, True),
}


@pytest.mark.parametrize("name", BENDS)
def test_what_one_node_bent_is_put_right_by_itself(
    ctx: Context, anvil: DevChain, usdc: bytes, lies: Callable[[int], Lies], name: str
) -> None:
    fault, count, is_token = BENDS[name]
    these = lies(count)
    world = these.world
    paid, unpaid = (world.ask(USDC, token=usdc) if is_token else world.ask(ETHER) for _ in range(2))
    these.let(fault, of=unpaid)
    if is_token:
        anvil.pay_token(usdc, paid.address, USDC)
    else:
        anvil.pay(paid.address, ETHER)
    anvil.mine(world.chain.confirmations - 1)
    these.scan()
    these.look()
    assert world.payment(unpaid).standing.status is not Status.CONFIRMED
    if count == 2:
        these.let(None, of=unpaid)
    anvil.mine(world.chain.confirmations)
    these.scan()
    these.scan()
    these.look()
    assert [world.payment(each).standing.status for each in (paid, unpaid)] == [Status.CONFIRMED, Status.PENDING]
    (true,) = world.transfers(paid)
    assert (true.amount, true.is_verified, true.block_time) == (
        asked_of(paid).amount,
        True,
        time_of(anvil, true.block_number),
    )
    assert world.transfers(unpaid) == []
    assert audit(ctx) == []


@pytest.mark.parametrize(
    "later", [(None, BentAmount), (BentAmount, None), (BentRecipient, BentAmount), (None, BentAmount, BentTime)]
)
def test_what_one_node_bent_is_not_lost_while_each_tells_another_story_of_it(
    ctx: Context, anvil: DevChain, usdc: bytes, lies: Callable[[int], Lies], later: tuple[type[Fault] | None, ...]
) -> None:
    these = lies(len(later))
    world = these.world
    paid, unpaid = (world.ask(USDC, token=usdc) for _ in range(2))
    these.let(BentPlace, of=unpaid)
    anvil.pay_token(usdc, paid.address, USDC)
    anvil.mine(world.chain.confirmations - 1)
    these.scan()
    these.let(*later, of=unpaid)
    anvil.mine(world.chain.confirmations)
    these.scan()
    assert world.payment(paid).standing.status is Status.DETECTED, "all deny it, and nobody knows what is true"
    these.let(*(None for _ in later), of=unpaid)
    anvil.mine()
    these.scan()
    these.scan()
    assert [world.payment(each).standing.status for each in (paid, unpaid)] == [Status.CONFIRMED, Status.PENDING]
    assert audit(ctx) == []


@pytest.mark.parametrize(("count", "is_refuted"), [(3, True), (2, False)])
def test_what_a_liar_told_of_a_payment_keeps_it_not_waiting(
    ctx: Context, anvil: DevChain, usdc: bytes, lies: Callable[[int], Lies], count: int, is_refuted: bool
) -> None:
    these = lies(count)
    world = these.world
    asked = world.ask(USDC, token=usdc)
    these.let(ForgedEverywhere, of=asked, amount=1)
    anvil.mine(2)
    these.scan()
    assert {each.amount for each in world.transfers(asked)} == {1}
    these.let(Down, of=asked)
    anvil.pay_token(usdc, asked.address, USDC)
    anvil.mine(world.chain.confirmations)
    these.scan()
    if count == 2:
        assert world.payment(asked).standing.status is Status.DETECTED, "the witness of what is true is away"
        these.let(ForgedEverywhere, of=asked, amount=1)
        these.scan()
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert {(each.amount, each.status) for each in world.transfers(asked)} == (
        {(USDC, TransferStatus.FINAL)} if is_refuted else {(USDC, TransferStatus.FINAL), (1, TransferStatus.SEEN)}
    )


def test_an_operator_who_reads_again_through_the_liar_gets_nothing_false(
    ctx: Context, anvil: DevChain, usdc: bytes, lies: Callable[[int], Lies]
) -> None:
    these = lies(3)
    world = these.world
    paid, unpaid = (world.ask(USDC, token=usdc) for _ in range(2))
    anvil.pay_token(usdc, paid.address, USDC)
    anvil.mine(world.chain.confirmations)
    these.scan()
    before, through = world.rows(), these.through()
    at = world.cursor()
    for bent in (BentAmount, BentRecipient, BentPlace):
        these.let(bent, of=unpaid)
        *_, done = rescan_chain(through, world.chain.name, first=at.start_block + 1, last=at.read_block, by="cli:me")
        assert (done.transfers_stored, done.transfers_orphaned) == (0, 0)
        assert [row for row in world.rows() if row not in before] == []


def test_reading_one_payment_again_takes_its_money_from_the_payment_that_a_liar_gave_it_to(
    ctx: Context, anvil: DevChain, usdc: bytes, lies: Callable[[int], Lies]
) -> None:
    these = lies(2)
    world = these.world
    paid, unpaid = (world.ask(USDC, token=usdc) for _ in range(2))
    these.let(BentRecipient, of=unpaid)
    anvil.pay_token(usdc, paid.address, USDC)
    anvil.mine()
    these.scan()
    assert [world.payment(each).standing.status for each in (paid, unpaid)] == [Status.PENDING, Status.DETECTED]
    these.let(None, of=unpaid)
    job = jobs.process_payment(these.through(), payment_id=paid.id, by=BY)
    done = see_through(these.through(), job, process_payment)
    assert (done["result"]["transfers_stored"], done["result"]["transfers_orphaned"]) == (1, 1)
    assert [world.payment(each).standing.status for each in (paid, unpaid)] == [Status.DETECTED, Status.PENDING]


def test_a_transaction_that_a_liar_tells_of_in_another_block_stops_nothing_and_is_credited_once(
    ctx: Context, anvil: DevChain, usdc: bytes, lies: Callable[[int], Lies]
) -> None:
    these = lies(2)
    world = these.world
    asked, other = world.ask(USDC, token=usdc), world.ask(ETHER)
    anvil.pay_token(usdc, asked.address, USDC)
    anvil.mine()
    these.scan()
    (true,) = world.transfers(asked)
    these.let(Moved, of=other)
    anvil.pay(other.address, ETHER)
    anvil.mine()
    these.scan()
    assert len(world.transfers(asked)) == 2
    these.let(None, of=other)
    anvil.mine(world.chain.confirmations)
    these.scan()
    these.scan()
    assert [world.payment(each).standing.status for each in (asked, other)] == [Status.CONFIRMED, Status.CONFIRMED]
    assert [each.block_hash for each in world.transfers(asked)] == [true.block_hash]
    assert audit(ctx) == []
