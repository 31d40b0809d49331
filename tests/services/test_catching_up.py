"""Far behind the head: spans are stored in any order, the cursor follows where they link, and nothing is read twice."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database import coverage, cursors
from ctrip.database.models import chain_cursors, chain_headers, deposit_addresses
from ctrip.database.models import coverage as rows_of_coverage
from ctrip.domain.addresses import NATIVE
from ctrip.domain.payments import Payment, Status
from ctrip.domain.scanning import BlockRange, Cursor
from ctrip.services.audit import audit
from ctrip.services.scanning import scan_chain
from tests.devchain import ETHER, USDC, DevChain
from tests.lying_node import LyingNode, Window
from tests.node_faults import Answer, Fault, Surroundings, refusal
from tests.world import World

pytestmark = pytest.mark.infra

WITHHELD = range(40, 60)
BLOCKS = 200


class Withholds(Fault):
    """A node that refuses some blocks, and remembers which were asked for."""

    asked: list[int]

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        Withholds.asked = []

    def answer(self, body: bytes) -> Answer:
        calls = json.loads(body)
        numbers = [number for call in (calls if isinstance(calls, list) else [calls]) for number in _whole(call)]
        Withholds.asked += numbers
        if any(number in WITHHELD for number in numbers):
            each = calls if isinstance(calls, list) else [calls]
            told = [{"jsonrpc": "2.0", "id": call["id"], **refusal(-32000, "try again")} for call in each]
            return Answer(json.dumps(told if isinstance(calls, list) else told[0]).encode())
        return super().answer(body)


class Counts(Withholds):
    """The same, refusing nothing."""

    def answer(self, body: bytes) -> Answer:
        calls = json.loads(body)
        Withholds.asked += [
            number for call in (calls if isinstance(calls, list) else [calls]) for number in _whole(call)
        ]
        return Fault.answer(self, body)


def _whole(call: dict[str, object]) -> list[int]:
    params = call["params"]
    assert isinstance(params, list)
    is_whole = call["method"] == "eth_getBlockByNumber" and params[1] and params[0] != "latest"
    return [int(params[0], 16)] if is_whole else []


@pytest.fixture
def node(anvil: DevChain) -> Iterator[LyingNode]:
    with closing(LyingNode(anvil.url)) as node:
        yield node


@pytest.fixture
def world(ctx: Context, anvil: DevChain, node: LyingNode) -> World:
    chain = replace(ctx.settings.chains[0], rpc_urls=(node.url,), reorg_window=8)
    settings = replace(ctx.settings, chains=(chain,))
    return World(replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(chain)}), anvil)


def be(node: LyingNode, fault: type[Fault]) -> None:
    node.follow((Window(0, float("inf"), fault, seed=1),), targets=())


def step(world: World) -> Cursor:
    world._due()
    scan_chain(world.ctx, world.chain.chain_id)
    with world.ctx.sessions.begin() as session:
        cursor = cursors.find(session, world.chain.chain_id)
    assert cursor is not None
    return cursor


def unread(world: World, cursor: Cursor) -> list[BlockRange]:
    deep = BlockRange(cursor.start_block + 1, cursor.head_block - world.chain.reorg_window)
    with world.ctx.sessions.begin() as session:
        return coverage.gaps(session, world.chain.chain_id, NATIVE, deep)


def paid_far_ahead(world: World) -> tuple[Payment, Payment]:
    """Two payments: one paid before what is withheld, one after it. Nothing is read yet."""
    first, second = world.ask(ETHER), world.ask(ETHER)
    world.anvil.pay(first.address, ETHER)
    world.anvil.mine(80)
    world.anvil.pay(second.address, ETHER)
    world.anvil.mine(BLOCKS - 80)
    return first, second


def read_past_what_is_withheld(world: World, node: LyingNode) -> Cursor:
    be(node, Withholds)
    cursor = step(world)
    for _ in range(30):
        cursor = step(world)
        if cursor.head_block > BLOCKS and len(unread(world, cursor)) == 1:
            break
    return cursor


def test_what_is_read_ahead_counts_when_the_cursor_has_passed_it_and_is_read_once(
    world: World, node: LyingNode
) -> None:
    first, second = paid_far_ahead(world)
    cursor = read_past_what_is_withheld(world, node)
    assert cursor.read_block < WITHHELD[0]
    assert world.payment(first).standing.status is Status.DETECTED
    assert world.payment(second).standing.received == 0, "what lies before it is not known yet"
    (gap,) = unread(world, cursor)
    assert gap.last < 80, "blocks after the gap are stored"

    be(node, Counts)
    world.scan()
    assert world.events(second) == ["created", "detected", "confirmed"]
    deep = [number for number in Withholds.asked if number <= cursor.head_block - 8]
    assert sorted(deep) == list(gap), "nothing that was stored was read again"
    assert audit(world.ctx) == []


def test_what_was_read_ahead_on_a_fork_that_is_gone_is_forgotten(world: World, node: LyingNode) -> None:
    first, second = paid_far_ahead(world)
    cursor = read_past_what_is_withheld(world, node)
    other = world.ask(5 * USDC, token=world.chain.tokens[1].address)
    world.anvil.reorg(cursor.head_block - WITHHELD[0])
    world.anvil.pay_token(world.chain.tokens[1].address, other.address, 5 * USDC)
    world.anvil.mine(4)
    node.heal()
    world.scan()
    assert world.payment(first).standing.status is Status.CONFIRMED
    assert world.payment(second).standing.received == 0
    assert world.payment(other).standing.status is Status.CONFIRMED
    assert audit(world.ctx) == []


def test_a_chain_that_is_listed_later_is_read_from_the_first_address_that_was_issued(
    world: World, node: LyingNode
) -> None:
    asked = world.ask(ETHER)
    issued_at = datetime.fromtimestamp(world.anvil.head_time(), UTC)
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine(BLOCKS, seconds_apart=60)
    with world.ctx.sessions.begin() as session:
        session.execute(sa.update(deposit_addresses).values(created_at=issued_at))
        for table in (chain_cursors, chain_headers, rows_of_coverage):
            session.execute(sa.delete(table))
    be(node, Counts)
    world.scan()
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert audit(world.ctx) == []
