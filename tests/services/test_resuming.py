"""A stopped chain goes on from a block that an operator names: what came back is paid, what is gone is not."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from ctrip.blockchain.reading import read_step
from ctrip.context import Context
from ctrip.database import cursors
from ctrip.database.models import loops
from ctrip.domain.loops import Tick
from ctrip.domain.payments import Payment, Status
from ctrip.errors import Conflict, InvalidValue, NotFound
from ctrip.services.audit import audit
from ctrip.services.resuming import resume_chain
from ctrip.services.scanning import scan_chain
from tests.devchain import ETHER, DevChain
from tests.world import World

pytestmark = pytest.mark.infra


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    anvil.mine(8)
    return World(ctx, anvil)


def settled(world: World, asked: Payment) -> bool:
    return world.payment(asked).standing.status is Status.SETTLED


def stop(world: World, *again: bytes) -> int:
    """Let a reorg take every stored header, save the transactions `again`. Returns the last block below the fork."""
    depth = world.chain.reorg_window + 30
    fork = world.anvil.block_number() - depth
    world.reorg(depth, *((raw, 0) for raw in again))
    world.anvil.mine()
    world.scan()
    assert world.stopped_reason()
    return fork


def test_a_chain_is_resumed_below_the_fork_and_money_that_came_back_is_settled_again(world: World) -> None:
    world.anvil.mine(40)
    world.scan()
    kept, lost = world.ask(ETHER, expires_in_s=90_000), world.ask(ETHER, expires_in_s=90_000)
    paid = world.anvil.pay(kept.address, ETHER)
    world.anvil.pay(lost.address, ETHER)
    raw = world.anvil.raw(paid)
    world.live(24, until=lambda: settled(world, kept) and settled(world, lost))
    assert settled(world, kept) and settled(world, lost)
    world.anvil.mine(world.chain.reorg_window)
    world.scan()
    fork = stop(world, raw)
    before = world.payment(kept)
    world.live(2)
    assert world.payment(kept) == before, "nothing moves until somebody looks"
    resume_chain(world.ctx, world.chain.name, from_block=fork - 5, by="tests")
    assert world.stopped_reason() is None
    assert [world.payment(asked).standing.received for asked in (kept, lost)] == [0, 0]
    world.scan()
    world.live(24, until=lambda: settled(world, kept))
    assert settled(world, kept), world.events(kept)
    assert world.payment(lost).standing.status is Status.PENDING
    assert [transfer.amount for transfer in world.transfers(kept)] == [ETHER]
    assert audit(world.ctx) == []


def test_it_may_be_resumed_before_the_first_block_that_was_read(world: World) -> None:
    first = world.cursor()
    asked = world.ask(ETHER, expires_in_s=90_000)
    world.anvil.mine(world.chain.reorg_window + 26)
    world.scan()
    stop(world)
    resume_chain(world.ctx, world.chain.name, from_block=first.start_block - 6, by="tests")
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine(world.chain.confirmations)
    world.scan()
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert audit(world.ctx) == []


def test_a_run_under_way_writes_nothing_after_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.anvil.mine(3)
    chain_id = world.chain.chain_id
    cursor = world.cursor()

    def stopped_and_resumed(*args, **kwargs):
        reading = read_step(*args, **kwargs)
        with world.ctx.sessions.begin() as session:
            cursors.stop(session, chain_id, "an operator tries something")
        resume_chain(world.ctx, world.chain.name, from_block=cursor.read_block, by="tests")
        return reading

    monkeypatch.setattr("ctrip.services.scanning.read_step", stopped_and_resumed)
    world._due()
    assert scan_chain(world.ctx, chain_id) == Tick()
    with world.ctx.sessions.begin() as session:
        loop = session.execute(
            sa.select(loops.c.lease_until, loops.c.next_run_at <= sa.func.now()).where(loops.c.kind == "listener")
        ).one()
    assert world.cursor().read_block == cursor.read_block
    assert tuple(loop) == (None, True), "the loop is free, and due now"


Choose = Callable[[World, int], tuple[str, int]]
REFUSED: dict[str, tuple[Choose, type[Exception], str]] = {
    "an unknown chain": (lambda _world, fork: ("nowhere", fork), NotFound, "no enabled chain 'nowhere'"),
    "a block that was never read": (
        lambda world, _: ("anvil", world.anvil.block_number()),
        InvalidValue,
        "was never read",
    ),
    "a block above the fork": (lambda _, fork: ("anvil", fork + 40), InvalidValue, "is not below the fork"),
}


@pytest.mark.parametrize(("choose", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_lose_money_is_refused(world: World, choose: Choose, error: type[Exception], words: str) -> None:
    world.anvil.mine(world.chain.reorg_window + 26)
    world.scan()
    fork = stop(world)
    name, block = choose(world, fork)
    with pytest.raises(error, match=words):
        resume_chain(world.ctx, name, from_block=block, by="tests")
    assert world.stopped_reason()


def test_a_shorter_chain_has_no_block_above_its_head(world: World) -> None:
    world.anvil.mine(3)
    world.scan()
    with world.ctx.sessions.begin() as session:
        cursors.stop(session, world.chain.chain_id, "another node, far behind")
        session.execute(sa.text("UPDATE chain_cursors SET read_block = read_block + 100"))
    with pytest.raises(InvalidValue, match="its head is block"):
        resume_chain(world.ctx, world.chain.name, from_block=world.anvil.block_number() + 50, by="tests")


def test_a_chain_that_is_not_stopped_is_left_alone(world: World) -> None:
    with pytest.raises(Conflict, match="is not stopped"):
        resume_chain(world.ctx, world.chain.name, from_block=1, by="tests")
