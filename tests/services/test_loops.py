from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import loops as rows
from ctrip.domain.loops import LoopKind
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
        (f"listener:{CHAIN_ID}", 500),
        (f"sweeper:{CHAIN_ID}", 500),
    ]


def test_two_watchdogs_kick_each_loop_once(ctx) -> None:
    loops.ensure_loops(ctx)
    chain_id = ctx.settings.chains[0].chain_id
    kicked = [*loops.kick_overdue(ctx, grace=NO_GRACE), *loops.kick_overdue(ctx, grace=NO_GRACE)]
    assert sorted(kicked) == [(LoopKind.LISTENER, chain_id), (LoopKind.SWEEPER, chain_id)]


def test_a_loop_that_is_only_just_due_is_not_kicked(ctx) -> None:
    loops.ensure_loops(ctx)
    assert loops.kick_overdue(ctx) == []


def test_the_loops_of_a_chain_that_was_taken_out_of_service_are_not_kicked(ctx) -> None:
    loops.ensure_loops(ctx)
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(next_run_at=sa.text("now() - interval '1 h'")))
    assert loops.kick_overdue(of_chains(ctx, replace(ctx.settings.chains[0], enabled=False))) == []
