"""A chain read to its head because somebody asked for it, by the listener's own loop."""

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import cursors
from ctrip.database import loops as loop_rows
from ctrip.database.models import loops as loop_table
from ctrip.domain.payments import Status
from ctrip.services import jobs, loops
from ctrip.services.audit import audit
from ctrip.services.scanning import scan_now
from tests.between import between
from tests.devchain import ETHER, DevChain
from tests.jobs import BY, due_now, see_through
from tests.world import World

pytestmark = pytest.mark.infra


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    return World(ctx, anvil)


def rest(world: World) -> None:
    """Let no loop be due for an hour: what happens now, happens because somebody asks for it."""
    with world.ctx.sessions.begin() as session:
        later = sa.text("now() + interval '1 h'")
        session.execute(sa.update(loop_table).values(next_run_at=later, lease_until=None))


def ask(world: World) -> dict[str, object]:
    return jobs.scan_now(world.ctx, chain="anvil", by=BY)


def test_a_chain_is_read_to_its_head_now_and_the_job_says_what_was_found(world: World) -> None:
    asked, before = world.ask(ETHER), world.cursor().read_block
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine(50)
    rest(world)
    done = see_through(world.ctx, ask(world), scan_now)
    head = world.anvil.block_number()
    assert done["result"] == {
        "from_block": before + 1,
        "to_block": head,
        "head_block": head,
        "blocks_read": 50,
        "transfers_found": 1,
    }
    assert world.cursor().read_block == head
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert world.events(asked) == ["created", "detected", "confirmed"]
    assert audit(world.ctx) == []


def test_deliveries_that_a_scan_made_due_are_handed_on(world: World) -> None:
    asked = world.ask(ETHER)
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine(3)
    rest(world)
    tick = scan_now(world.ctx, str(ask(world)["id"]))
    assert (tick.again_in, len(tick.delivery_ids)) == (None, 2), "detected and confirmed"


def test_where_all_was_read_nothing_is_read_again(world: World) -> None:
    rest(world)
    found = see_through(world.ctx, ask(world), scan_now)["result"]
    assert (found["blocks_read"], found["transfers_found"]) == (0, 0)


def test_a_scan_waits_for_the_run_at_hand_and_then_reads(world: World) -> None:
    world.anvil.mine(2)
    name = f"listener:{world.chain.chain_id}"
    with world.ctx.sessions.begin() as session:
        loop_rows.bring_forward(session, name)
        held = loop_rows.claim(session, name)
    assert held is not None
    job_id = str(ask(world)["id"])
    assert scan_now(world.ctx, job_id).again_in is not None, "it comes back soon"
    assert jobs.find(world.ctx, job_id)["status"] == "running"
    with world.ctx.sessions.begin() as session:
        loop_rows.release(session, held, again_in=world.chain.poll)
    due_now(world.ctx)
    assert see_through(world.ctx, {"id": job_id}, scan_now)["result"]["blocks_read"] == 2


def test_the_listeners_own_message_still_finds_its_loop_due(world: World) -> None:
    name = f"listener:{world.chain.chain_id}"
    soon = sa.text("now() + interval '20 ms'")
    with world.ctx.sessions.begin() as session:
        session.execute(sa.update(loop_table).values(next_run_at=soon, lease_until=None))
    see_through(world.ctx, ask(world), scan_now)
    with world.ctx.sessions.begin() as session:
        assert loop_rows.claim(session, name) is not None, "or its message would die, and the watchdog had to kick"


def test_a_stopped_chain_fails_the_job_with_the_reason(world: World) -> None:
    with world.ctx.sessions.begin() as session:
        cursors.stop(session, world.chain.chain_id, "a reorg too deep")
    failed = see_through(world.ctx, ask(world), scan_now)
    assert (failed["status"], failed["result"]) == ("failed", None)
    assert "a reorg too deep" in failed["error"]


def test_a_loop_that_is_paused_after_it_was_asked_for_fails_the_job(world: World) -> None:
    asked = ask(world)
    loops.pause(world.ctx, f"listener:{world.chain.chain_id}", by=BY)
    assert "is paused" in see_through(world.ctx, asked, scan_now)["error"]


def test_a_scan_that_was_killed_between_two_steps_goes_on_where_the_cursor_stands(world: World, monkeypatch) -> None:
    before = world.cursor().read_block
    world.anvil.mine(45)
    rest(world)
    asked = ask(world)

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("ctrip.database.jobs.note", kill)
        with pytest.raises(Killed):
            scan_now(world.ctx, str(asked["id"]))
    assert world.cursor().read_block == before + 1, "one step was stored: it did not know yet how far the head is"
    due_now(world.ctx)
    rest(world)
    found = see_through(world.ctx, asked, scan_now)["result"]
    assert found["from_block"] == before + 2
    assert world.cursor().read_block == before + 45


def test_a_silent_node_is_waited_for_and_the_loop_is_free_meanwhile(world: World) -> None:
    world.anvil.mine(2)
    rest(world)
    job_id = str(ask(world)["id"])

    with between(world.ctx, lambda _: None) as silent:
        assert scan_now(silent, job_id).again_in is not None
    assert "did not answer" in str(jobs.find(world.ctx, job_id)["progress"])
    with world.ctx.sessions.begin() as session:
        loop = loop_rows.find(session, f"listener:{world.chain.chain_id}")
    assert loop is not None
    assert loop.lease_until is None
    due_now(world.ctx)
    assert see_through(world.ctx, {"id": job_id}, scan_now)["result"]["blocks_read"] == 2
