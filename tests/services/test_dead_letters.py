import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import webhook_deliveries as rows
from ctrip.domain.dead_letters import Count, DeadLetter, Filter, Reason
from ctrip.errors import NotFound
from ctrip.log import configure_logging
from ctrip.services import dead_letters, relay
from tests.factories import store_payment
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALL = Filter()
MESSAGE = '{"queue_name":"webhook","actor_name":"send_webhook","args":["row"],"kwargs":{},"options":{}}'


def letter(**changes) -> DeadLetter:
    dead = DeadLetter(
        queue="webhook",
        actor="send_webhook",
        message=MESSAGE,
        message_id="m",
        reason=Reason.RETRIES,
        exception="ValueError: no",
        traceback="Traceback …\nValueError: no",
        row_id="row",
        first_at=NOON,
        died_at=NOON + timedelta(minutes=1),
    )
    return replace(dead, **changes)


def delivery(ctx: Context) -> str:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id, webhook_url="http://127.0.0.1:9/hook")
        return session.scalars(sa.select(rows.c.id).where(rows.c.payment_id == payment.id)).one()


def row(ctx: Context, delivery_id: str):
    with ctx.sessions.begin() as session:
        return session.execute(sa.select(rows).where(rows.c.id == delivery_id)).one()


def stored(ctx: Context) -> list[DeadLetter]:
    return dead_letters.matching(ctx, ALL, limit=100)


def test_a_letter_is_stored_as_it_was(ctx) -> None:
    dead_letters.record(ctx, letter())
    (found,) = stored(ctx)
    assert found == replace(letter(), id=found.id)
    assert found.args == ["row"]
    assert dead_letters.show(ctx, found.id) == found
    with pytest.raises(NotFound):
        dead_letters.show(ctx, "dlt_none")


def test_the_same_death_told_twice_is_one_letter_and_a_later_one_is_another(ctx) -> None:
    assert dead_letters.record(ctx, letter())
    assert not dead_letters.record(ctx, letter(exception=None))
    assert dead_letters.record(ctx, letter(died_at=NOON + timedelta(hours=1)))
    assert len(stored(ctx)) == 2


def test_no_secret_and_nothing_that_postgres_cannot_hold_gets_into_a_letter(ctx) -> None:
    said = "postgres://user:pass@host sk_abc_defghijklmnop whsec_Zm9vYmFy \0 \ud800"
    dead_letters.record(ctx, letter(exception=said, traceback="x" * 30_000 + said, row_id="\0"))
    (found,) = stored(ctx)
    for text in (found.exception, found.traceback):
        assert text is not None
        assert "user:pass" not in text and "sk_abc" not in text and "whsec_Zm9v" not in text and "\0" not in text
        assert len(text) <= 20_000
    assert found.traceback and found.traceback.endswith("?"), "the end says what happened"


def test_a_secret_that_the_process_was_told_gets_into_no_letter(ctx: Context) -> None:
    mnemonic = ctx.settings.wallet_mnemonic
    assert mnemonic is not None
    configure_logging(level="WARNING", process="tests", secrets=ctx.settings.secrets())
    dead_letters.record(ctx, letter(exception=f"bad words: {mnemonic}", traceback=f"in f({mnemonic})"))
    (found,) = stored(ctx)
    assert (found.exception, found.traceback) == ("bad words: [redacted]", "in f([redacted])")


def test_the_delivery_of_a_dead_message_waits_for_a_replay_and_is_then_due_again_with_a_fresh_schedule(ctx) -> None:
    delivery_id = delivery(ctx)
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(attempts=4, kicked_at=None))
    dead_letters.record(ctx, letter(row_id=delivery_id))
    assert (row(ctx, delivery_id).status, row(ctx, delivery_id).next_attempt_at) == ("failed", None)
    assert relay.claim_due(ctx) == [], "nobody wakes it meanwhile"
    dead_letters.request_replay(ctx, ALL, dry_run=False)
    assert row(ctx, delivery_id).status == "failed", "asking alone changes nothing"
    assert [found.row_id for found in dead_letters.take_requested(ctx)] == [delivery_id]
    revived = row(ctx, delivery_id)
    assert (revived.status, revived.attempts, revived.attempts_before_schedule) == ("pending", 4, 4)
    assert revived.next_attempt_at is not None
    assert relay.claim_due(ctx) == [], "the replay sends its message"
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(kicked_at=sa.text("now() - interval '11 s'")))
    assert relay.claim_due(ctx) == [delivery_id], "unless it was lost"


def test_a_dead_delivery_that_its_schedule_gave_up_can_be_replayed_too(ctx) -> None:
    delivery_id = delivery(ctx)
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(status="dead", dead_reason="schedule", next_attempt_at=None))
    dead_letters.record(ctx, letter(row_id=delivery_id, reason=Reason.SCHEDULE))
    assert row(ctx, delivery_id).status == "dead", "a letter of its own rule leaves it as it is"
    dead_letters.request_replay(ctx, ALL, dry_run=False)
    dead_letters.take_requested(ctx)
    assert (row(ctx, delivery_id).status, row(ctx, delivery_id).dead_reason) == ("pending", None)


def test_a_delivery_that_arrived_after_all_is_not_brought_back(ctx) -> None:
    delivery_id = delivery(ctx)
    with ctx.sessions.begin() as session:
        delivered = {"status": "delivered", "next_attempt_at": None, "delivered_at": sa.func.now()}
        session.execute(sa.update(rows).values(**delivered))
    dead_letters.record(ctx, letter(row_id=delivery_id))
    dead_letters.request_replay(ctx, ALL, dry_run=False)
    dead_letters.take_requested(ctx)
    assert row(ctx, delivery_id).status == "delivered"


def test_a_dry_run_counts_and_marks_nothing(ctx) -> None:
    for number in range(3):
        dead_letters.record(ctx, letter(message_id=str(number)))
    assert dead_letters.request_replay(ctx, ALL, dry_run=True) == Count(matched=3, done=0)
    assert dead_letters.take_requested(ctx) == []
    assert dead_letters.request_replay(ctx, ALL, dry_run=False) == Count(matched=3, done=3)
    assert dead_letters.request_replay(ctx, ALL, dry_run=True) == Count(matched=0, done=0)


def test_a_letter_that_two_operators_ask_for_at_once_is_sent_once_by_two_schedulers(ctx) -> None:
    for number in range(40):
        dead_letters.record(ctx, letter(message_id=str(number)))
    together = threading.Barrier(4)
    marked: list[int] = []
    sent: list[str] = []

    def ask() -> None:
        together.wait()
        marked.append(dead_letters.request_replay(ctx, ALL, dry_run=False).done)

    def send() -> None:
        together.wait()
        wait_until(lambda: sum(marked) == 40, within_s=10)
        while taken := dead_letters.take_requested(ctx):
            sent.extend(found.id for found in taken)

    threads = [threading.Thread(target=work) for work in (ask, ask, send, send)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent.extend(found.id for found in dead_letters.take_requested(ctx))
    assert len(sent) == len(set(sent)) == 40
    assert {found.replays for found in stored(ctx)} == {1}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), {"a", "b", "c"}),
        (Filter(queue="webhook"), {"a", "b"}),
        (Filter(actor="sweep_payments"), {"c"}),
        (Filter(reason="poison"), {"b"}),
        (Filter(exception="ValueError"), {"a"}),
        (Filter(exception="Value%"), set()),
        (Filter(q="ROW_B"), {"b"}),
        (Filter(q="rowXb"), set()),
        (Filter(queue="webhook", reason="retries"), {"a"}),
        (Filter(q="no such text"), set()),
    ],
)
def test_a_filter_means_the_letters_that_match_all_of_it(ctx, wanted: Filter, expected: set[str]) -> None:
    dead_letters.record(ctx, letter(message_id="a", row_id="row_a"))
    dead_letters.record(ctx, letter(message_id="b", row_id="row_b", reason=Reason.POISON, exception="KeyError: 1"))
    dead_letters.record(ctx, letter(message_id="c", queue="sweeper", actor="sweep_payments", exception=None))
    assert {found.message_id for found in dead_letters.matching(ctx, wanted, limit=10)} == expected
    assert dead_letters.request_replay(ctx, wanted, dry_run=False).done == len(expected)


def test_letters_are_listed_newest_first_page_by_page_and_can_be_named_one_by_one(ctx) -> None:
    for number in range(5):
        dead_letters.record(ctx, letter(message_id=str(number)))
    first = dead_letters.matching(ctx, ALL, limit=3)
    rest = dead_letters.matching(ctx, ALL, limit=3, after=first[-1].id)
    assert [found.message_id for found in [*first, *rest]] == ["4", "3", "2", "1", "0"]
    two = Filter(ids=(first[0].id, rest[0].id))
    assert dead_letters.request_replay(ctx, two, dry_run=False).done == 2
