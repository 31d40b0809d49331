"""One node alone that makes up blocks or times: nobody is paid or expired by it, and no honest node stops a chain."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.endpoint import MAX_REST_S
from ctrip.blockchain.fleet import SURVEY_EVERY_S
from ctrip.blockchain.rpc import RpcPool
from ctrip.blockchain.transport import Clock
from ctrip.context import Context
from ctrip.database import cursors
from ctrip.database.models import chain_cursors, chain_headers
from ctrip.database.models import coverage as coverage_rows
from ctrip.domain.forks import LEAST_PATIENCE
from ctrip.domain.payments import Payment, Status, Timing
from ctrip.domain.transfers import Source
from ctrip.services.audit import audit
from ctrip.services.scanning import scan_chain
from tests.devchain import ETHER, USDC, DevChain
from tests.lying_node import LyingNode, Window
from tests.node_blocks import EarlyAtFirst, EarlyTimes, MadeUpBlocks, ManyMadeUpBlocks, Stuck, WrongTimes
from tests.node_faults import Down, Fault, HeadBack, Pruned, Sure
from tests.services.test_inflows import Contracts
from tests.test_honest_heads import LongerFork
from tests.world import World

pytestmark = pytest.mark.infra
WINDOW = 16
Worlds = Callable[..., tuple[World, list[LyingNode]]]


@pytest.fixture
def worlds(ctx: Context, anvil: DevChain) -> Iterator[Worlds]:
    """Make a world that is read through so many nodes."""
    with ExitStack() as stack:

        def make(count: int, clock: Clock = time.monotonic, **changes: Any) -> tuple[World, list[LyingNode]]:
            nodes = [stack.enter_context(closing(LyingNode(anvil.url))) for _ in range(count)]
            urls = tuple(node.url for node in nodes)
            chain = replace(ctx.settings.chains[0], rpc_urls=urls, reorg_window=WINDOW)
            settings = replace(ctx.settings, chains=(chain,))
            clients = {chain.chain_id: ChainClient(chain, pool=RpcPool(chain, clock=clock))}
            return World(replace(ctx, settings=settings, clients=clients, **changes), anvil), nodes

        yield make


def be(node: LyingNode, fault: type[Fault]) -> None:
    node.follow((Window(0, float("inf"), fault, seed=1),), targets=())


def scan(world: World, times: int = 4) -> None:
    """Let the listener make some steps, whatever comes of them."""
    for _ in range(times):
        world._due()
        scan_chain(world.ctx, world.chain.chain_id)


def status(world: World, *asked: Payment) -> set[Status]:
    return {world.payment(each).standing.status for each in asked}


@pytest.mark.parametrize(("count", "liar"), [(2, 0), (3, 2)])
def test_confirmations_that_one_node_made_up_are_none(
    worlds: Worlds, anvil: DevChain, usdc: bytes, count: int, liar: int
) -> None:
    world, nodes = worlds(count)
    coin, tokens = world.ask(ETHER), world.ask(USDC, token=usdc)
    anvil.pay(coin.address, ETHER)
    anvil.pay_token(usdc, tokens.address, USDC)
    anvil.mine()
    be(nodes[liar], MadeUpBlocks)
    scan(world)
    assert status(world, coin, tokens) == {Status.DETECTED}
    nodes[liar].heal()
    anvil.reorg(1)
    anvil.mine(8)
    world.scan()
    assert world.events(coin) == world.events(tokens) == ["created", "detected", "reverted"]
    assert audit(world.ctx) == []


@pytest.mark.parametrize("by", [0, 1], ids=["the liar looks", "the other looks"])
def test_confirmations_that_one_node_made_up_make_no_coin_of_a_contract_final(
    worlds: Worlds, anvil: DevChain, by: int
) -> None:
    read, nodes = worlds(2)
    world = Contracts(read.ctx, anvil)
    asked = world.ask(ETHER)
    world.forwarded(asked)
    world.see(by=by)
    assert world.events(asked) == ["created", "detected"]
    be(nodes[0], MadeUpBlocks)
    for _ in range(3):
        scan(world, 1)
        world.check(by=by)
    assert world.events(asked) == ["created", "detected"]
    nodes[0].heal()
    world.see(world.chain.confirmations, by=by)
    world.see(by=by)
    assert world.events(asked) == ["created", "detected", "confirmed"]
    assert audit(world.ctx) == []


class BalancesOfTheNextBlock(Fault):
    """A node that has the balances of its next block already, and tells them under the number of the last one."""

    def question(self, method: str, params: list[Any]) -> list[Any]:
        is_balance = method in ("eth_getBalance", "eth_call")
        return [*params[:1], "latest", *params[2:]] if is_balance else params


def test_what_the_only_node_told_a_block_too_early_counts_once(worlds: Worlds, anvil: DevChain) -> None:
    read, nodes = worlds(1)
    world = Contracts(read.ctx, anvil)
    asked = world.ask(ETHER)
    world.see(by=None)
    anvil.pay(asked.address, ETHER)
    anvil.mine()
    be(nodes[0], BalancesOfTheNextBlock)
    world.check(by=None)
    assert [each.source for each in world.transfers(asked)] == [Source.INTERNAL]
    nodes[0].heal()
    for _ in range(world.chain.confirmations):
        world.see(by=None)
    assert [each.source for each in world.transfers(asked)] == [Source.NATIVE]
    standing = world.payment(asked).standing
    assert (standing.status, standing.received) == (Status.CONFIRMED, ETHER)
    assert audit(world.ctx) == []


@pytest.mark.parametrize("count", [2, 3])
def test_one_node_does_not_lead_the_listener_further_than_a_reorg_may_go_back(
    worlds: Worlds, anvil: DevChain, count: int
) -> None:
    world, nodes = worlds(count)
    last_real = anvil.mine(3)
    world.scan()
    be(nodes[0], ManyMadeUpBlocks)
    scan(world, 6)
    assert world.cursor().read_block < last_real + WINDOW
    asked = world.ask(ETHER)
    anvil.pay(asked.address, ETHER)
    anvil.mine(8)
    if count == 2:
        scan(world)
        assert status(world, asked) == {Status.PENDING}, "nobody knows who is right"
        nodes[0].heal()
    world.scan()
    assert (world.stopped_reason(), status(world, asked)) == (None, {Status.CONFIRMED})
    assert audit(world.ctx) == []


@pytest.mark.parametrize("count", [2, 3])
def test_a_reorg_of_the_whole_window_is_followed_from_where_one_node_has_led_the_listener(
    worlds: Worlds, anvil: DevChain, count: int
) -> None:
    world, nodes = worlds(count)
    last_real = anvil.mine(2 * WINDOW)
    world.scan()
    be(nodes[0], MadeUpBlocks)
    scan(world)
    assert world.cursor().read_block == last_real + MadeUpBlocks.blocks
    nodes[0].heal()
    anvil.reorg(WINDOW)
    asked = world.ask(ETHER)
    anvil.pay(asked.address, ETHER)
    anvil.mine(MadeUpBlocks.blocks + 1)
    world.scan()
    assert (world.stopped_reason(), status(world, asked)) == (None, {Status.CONFIRMED})
    assert audit(world.ctx) == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_reorg_of_more_than_the_window_stops_the_chain_however_many_nodes_tell_of_it(
    worlds: Worlds, anvil: DevChain, count: int
) -> None:
    world, _ = worlds(count)
    for _ in range(3):
        anvil.mine(WINDOW)
        world.scan()
    anvil.reorg(WINDOW + 1)
    anvil.mine()
    world.scan()
    assert "is canonical any more" in str(world.stopped_reason())


def test_the_window_is_counted_from_the_newest_block_that_another_node_is_known_to_have(
    worlds: Worlds, anvil: DevChain
) -> None:
    watch = Watch()
    world, nodes = worlds(2, clock=watch)
    anvil.mine(3 * WINDOW)
    world.scan()
    quarter = WINDOW // 4
    anvil.mine(quarter - world.cursor().read_block % quarter)
    world.scan()
    asked_at = world.cursor().read_block
    assert oldest_header(world) == asked_at - WINDOW, "another was asked"
    anvil.mine()
    world.scan()
    assert oldest_header(world) == asked_at - WINDOW, "nobody was"
    watch.ahead_s += SURVEY_EVERY_S
    world.scan()
    assert oldest_header(world) == asked_at + 1 - WINDOW, "all were asked for their heads"
    be(nodes[0], MadeUpBlocks)
    watch.ahead_s += SURVEY_EVERY_S
    scan(world)
    assert world.cursor().read_block == asked_at + 1 + MadeUpBlocks.blocks
    assert oldest_header(world) == asked_at + 1 - WINDOW, "nobody else has what one made up"


def oldest_header(world: World) -> int:
    with world.ctx.sessions.begin() as session:
        return cursors.headers(session, world.chain.chain_id)[0].number


class SurelyPruned(Sure, Pruned):
    pass


@pytest.mark.parametrize("fault", [SurelyPruned, Down])
def test_a_reorg_of_the_window_and_of_what_one_node_has_led_on_by_takes_two_voices(
    worlds: Worlds, anvil: DevChain, fault: type[Fault]
) -> None:
    world, nodes = worlds(2)
    anvil.mine(2 * WINDOW)
    world.scan()
    be(nodes[0], MadeUpBlocks)
    scan(world)
    led_to = world.cursor().read_block
    anvil.reorg(WINDOW)
    nodes[0].heal()
    anvil.mine(MadeUpBlocks.blocks + 1)
    be(nodes[1], fault)
    scan(world)
    assert (world.cursor().read_block, world.stopped_reason()) == (led_to, None), "one voice, and a silent one"


@pytest.mark.parametrize("is_distrusted", [True, False])
@pytest.mark.parametrize("count", [2, 3])
def test_an_endpoint_that_is_behind_bears_no_made_up_block_out(
    worlds: Worlds, anvil: DevChain, count: int, is_distrusted: bool
) -> None:
    watch = Watch()
    world, nodes = worlds(count, clock=watch)
    anvil.mine(2 * WINDOW)
    world.scan()
    be(nodes[0], MadeUpBlocks)
    scan(world)
    oldest, led_to = oldest_header(world), world.cursor().read_block
    if is_distrusted:
        world.ctx.clients[world.chain.chain_id].pinned().distrust("receipt", "of something else")
    else:
        be(nodes[0], Down)
    scan(world)
    assert (oldest_header(world), world.cursor().read_block) == (oldest, led_to)
    nodes[0].heal()
    watch.ahead_s += MAX_REST_S
    anvil.reorg(WINDOW)
    asked = world.ask(ETHER)
    anvil.pay(asked.address, ETHER)
    anvil.mine(MadeUpBlocks.blocks + 1)
    world.scan()
    assert (world.stopped_reason(), status(world, asked)) == (None, {Status.CONFIRMED})


class VeryDeepFork(LongerFork):
    blocks = WINDOW + 4


def test_one_node_stops_no_chain_while_the_other_is_away_for_a_moment(worlds: Worlds, anvil: DevChain) -> None:
    watch = Watch()
    world, nodes = worlds(2, clock=watch)
    anvil.mine(2 * WINDOW)
    world.scan()
    be(nodes[1], Down)
    anvil.mine()
    scan(world, 1)
    be(nodes[0], VeryDeepFork)
    scan(world)
    assert world.stopped_reason() is None
    for node in nodes:
        node.heal()
    watch.ahead_s += MAX_REST_S
    anvil.mine()
    world.scan()
    assert (world.stopped_reason(), world.cursor().read_block) == (None, anvil.block_number())


@pytest.mark.parametrize("fault", [Stuck, Down])
def test_a_chain_that_stands_still_is_not_led_away_while_no_other_node_can_tell(
    worlds: Worlds, anvil: DevChain, fault: type[Fault]
) -> None:
    watch = Watch()
    world, nodes = worlds(2, clock=watch, now=later)
    last_real = anvil.mine(3)
    world.scan()
    be(nodes[0], ManyMadeUpBlocks)
    be(nodes[1], fault)
    scan(world, 3)
    watch.ahead_s += LEAST_PATIENCE.total_seconds() / 2
    scan(world, 3)
    assert world.cursor().read_block < last_real + WINDOW
    for node in nodes:
        node.heal()
    watch.ahead_s += MAX_REST_S
    asked = world.ask(ETHER)
    anvil.pay(asked.address, ETHER)
    anvil.mine(8)
    world.scan()
    assert (world.stopped_reason(), status(world, asked)) == (None, {Status.CONFIRMED})


def test_a_chain_does_not_begin_among_blocks_that_one_node_made_up(worlds: Worlds, anvil: DevChain) -> None:
    world, nodes = worlds(2)
    last_real = anvil.mine(3)
    forget(world)
    be(nodes[0], ManyMadeUpBlocks)
    scan(world, 1)
    assert world.cursor().start_block == last_real, "another one was asked"


@pytest.mark.parametrize("lies", [EarlyTimes, EarlyAtFirst])
@pytest.mark.parametrize("count", [2, 3])
def test_a_chain_does_not_begin_at_a_block_whose_time_one_node_made_up(
    worlds: Worlds, anvil: DevChain, count: int, lies: type[Fault]
) -> None:
    world, nodes = worlds(count)
    anvil.mine(40, seconds_apart=60)
    asked = world.ask(ETHER)
    anvil.pay(asked.address, ETHER)
    anvil.mine(40, seconds_apart=60)
    forget(world)
    be(nodes[0], lies)
    with world.ctx.sessions.begin() as session:
        session.execute(sa.text("UPDATE deposit_addresses SET created_at = :at"), {"at": asked.created_at})
    scan(world, 1)
    if count == 2:
        with pytest.raises(AssertionError):
            world.cursor()
        nodes[0].heal()
    world.scan()
    assert status(world, asked) == {Status.CONFIRMED}


def forget(world: World) -> None:
    """Let the chain be one that was never read."""
    with world.ctx.sessions.begin() as session:
        for table in (chain_headers, coverage_rows, chain_cursors):
            session.execute(sa.delete(table))


@pytest.mark.parametrize("count", [2, 3])
def test_a_time_that_one_node_made_up_ends_no_payment(worlds: Worlds, anvil: DevChain, count: int) -> None:
    world, nodes = worlds(count)
    paid, unpaid = world.ask(ETHER), world.ask(ETHER)
    anvil.pay(paid.address, ETHER)
    anvil.mine(6)
    be(nodes[0], WrongTimes)
    scan(world)
    assert world.events(unpaid) == ["created"]
    if count == 2:
        assert world.events(paid) == ["created"], "nobody knows who is right"
        nodes[0].heal()
        scan(world)
    assert world.events(paid) == ["created", "detected", "confirmed"]
    anvil.mine(4, seconds_apart=3600)
    scan(world)
    assert world.events(unpaid) == ["created", "expired"]
    assert audit(world.ctx) == []


def test_a_time_that_one_node_made_up_while_nobody_waited_ends_no_later_payment(
    worlds: Worlds, anvil: DevChain
) -> None:
    world, nodes = worlds(2)
    anvil.mine(6)
    be(nodes[0], WrongTimes)
    scan(world)
    nodes[0].heal()
    asked, unpaid, short = world.ask(ETHER), world.ask(ETHER), world.ask(ETHER, expires_in_s=600)
    anvil.pay(asked.address, ETHER)
    anvil.mine(2)
    scan(world, 12)
    assert (world.events(asked), world.events(unpaid)) == (["created", "detected"], ["created"])
    anvil.mine()
    scan(world)
    assert (world.events(asked), world.events(unpaid)) == (["created", "detected", "confirmed"], ["created"])
    anvil.mine(3, seconds_apart=700)
    scan(world, 12)
    assert (world.events(short), world.events(unpaid)) == (["created", "expired"], ["created"])


def test_money_that_came_late_is_not_on_time_because_one_node_says_so(worlds: Worlds, anvil: DevChain) -> None:
    world, nodes = worlds(2)
    late = world.ask(ETHER, expires_in_s=60)
    be(nodes[0], EarlyTimes)
    anvil.mine(2, seconds_apart=120)
    anvil.pay(late.address, ETHER)
    anvil.mine(6)
    scan(world)
    assert status(world, late) <= {Status.PENDING, Status.DETECTED, Status.EXPIRED}
    nodes[0].heal()
    anvil.mine(6)
    scan(world)
    found = world.payment(late).standing
    assert (found.status, found.timing) == (Status.EXPIRED, Timing.LATE)
    assert audit(world.ctx) == []


def later() -> datetime:
    """Long after all blocks of a test: by its own time none of them is young."""
    return datetime.now().astimezone() + timedelta(hours=10)


@dataclass
class Watch:
    """A clock that is turned on."""

    ahead_s: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.mark.parametrize(
    "faults",
    [(Stuck,), (Stuck, Stuck), (HeadBack, HeadBack), (Down, Stuck), (Pruned,)],
    ids=lambda faults: " ".join(fault.__name__ for fault in faults),
)
def test_nodes_that_are_stuck_behind_pruned_or_away_stop_no_chain_and_no_deadline(
    worlds: Worlds, anvil: DevChain, faults: tuple[type[Fault], ...]
) -> None:
    watch = Watch()
    world, nodes = worlds(1 + len(faults), clock=watch, now=later)
    unpaid = world.ask(ETHER, expires_in_s=60)
    for node, fault in zip(nodes[1:], faults, strict=True):
        be(node, fault)
    asked = world.ask(ETHER)
    anvil.pay(asked.address, ETHER)
    for _ in range(4):
        anvil.mine(WINDOW // 2, seconds_apart=60)
        scan(world, 1)
        watch.ahead_s += 60 * WINDOW // 4  # by now the first one has told of these blocks for long
        world.scan()
    assert world.cursor().read_block == anvil.block_number()
    assert world.cursor().read_block - oldest_header(world) < 7 * WINDOW // 4, "no more are kept than one may make up"
    assert world.events(unpaid) == ["created", "expired"]
    if not {Stuck, Down}.issuperset(faults):
        assert status(world, asked) == {Status.CONFIRMED}
    for node in nodes:
        node.heal()
    # A worker that has just started remembers nobody's failures.
    world.ctx = replace(world.ctx, clients={world.chain.chain_id: ChainClient(world.ctx.settings.chains[0])})
    anvil.mine()
    scan(world)
    assert status(world, asked) == {Status.CONFIRMED}
    assert audit(world.ctx) == []
