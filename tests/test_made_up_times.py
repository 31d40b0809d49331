"""One node alone that tells other times of old blocks: what is looked for by a time is looked for where it is."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database.models import chain_cursors, chain_headers, transfers
from ctrip.database.models import coverage as coverage_rows
from ctrip.domain.scanning import BlockRange
from ctrip.services import coverage, jobs
from ctrip.services.audit import audit
from ctrip.services.rereading import process_payment
from tests.devchain import ETHER, USDC, DevChain
from tests.jobs import BY, due_now, job, see_through
from tests.lying_node import LyingNode, Window
from tests.node_blocks import EarlyTimes
from tests.world import World

pytestmark = pytest.mark.infra


@pytest.fixture(params=[2, 3])
def among(ctx: Context, request: pytest.FixtureRequest, anvil: DevChain) -> Iterator[tuple[World, list[LyingNode]]]:
    """A world that is read through two nodes, or through three."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(closing(LyingNode(anvil.url))) for _ in range(request.param)]
        chain = replace(ctx.settings.chains[0], rpc_urls=tuple(node.url for node in nodes))
        settings = replace(ctx.settings, chains=(chain,))
        yield World(replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(chain)}), anvil), nodes


def tell_early_times(node: LyingNode) -> None:
    node.follow((Window(0, float("inf"), EarlyTimes, seed=1),), targets=())


def test_a_payment_that_is_read_again_is_looked_for_where_it_is_whatever_times_one_node_tells(
    among: tuple[World, list[LyingNode]], anvil: DevChain, usdc: bytes
) -> None:
    world, nodes = among
    paid = world.paid(USDC, token=usdc)
    anvil.mine(60, seconds_apart=60)
    world.scan()
    with world.ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers))
    tell_early_times(nodes[0])
    asked = jobs.process_payment(world.ctx, payment_id=paid.id, by=BY)
    if len(nodes) == 2:
        assert process_payment(world.ctx, str(asked["id"])).again_in is not None
        assert job(world.ctx, str(asked["id"]))["ended_at"] is None, "nobody knows who is right"
        nodes[0].heal()
        due_now(world.ctx)
    assert see_through(world.ctx, asked, process_payment)["result"]["transfers_stored"] == 1
    assert audit(world.ctx) == []


def test_what_was_paid_before_a_chain_began_is_told_as_unread_whatever_times_one_node_tells(
    among: tuple[World, list[LyingNode]], anvil: DevChain
) -> None:
    world, nodes = among
    first, issued_at = anvil.mine(), datetime.fromtimestamp(anvil.head_time(), UTC)
    anvil.mine(40, seconds_apart=60)
    with world.ctx.sessions.begin() as session:
        for table in (chain_headers, coverage_rows, chain_cursors):
            session.execute(sa.delete(table))
    world.scan()
    world.ask(ETHER, created_at=issued_at)
    tell_early_times(nodes[0])
    told = coverage.report(world.ctx, world.chain.name)
    if len(nodes) == 2:
        assert not told.is_first_known, "nobody knows who is right"
        nodes[0].heal()
        told = coverage.report(world.ctx, world.chain.name)
    assert told.is_first_known
    assert {asset.unread for asset in told.assets} == {(BlockRange(first, world.cursor().start_block),)}
