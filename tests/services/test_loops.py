from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.loops import claim, hold, loop_name, release
from ctrip.database.models import audit_log
from ctrip.database.models import loops as rows
from ctrip.domain.loops import LoopKind
from ctrip.errors import Conflict, NotFound
from ctrip.services import loops
from tests.factories import CHAIN_ID, OTHER_CHAIN_ID, make_chain

pytestmark = pytest.mark.infra
NO_GRACE = timedelta(0)


def of_chains(ctx: Context, *chains) -> Context:
    return replace(ctx, settings=replace(ctx.settings, chains=chains))


def names(ctx: Context) -> list[object]:
    return [loop["name"] for loop in loops.overview(ctx)]


def test_each_enabled_chain_has_a_listener_and_a_sweeper_however_often_a_scheduler_starts(ctx) -> None:
    resting = make_chain(name="resting", chain_id=OTHER_CHAIN_ID, enabled=False)
    here = of_chains(ctx, make_chain(poll=timedelta(seconds=0.5)), resting)
    for _ in range(5):
        loops.ensure_loops(here)
    assert [(loop["name"], loop["every_ms"]) for loop in loops.overview(here)] == [
        (f"balances:{CHAIN_ID}", 20_000),
        (f"listener:{CHAIN_ID}", 500),
        (f"sweeper:{CHAIN_ID}", 500),
    ]


def test_two_watchdogs_kick_each_loop_once(ctx) -> None:
    loops.ensure_loops(ctx)
    chain_id = ctx.settings.chains[0].chain_id
    kicked = [*loops.kick_overdue(ctx, grace=NO_GRACE), *loops.kick_overdue(ctx, grace=NO_GRACE)]
    assert sorted(kicked) == sorted((kind, chain_id) for kind in LoopKind)


def test_a_loop_that_is_only_just_due_is_not_kicked(ctx) -> None:
    loops.ensure_loops(ctx)
    assert loops.kick_overdue(ctx) == []


def unserved(ctx: Context) -> list[Context]:
    """The chain of the loops is switched off; it is gone from the file."""
    return [of_chains(ctx, replace(ctx.settings.chains[0], enabled=False)), of_chains(ctx)]


def test_the_loops_of_a_chain_that_was_taken_out_of_service_are_not_kicked_and_their_rows_left_alone(ctx) -> None:
    loops.ensure_loops(ctx)
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(next_run_at=sa.text("now() - interval '1 h'")))
    for without in unserved(ctx):
        assert loops.kick_overdue(without) == []
    with ctx.sessions.begin() as session:
        assert set(session.scalars(sa.select(rows.c.kicked_at))) == {None}


# --- what operators do ------------------------------------------------------------------------------------------------

LISTENER = f"listener:{CHAIN_ID}"


def overdue(ctx: Context) -> set[str]:
    """The loops that a watchdog would kick now, however lately it did."""
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(kicked_at=None))
    return {loop_name(kind, chain_id) for kind, chain_id in loops.kick_overdue(ctx)}


def make_due(ctx: Context, *, in_s: float) -> None:
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(next_run_at=sa.func.now() + timedelta(seconds=in_s)))


@pytest.fixture
def resting(ctx: Context) -> Context:
    """Loops that were run just now, and are due in five minutes."""
    loops.ensure_loops(ctx)
    make_due(ctx, in_s=300)
    return ctx


def test_a_loop_that_is_to_run_is_kicked_at_the_next_look_though_it_is_not_due_and_was_kicked_lately(resting) -> None:
    with resting.sessions.begin() as session:
        session.execute(sa.update(rows).values(kicked_at=sa.func.now()))
    assert loops.kick_overdue(resting) == []
    loops.run(resting, LISTENER, by="key_1")
    assert loops.kick_overdue(resting) == [(LoopKind.LISTENER, CHAIN_ID)]


def test_a_paused_loop_is_neither_kicked_nor_run_and_goes_on_where_it_stopped(resting) -> None:
    assert loops.pause(resting, LISTENER, by="key_1")["enabled"] is False
    make_due(resting, in_s=-60)
    assert overdue(resting) == {f"balances:{CHAIN_ID}", f"sweeper:{CHAIN_ID}"}
    with resting.sessions.begin() as session:
        assert claim(session, LISTENER) is None
    make_due(resting, in_s=300)
    assert loops.resume(resting, LISTENER, by="key_1")["enabled"] is True
    assert overdue(resting) == {LISTENER}, "it is not left to wait for the five minutes"
    with resting.sessions.begin() as session:
        assert claim(session, LISTENER) is not None


def test_a_loop_that_runs_while_it_is_paused_ends_its_run_and_begins_no_other(resting) -> None:
    make_due(resting, in_s=0)
    with resting.sessions.begin() as session:
        held = claim(session, LISTENER)
    assert held is not None
    loops.pause(resting, LISTENER, by="key_1")
    with resting.sessions.begin() as session:
        hold(session, held)
        release(session, held, again_in=NO_GRACE)
        assert claim(session, LISTENER) is None


def test_a_paused_loop_cannot_be_made_to_run(resting) -> None:
    loops.pause(resting, LISTENER, by="key_1")
    with pytest.raises(Conflict, match="paused"):
        loops.run(resting, LISTENER, by="key_1")
    assert overdue(resting) == set()


def test_a_loop_of_a_chain_that_is_not_served_cannot_be_made_to_run(resting) -> None:
    for without in unserved(resting):
        with pytest.raises(Conflict, match="not served"):
            loops.run(without, LISTENER, by="key_1")
    assert overdue(resting) == set()


@pytest.mark.parametrize("verb", [loops.pause, loops.resume, loops.run])
def test_a_loop_that_there_is_not_is_not_found(resting, verb) -> None:
    with pytest.raises(NotFound, match="no loop 'listener:7'"):
        verb(resting, "listener:7", by="key_1")


def test_who_paused_a_loop_stands_in_the_audit_log(resting) -> None:
    for verb in (loops.pause, loops.resume, loops.run):
        verb(resting, LISTENER, by="cli:ann")
    with resting.sessions.begin() as session:
        noted = session.execute(sa.select(audit_log.c.by, audit_log.c.action, audit_log.c.target)).all()
    assert {tuple(each) for each in noted} == {
        ("cli:ann", f"loops.{verb}", LISTENER) for verb in ("pause", "resume", "run")
    }
