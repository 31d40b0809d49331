"""New heads wake the listener, and only where that is of use."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import cursors, loops
from ctrip.database.models import chain_cursors
from ctrip.database.models import loops as loop_rows
from ctrip.services import heads
from ctrip.services.heads import Woken
from tests.factories import CHAIN_ID, header

pytestmark = pytest.mark.infra

NAME = f"listener:{CHAIN_ID}"


def leased(ctx: Context) -> AbstractContextManager[object]:
    with ctx.sessions.begin() as session:
        assert loops.claim(session, NAME) is not None
    return nullcontext()


def locked(ctx: Context) -> AbstractContextManager[object]:
    """Somebody is in the middle of a storing transaction."""
    session = ctx.sessions.engine.connect()
    loops.lock(session, NAME)
    return session


def paused(ctx: Context) -> AbstractContextManager[object]:
    with ctx.sessions.begin() as session:
        loops.set_enabled(session, NAME, enabled=False)
    return nullcontext()


def stopped(ctx: Context) -> AbstractContextManager[object]:
    with ctx.sessions.begin() as session:
        session.execute(sa.update(chain_cursors).values(stopped_reason="a reorg"))
    return nullcontext()


def missing(ctx: Context) -> AbstractContextManager[object]:
    with ctx.sessions.begin() as session:
        session.execute(loop_rows.delete())
    return nullcontext()


@pytest.mark.parametrize(
    ("number", "before", "woken"),
    [
        (101, lambda _: nullcontext(), Woken.DUE),
        (100, lambda _: nullcontext(), Woken.READ),
        (99, lambda _: nullcontext(), Woken.READ),
        (101, leased, Woken.BUSY),
        (101, locked, Woken.BUSY),
        (101, paused, Woken.READ),
        (101, stopped, Woken.READ),
        (101, missing, Woken.READ),
    ],
)
def test_a_head_makes_the_loop_due_where_it_was_not_read_and_nobody_is_at_it(
    ctx: Context, number: int, before: Callable[[Context], AbstractContextManager[object]], woken: Woken
) -> None:
    with ctx.sessions.begin() as session:
        loops.ensure(session, kind="listener", chain_id=CHAIN_ID, every=timedelta(seconds=5))
        cursors.start(session, CHAIN_ID, header(100))
        if before is not leased:
            session.execute(sa.update(loop_rows).values(next_run_at=sa.func.now() + timedelta(seconds=5)))
    with before(ctx):
        assert heads.wake(ctx, CHAIN_ID, number) is woken
    with ctx.sessions.begin() as session:
        due = loops.claim(session, NAME) is not None
    assert due == (woken is Woken.DUE)


def test_each_websocket_url_of_an_enabled_chain_is_a_source_that_may_be_silent_for_ten_polls(ctx: Context) -> None:
    chain = ctx.settings.chains[0]
    chains = [
        dataclasses.replace(
            chain,
            ws_urls=("wss://a.example/KEY", "ws://b.example:8546", "wss://a.example/OTHER"),
            poll=timedelta(seconds=12),
        ),
        dataclasses.replace(chain, chain_id=2, name="off", enabled=False, ws_urls=("wss://c.example",)),
        dataclasses.replace(chain, chain_id=3, name="polled"),
    ]
    settings = dataclasses.replace(ctx.settings, chains=tuple(chains))
    found = heads.sources(dataclasses.replace(ctx, settings=settings))
    assert [(source.chain_id, source.stream.label, source.stream.patience.silent_s) for source in found] == [
        (chain.chain_id, "a.example", 120),
        (chain.chain_id, "b.example:8546", 120),
        (chain.chain_id, "a.example#2", 120),
    ]
