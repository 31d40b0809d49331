"""The sweeper on a chain whose own word makes money final: confirmations alone move nothing, and settle nothing."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database.models import sweep_intents
from ctrip.domain.chains import Chain
from ctrip.domain.finality import Finality, FinalityRule, Tier
from ctrip.domain.payments import Payment, Status
from ctrip.domain.sweeps import HeldReason, IntentState
from ctrip.services import chains
from ctrip.services.audit import audit
from ctrip.services.inflows import check_balances
from ctrip.services.inflows.rounds import SHORTEST_PACE
from ctrip.services.overview import take
from tests.devchain import ETHER, DevChain
from tests.world import World

pytestmark = pytest.mark.infra

DEEP = 10
"""More blocks than the chain's confirmations."""
UNTIL_FINALIZED = 64
"""Anvil calls a block finalized that is two epochs old."""
FINAL = UNTIL_FINALIZED + 1
REORG_WINDOW = 32
"""Shorter than that: the headers of final blocks are not kept."""


def world_of(ctx: Context, anvil: DevChain, chain: Chain) -> World:
    chain = replace(chain, reorg_window=REORG_WINDOW)
    settings = replace(ctx.settings, chains=(chain,))
    anvil.mine(UNTIL_FINALIZED + 10)
    return World(replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(chain)}), anvil)


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    """A world whose chain is final by its own word alone."""
    return world_of(ctx, anvil, replace(ctx.settings.chains[0], finality=Finality.FINALIZED))


def live(world: World, blocks: int) -> None:
    """Let blocks pass, and the sweeper work once after them."""
    world.anvil.mine(blocks)
    world.scan()
    world.sweep()


def sweeps(world: World) -> list[tuple[IntentState, HeldReason | None]]:
    with world.ctx.sessions.begin() as session:
        rows = session.execute(sa.select(sweep_intents.c.state, sweep_intents.c.held_reason)).all()
    return [(IntentState(state), reason and HeldReason(reason)) for state, reason in rows]


def paid(world: World) -> Payment:
    asked = world.ask(ETHER, finality=Finality.FINALIZED)
    world.anvil.pay(asked.address, ETHER)
    live(world, DEEP)
    assert (world.payment(asked).standing.status, sweeps(world)) == (Status.DETECTED, [])
    return asked


def test_a_sweep_is_settled_when_the_chain_calls_its_block_final(world: World) -> None:
    asked = paid(world)
    live(world, FINAL)
    live(world, 1)
    assert sweeps(world) == [(IntentState.MINED, None)]
    live(world, DEEP)
    assert sweeps(world) == [(IntentState.MINED, None)], "deep enough, and not final yet"
    live(world, FINAL)
    assert sweeps(world) == [(IntentState.DONE, None)]
    world.scan()
    assert world.payment(asked).standing.status is Status.SETTLED
    assert audit(world.ctx) == []


def test_what_is_signed_is_decided_on_the_balance_of_a_block_that_is_final_by_its_tier(
    ctx: Context, anvil: DevChain
) -> None:
    chain = ctx.settings.chains[0]
    tier = Tier(above=1, rule=FinalityRule(Finality.FINALIZED, chain.confirmations))
    world = world_of(ctx, anvil, replace(chain, tokens=(replace(chain.native, tiers=(tier,)), *chain.tokens[1:])))
    asked = paid(world)
    world.anvil.set_balance(asked.address, 0)
    live(world, FINAL)
    world.anvil.set_balance(asked.address, ETHER)
    live(world, DEEP)
    assert sweeps(world) == [(IntentState.HELD, HeldReason.UNCOVERED)], "the balance came back in blocks not yet final"
    live(world, FINAL)
    live(world, 1)
    assert sweeps(world) == [(IntentState.MINED, None)]


def test_money_that_is_final_by_an_older_rule_is_swept_when_todays_rule_allows_it(world: World) -> None:
    asked = world.ask(ETHER, finality=Finality.CONFIRMATIONS)
    world.anvil.pay(asked.address, ETHER)
    live(world, DEEP)
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert sweeps(world) == [(IntentState.HELD, HeldReason.UNCOVERED)]
    live(world, FINAL)
    live(world, 1)
    assert sweeps(world) == [(IntentState.MINED, None)]


def test_what_is_shown_as_final_is_what_the_chain_calls_so(world: World) -> None:
    head = world.anvil.mine()
    world.scan()
    data = chains.overview(world.ctx)["data"]
    assert isinstance(data, list)
    assert data[0]["final_block"] == take(world.ctx).chains[0].final_block == head - UNTIL_FINALIZED


def test_balances_are_looked_at_no_more_often_where_the_final_block_has_left_the_window(world: World) -> None:
    world.anvil.mine(world.chain.reorg_window)
    world.scan()
    world._due()
    tick = check_balances(world.ctx, world.chain.chain_id)
    assert tick.again_in is not None and tick.again_in > SHORTEST_PACE, "by the oldest header that is kept"
