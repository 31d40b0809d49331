from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import webhook_attempts
from ctrip.database.models import emails, jobs
from ctrip.database.models import webhook_deliveries as rows
from ctrip.domain.dead_letters import DeadLetter, Filter, Reason
from ctrip.domain.ids import Prefix
from ctrip.domain.webhooks import DeliveryStatus
from ctrip.errors import NotFound
from ctrip.log import configure_logging
from ctrip.services import dead_letters, relay
from tests.factories import store_payment

pytestmark = pytest.mark.infra

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALL = Filter()
MESSAGE = '{"queue_name":"webhook","actor_name":"send_webhook","args":["row"],"kwargs":{},"options":{}}'


def claim_due(ctx: Context) -> list[str]:
    return [due.row_id for due in relay.claim_due(ctx, Prefix.DELIVERY)]


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


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.RETRIES, DeliveryStatus.PENDING),
        (Reason.AGE, DeliveryStatus.PENDING),
        (Reason.POISON, DeliveryStatus.FAILED),
    ],
)
def test_the_death_of_a_second_message_leaves_an_attempt_alone_and_that_of_a_killer_ends_its_own(
    ctx, reason: Reason, status: DeliveryStatus
) -> None:
    delivery_id = delivery(ctx)
    with ctx.sessions.begin() as session:
        assert webhook_attempts.claim(session, delivery_id) is not None
    dead_letters.record(ctx, letter(row_id=delivery_id, reason=reason))
    found = row(ctx, delivery_id)
    is_pending = status is DeliveryStatus.PENDING
    assert (found.status, found.next_attempt_at is not None, found.lease_until is not None) == (
        status,
        is_pending,
        is_pending,
    )


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
    configure_logging(level=ctx.settings.log_level, process="tests", secrets=ctx.settings.secrets())
    dead_letters.record(ctx, letter(exception=f"bad words: {mnemonic}", traceback=f"in f({mnemonic})"))
    (found,) = stored(ctx)
    assert (found.exception, found.traceback) == ("bad words: [redacted]", "in f([redacted])")


def test_the_delivery_of_a_dead_message_waits_for_a_replay_and_is_then_due_again_with_a_fresh_schedule(ctx) -> None:
    delivery_id = delivery(ctx)
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(attempts=4, kicked_at=None))
    dead_letters.record(ctx, letter(row_id=delivery_id))
    assert (row(ctx, delivery_id).status, row(ctx, delivery_id).next_attempt_at) == ("failed", None)
    assert claim_due(ctx) == [], "nobody wakes it meanwhile"
    dead_letters.request_replay(ctx, ALL, by="tests", dry_run=False)
    assert row(ctx, delivery_id).status == "failed", "asking alone changes nothing"
    assert [found.row_id for found in dead_letters.take_requested(ctx)] == [delivery_id]
    revived = row(ctx, delivery_id)
    assert (revived.status, revived.attempts, revived.attempts_before_schedule) == ("pending", 4, 4)
    assert revived.next_attempt_at is not None
    assert claim_due(ctx) == [], "the replay sends its message"
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(kicked_at=sa.text("now() - interval '11 s'")))
    assert claim_due(ctx) == [delivery_id], "unless it was lost"


def test_a_dead_delivery_that_its_schedule_gave_up_can_be_replayed_too(ctx) -> None:
    delivery_id = delivery(ctx)
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(status="dead", dead_reason="schedule", next_attempt_at=None))
    dead_letters.record(ctx, letter(row_id=delivery_id, reason=Reason.SCHEDULE))
    assert row(ctx, delivery_id).status == "dead", "a letter of its own rule leaves it as it is"
    dead_letters.request_replay(ctx, ALL, by="tests", dry_run=False)
    dead_letters.take_requested(ctx)
    assert (row(ctx, delivery_id).status, row(ctx, delivery_id).dead_reason) == ("pending", None)


def test_a_delivery_that_arrived_after_all_is_not_brought_back(ctx) -> None:
    delivery_id = delivery(ctx)
    with ctx.sessions.begin() as session:
        delivered = {"status": "delivered", "next_attempt_at": None, "delivered_at": sa.func.now()}
        session.execute(sa.update(rows).values(**delivered))
    dead_letters.record(ctx, letter(row_id=delivery_id))
    dead_letters.request_replay(ctx, ALL, by="tests", dry_run=False)
    dead_letters.take_requested(ctx)
    assert row(ctx, delivery_id).status == "delivered"


@pytest.mark.parametrize(
    ("table", "values", "died", "revived"),
    [
        (
            emails,
            {"kind": "dead_letters", "subject": "s", "text": "t", "html": "h", "status": "pending"},
            "failed",
            "pending",
        ),
        (jobs, {"kind": "scan-now", "params": {}, "requested_by": "tests", "status": "running"}, "failed", "scheduled"),
    ],
    ids=["e-mail", "job"],
)
def test_an_email_and_a_job_wait_for_a_replay_and_begin_anew_with_it(
    ctx, table: sa.Table, values: dict[str, object], died: str, revived: str
) -> None:
    row_id = ctx.new_id(Prefix.EMAIL if table is emails else Prefix.JOB)
    with ctx.sessions.begin() as session:
        started = {"attempts": 2, "next_attempt_at": sa.func.now(), "lease_until": sa.func.now()}
        session.execute(table.insert().values(id=row_id, **values | started))

    def now() -> sa.Row[Any]:
        with ctx.sessions.begin() as session:
            return session.execute(sa.select(table).where(table.c.id == row_id)).one()

    dead_letters.record(ctx, letter(row_id=row_id))
    assert (now().status, now().next_attempt_at, now().lease_until) == (died, None, None)
    dead_letters.request_replay(ctx, ALL, by="tests", dry_run=False)
    dead_letters.take_requested(ctx)
    assert (now().status, now().attempts_before_schedule) == (revived, 2)
    assert now().next_attempt_at is not None


def test_a_letter_of_a_loop_concerns_no_row_and_is_replayed_like_any(ctx) -> None:
    message = '{"queue_name":"listener","actor_name":"listen_for_payments","args":[31337],"kwargs":{},"options":{}}'
    dead_letters.record(ctx, letter(queue="listener", actor="listen_for_payments", message=message, row_id="31337"))
    assert dead_letters.request_replay(ctx, ALL, by="tests", dry_run=False).done == 1
    (taken,) = dead_letters.take_requested(ctx)
    assert (taken.args, taken.row_id, taken.message) == ([31337], "31337", message)
