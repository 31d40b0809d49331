"""Filters, and what is done to all letters that match one: each once, in bounded batches, in the audit log."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import dead_letters as letter_queries
from ctrip.database import overview
from ctrip.database.models import audit_log as audit_rows
from ctrip.database.models import dead_letters as rows
from ctrip.domain.dead_letters import Count, DeadLetter, Filter, Reason, State
from ctrip.services import audit_log, dead_letters
from tests.services.test_dead_letters import delivery, letter, row, stored
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

ALL = Filter()
BY_ADA: dict[str, Any] = {"by": "cli:ada", "dry_run": False}
ACTS = {"replay": dead_letters.request_replay, "purge": dead_letters.purge}


def replay(ctx: Context, wanted: Filter = ALL, **options: Any) -> Count:
    return dead_letters.request_replay(ctx, wanted, **BY_ADA | options)


def purge(ctx: Context, wanted: Filter = ALL, **options: Any) -> Count:
    return dead_letters.purge(ctx, wanted, **BY_ADA | options)


def bury(ctx: Context, *names: str, **changes: Any) -> None:
    for name in names:
        dead_letters.record(ctx, letter(message_id=name, **changes))


def bury_many(ctx: Context, count: int) -> None:
    """Store that many letters at once."""
    values = [
        {
            "id": f"dlt_{number:05}",
            "queue": "webhook",
            "actor": "send_webhook",
            "message": '{"args":[]}',
            "message_id": str(number),
            "reason": "retries",
            "first_at": ctx.now(),
        }
        for number in range(count)
    ]
    with ctx.sessions.begin() as session:
        session.execute(rows.insert(), values)


def states(ctx: Context) -> dict[str, str]:
    """What became of each letter."""
    with ctx.sessions.begin() as session:
        found = session.execute(sa.select(rows.c.message_id, rows.c.replay_requested_at, rows.c.purged_at))
        return {name: "purged" if purged else "asked" if asked else "open" for name, asked, purged in found}


def deeds(ctx: Context) -> list[tuple[str, str, Any]]:
    return [(deed.by, deed.action, deed.detail) for deed in reversed(audit_log.matching(ctx, limit=100))]


# --- which ----------------------------------------------------------------------------------------------------------

FILTERS: list[tuple[Filter, str]] = [
    (Filter(), "abc"),
    (Filter(queue="webhook"), "ab"),
    (Filter(actor="sweep_payments"), "c"),
    (Filter(reason="poison"), "b"),
    (Filter(exception="ValueError"), "a"),
    (Filter(exception="Value%"), ""),
    (Filter(q="ROW_B"), "b"),
    (Filter(q="rowXb"), ""),
    (Filter(q="zwölf"), "b"),
    (Filter(q='say "no"'), "b"),
    (Filter(q="message-of-c"), ""),
    (Filter(queue="webhook", reason="retries"), "a"),
    (Filter(older_than=timedelta(hours=1)), "c"),
    (Filter(newer_than=timedelta(hours=1)), "ab"),
    (Filter(older_than=timedelta(seconds=30), newer_than=timedelta(hours=1)), "b"),
    (Filter(older_than=timedelta(days=9)), ""),
    (Filter(state=State.OPEN), "abc"),
    (Filter(q="no such text"), ""),
]


@pytest.mark.parametrize(("wanted", "expected"), FILTERS)
@pytest.mark.parametrize("act", ACTS)
def test_a_filter_means_the_letters_that_match_all_of_it(ctx, act: str, wanted: Filter, expected: str) -> None:
    now = ctx.now()
    bury(ctx, "a", row_id="row_a", died_at=now)
    odd = {"reason": Reason.POISON, "exception": "KeyError: 1", "died_at": now - timedelta(minutes=5)}
    bury(ctx, "b", row_id="row_b", message='{"args":["zw\\u00f6lf","say \\"no\\""]}', **odd)
    bury(ctx, "c", queue="sweeper", actor="sweep_payments", exception=None, died_at=now - timedelta(days=1))
    assert {found.message_id for found in dead_letters.matching(ctx, wanted, limit=10)} == set(expected)
    count = Count(matched=len(expected), done=0)
    assert ACTS[act](ctx, wanted, by="tests", dry_run=True) == count
    assert set(states(ctx).values()) == {"open"}, "a dry run changes nothing"
    assert ACTS[act](ctx, wanted, by="tests", dry_run=False).done == len(expected)
    assert {name for name, state in states(ctx).items() if state != "open"} == set(expected)


def test_letters_are_listed_newest_first_page_by_page_and_can_be_named_one_by_one(ctx) -> None:
    bury(ctx, *"01234")
    first = dead_letters.matching(ctx, ALL, limit=3)
    rest = dead_letters.matching(ctx, ALL, limit=3, after=first[-1].id)
    assert [found.message_id for found in [*first, *rest]] == ["4", "3", "2", "1", "0"]
    two = Filter(ids=(first[0].id, rest[0].id))
    assert replay(ctx, two).done == 2
    assert {name for name, state in states(ctx).items() if state == "asked"} == {"4", "1"}


def test_what_became_of_a_letter_can_be_asked_for_and_a_purged_one_is_out_of_sight(ctx) -> None:
    bury(ctx, "open", "replayed", "purged")
    replay(ctx, Filter(q="replayed"))
    purge(ctx, Filter(q="purged"))
    dead_letters.take_requested(ctx)
    shown = {state: {each.message_id for each in stored_as(ctx, state)} for state in (*State, None)}
    assert shown == {
        State.OPEN: {"open"},
        State.REPLAYED: {"replayed"},
        State.PURGED: {"purged"},
        None: {"open", "replayed"},
    }
    assert all(each.state is state for state in State for each in stored_as(ctx, state))


def stored_as(ctx: Context, state: State | None) -> list[DeadLetter]:
    return dead_letters.matching(ctx, Filter(state=state), limit=10)


# --- each once ------------------------------------------------------------------------------------------------------


def at_once(*works: Callable[[], object]) -> None:
    """Do things in threads that begin together."""
    together = threading.Barrier(len(works))

    def begin(work: Callable[[], object]) -> None:
        together.wait()
        work()

    threads = [threading.Thread(target=begin, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_letter_that_two_operators_ask_for_at_once_is_sent_once_by_two_schedulers(ctx) -> None:
    bury_many(ctx, 700)
    done: list[int] = []
    sent: list[str] = []

    def send() -> None:
        wait_until(lambda: sum(done) == 700, within_s=10)
        while taken := dead_letters.take_requested(ctx):
            sent.extend(found.id for found in taken)

    at_once(*[lambda: done.append(replay(ctx).done)] * 2, send, send)
    sent.extend(found.id for found in dead_letters.take_requested(ctx))
    assert len(sent) == len(set(sent)) == 700
    assert sum(detail["done"] for *_, detail in deeds(ctx)) == 700


def test_a_letter_that_two_operators_purge_at_once_is_purged_once(ctx) -> None:
    bury_many(ctx, 700)
    done: list[int] = []
    at_once(*[lambda: done.append(purge(ctx).done)] * 2)
    assert sum(done) == 700
    assert sum(detail["done"] for *_, detail in deeds(ctx)) == 700


def test_of_a_replay_and_a_purge_at_once_each_letter_gets_one(ctx) -> None:
    bury_many(ctx, 700)
    done: dict[str, int] = {}
    at_once(lambda: done.update(asked=replay(ctx).done), lambda: done.update(purged=purge(ctx).done))
    assert sum(done.values()) == 700
    assert {end: list(states(ctx).values()).count(end) for end in done} == done
    assert len(taken_by_all_schedulers(ctx)) == done["asked"]


def taken_by_all_schedulers(ctx: Context) -> list[str]:
    sent: list[str] = []
    while taken := dead_letters.take_requested(ctx):
        sent.extend(found.id for found in taken)
    return sent


# --- purged ---------------------------------------------------------------------------------------------------------


def test_a_purged_letter_is_closed_for_good_and_leaves_its_row_as_it_is(ctx) -> None:
    delivery_id = delivery(ctx)
    dead_letters.record(ctx, letter(row_id=delivery_id))
    assert open_by_queue(ctx) == [("webhook", 1)]
    assert purge(ctx) == Count(matched=1, done=1)
    assert (purge(ctx), replay(ctx)) == (Count(0, 0), Count(0, 0))
    assert dead_letters.take_requested(ctx) == []
    assert row(ctx, delivery_id).status == "failed"
    assert stored(ctx) == []
    (kept,) = dead_letters.matching(ctx, Filter(state=State.PURGED), limit=9)
    assert dead_letters.show(ctx, kept.id).state is State.PURGED
    assert not kept.is_replayable
    assert open_by_queue(ctx) == []


def open_by_queue(ctx: Context) -> list[tuple[str, int]]:
    """What gauges count, and snapshots."""
    with ctx.sessions.begin() as session:
        gauges = [(found.queue, found.count) for found in overview.open_dead_letters(session)]
        assert sum(letter_queries.count_open(session).values()) == sum(count for _, count in gauges)
        return gauges


def test_a_purge_does_not_overtake_a_replay_that_was_asked_for(ctx) -> None:
    bury(ctx, "wanted", "unwanted", row_id=None)
    replay(ctx, Filter(reason="retries"), at_most=1)
    assert purge(ctx) == Count(matched=1, done=1)
    assert states(ctx) == {"wanted": "asked", "unwanted": "purged"}
    assert len(dead_letters.take_requested(ctx)) == 1


def test_a_letter_that_nobody_can_read_is_not_replayed_and_says_so_until_it_is_purged(ctx) -> None:
    bury(ctx, "torn", reason=Reason.UNDECODABLE, message='{"args": [', actor="")
    bury(ctx, "fine")
    assert replay(ctx, dry_run=True) == Count(matched=2, done=0, unreadable=1)
    assert replay(ctx) == Count(matched=2, done=1, unreadable=1)
    assert states(ctx) == {"fine": "asked", "torn": "open"}
    (torn,) = dead_letters.matching(ctx, Filter(reason="undecodable"), limit=9)
    assert (torn.state, torn.is_replayable, torn.args) == (State.OPEN, False, None)
    assert purge(ctx) == Count(matched=1, done=1)


# --- bounded, and told ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTS)
def test_many_letters_are_done_batch_by_batch_each_told_in_the_audit_log(ctx, act: str) -> None:
    bury_many(ctx, 1_201)
    told: list[tuple[int, int]] = []
    wanted = Filter(queue="webhook", older_than=timedelta(0))
    count = ACTS[act](ctx, wanted, by="key_1", dry_run=False, on_progress=lambda done, of: told.append((done, of)))
    assert count == Count(matched=1_201, done=1_201)
    assert told == [(500, 1_201), (1_000, 1_201), (1_201, 1_201)]
    detail = {"filter": {"queue": "webhook", "older_than": 0}, "matched": 1_201}
    assert deeds(ctx) == [("key_1", f"dead_letters.{act}", detail | {"done": done}) for done in (500, 500, 201)]


@pytest.mark.parametrize("act", ACTS)
def test_who_says_how_many_at_most_gets_the_oldest_and_may_come_again(ctx, act: str) -> None:
    bury(ctx, *"01234")
    assert ACTS[act](ctx, ALL, by="tests", dry_run=False, at_most=3) == Count(matched=5, done=3)
    assert {name for name, state in states(ctx).items() if state == "open"} == {"3", "4"}
    assert ACTS[act](ctx, ALL, by="tests", dry_run=False, at_most=3) == Count(matched=2, done=2)


def test_after_a_crash_in_the_middle_the_audit_log_says_what_happened(ctx) -> None:
    bury_many(ctx, 700)

    def crash(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(ctx, on_progress=crash)
    assert list(states(ctx).values()).count("asked") == 500
    assert [detail["done"] for *_, detail in deeds(ctx)] == [500]


def test_letters_that_die_meanwhile_are_not_concerned(ctx) -> None:
    bury_many(ctx, 501)
    count = replay(ctx, on_progress=lambda done, _: bury(ctx, f"dies after {done}"))
    assert count.done == 501
    assert states(ctx)["dies after 500"] == "open"


def test_what_is_not_done_is_not_noted(ctx) -> None:
    bury(ctx, "a")
    replay(ctx, dry_run=True)
    purge(ctx, Filter(q="nothing like it"))
    assert deeds(ctx) == []


def test_the_audit_log_cannot_be_changed(ctx) -> None:
    bury(ctx, "a")
    replay(ctx)
    for statement in (audit_rows.update().values(by="nobody"), audit_rows.delete()):
        with pytest.raises(sa.exc.DBAPIError, match="never changed"), ctx.sessions.begin() as session:
            session.execute(statement)
    assert [by for by, *_ in deeds(ctx)] == ["cli:ada"]
