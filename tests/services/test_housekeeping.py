"""What is kept for a limited time goes when that is over, in bounded batches, and never silently."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from ctrip.context import Context
from ctrip.database import coverage, loops
from ctrip.database import webhook_origins as origins
from ctrip.database.models import dead_letters, emails, idempotency_keys, jobs, webhook_origins
from ctrip.domain.ids import Prefix
from ctrip.domain.scanning import BlockRange
from ctrip.domain.webhooks import SLOW_KEPT
from ctrip.services import audit_log, housekeeping
from tests.conftest import MERCHANT_ID
from tests.factories import OTHER_TOKEN, block_hash, read_to
from tests.services.office import Office
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

DAYS_90 = timedelta(days=90)
PLACE = "https://shop.example:443"


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """What is logged, each as (event, level)."""
    with capture_logs() as lines:
        yield lines


def bury(ctx: Context, *ages: timedelta, **changes: Any) -> None:
    with ctx.sessions.begin() as session:
        for age in ages:
            letter_id = ctx.new_id(Prefix.DEAD_LETTER)
            of = {"queue": "webhook", "actor": "send_webhook", "message": "{}", "reason": "retries"}
            died = {"first_at": ctx.now(), "died_at": sa.func.now() - age}
            session.execute(dead_letters.insert().values(id=letter_id, message_id=letter_id, **of | died | changes))


def count(ctx: Context, table: sa.Table) -> int:
    with ctx.sessions.begin() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def deeds(ctx: Context) -> list[Any]:
    return [(deed.by, deed.action, deed.detail) for deed in audit_log.matching(ctx, limit=9)]


def test_old_letters_go_and_the_audit_log_and_a_warning_tell_of_those_that_nobody_had_looked_at(
    ctx: Context, told: list[Any]
) -> None:
    second = timedelta(seconds=1)
    bury(ctx, DAYS_90 + 2 * second, DAYS_90 * 2, DAYS_90 - 60 * second)
    bury(ctx, DAYS_90 * 3, purged_at=sa.func.now())
    assert [housekeeping.forget(ctx), housekeeping.forget(ctx)] == [3, 0]
    assert count(ctx, dead_letters) == 1
    ((by, action, detail),) = deeds(ctx)
    assert (by, action, detail["deleted"], detail["open"]) == ("scheduler", "dead_letters.forget", 3, 2)
    before = (ctx.now() - DAYS_90).strftime("%Y-%m-%dT%H:%M")
    assert detail["died_before"].startswith(before[:-1])
    (line,) = [line for line in told if line["event"] == "dead_letters_forgotten"]
    assert (line["log_level"], line["deleted"], line["open"]) == ("warning", 3, 2)


def test_letters_that_somebody_had_looked_at_go_without_a_warning(ctx: Context, told: list[Any]) -> None:
    bury(ctx, DAYS_90 * 2, replayed_at=sa.func.now())
    housekeeping.forget(ctx)
    assert [line["log_level"] for line in told if line["event"] == "dead_letters_forgotten"] == ["info"]
    assert deeds(ctx)[0][2]["open"] == 0


@pytest.mark.parametrize(("kept_days", "left"), [(0, 2), (30, 1), (10_000, 2), (36_500, 2)])
def test_how_long_letters_are_kept_is_configured_and_0_is_for_ever(ctx: Context, kept_days: int, left: int) -> None:
    bury(ctx, timedelta(days=31), timedelta(days=29))
    housekeeping.forget(replace(ctx, settings=replace(ctx.settings, dead_letters_kept_days=kept_days)))
    assert count(ctx, dead_letters) == left
    assert len(deeds(ctx)) == 2 - left


def test_more_letters_than_one_batch_go_in_several_the_oldest_first(ctx: Context) -> None:
    bury(ctx, DAYS_90 * 2)
    with ctx.sessions.begin() as session:
        session.execute(
            sa.text(
                "INSERT INTO dead_letters (id, queue, actor, message, message_id, reason, first_at, died_at) "
                "SELECT 'dlt_' || n, 'webhook', 'send_webhook', '{}', n, 'retries', now(), now() - interval '99 days' "
                "FROM generate_series(1, :n) n"
            ),
            {"n": housekeeping.BATCH},
        )
    assert [housekeeping.forget(ctx) for _ in range(3)] == [housekeeping.BATCH, 1, 0]
    assert [detail["deleted"] for *_, detail in deeds(ctx)] == [1, housekeeping.BATCH]


def test_expired_keys_ended_jobs_and_old_emails_go_and_what_is_young_or_not_over_stays(ctx: Context) -> None:
    def ago(days: int) -> Any:
        return sa.func.now() - timedelta(days=days)

    job = {"kind": "scan-now", "params": {}, "requested_by": "tests"}
    mail = {"kind": "dead_letters", "subject": "s", "text": "t", "html": "h"}
    key = {"merchant_id": MERCHANT_ID, "route": "POST /api/v1/payments", "request_hash": b"1"}
    with ctx.sessions.begin() as session:
        for days in (8, 6):
            session.execute(jobs.insert().values(id=f"job_{days}", status="done", ended_at=ago(days), **job))
        session.execute(
            jobs.insert().values(
                id="job_open", status="scheduled", created_at=ago(99), next_attempt_at=sa.func.now(), **job
            )
        )
        for days in (31, 29):
            session.execute(
                emails.insert().values(id=f"eml_{days}", status="sent", sent_at=ago(days), created_at=ago(days), **mail)
            )
        session.execute(
            emails.insert().values(
                id="eml_open", status="pending", created_at=ago(99), next_attempt_at=sa.func.now(), **mail
            )
        )
        for hours in (73, 71):
            created = sa.func.now() - timedelta(hours=hours)
            session.execute(idempotency_keys.insert().values(key=str(hours), created_at=created, **key))
    assert [housekeeping.forget(ctx), housekeeping.forget(ctx)] == [3, 0]
    assert (count(ctx, jobs), count(ctx, emails), count(ctx, idempotency_keys)) == (2, 2, 1)
    assert deeds(ctx) == []


def test_a_job_and_an_email_stay_for_as_long_as_a_letter_speaks_of_them(
    ctx: Context,
) -> None:
    old = sa.func.now() - timedelta(days=40)
    job = {"kind": "scan-now", "params": {}, "requested_by": "tests", "status": "failed", "error": "it died"}
    mail = {"kind": "dead_letters", "subject": "s", "text": "t", "html": "h", "status": "dead"}
    with ctx.sessions.begin() as session:
        session.execute(jobs.insert().values(id="job_1", ended_at=old, **job))
        session.execute(emails.insert().values(id="eml_1", created_at=old, **mail))
    bury(ctx, timedelta(days=40), row_id="job_1")
    bury(ctx, timedelta(days=40), row_id="eml_1")
    assert housekeeping.forget(ctx) == 0
    kept_30 = replace(ctx, settings=replace(ctx.settings, dead_letters_kept_days=30))
    assert [housekeeping.forget(kept_30), housekeeping.forget(kept_30)] == [4, 0]


def test_an_email_goes_with_the_last_letter_that_speaks_of_it(ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        old = sa.func.now() - timedelta(days=100)
        digest = {"kind": "dead_letters", "subject": "s", "text": "t", "html": "h", "status": "sent"}
        session.execute(emails.insert().values(id="eml_1", sent_at=old, created_at=old, **digest))
    bury(ctx, timedelta(days=89), digest_id="eml_1")
    assert housekeeping.forget(ctx) == 0
    with ctx.sessions.begin() as session:
        session.execute(dead_letters.update().values(died_at=sa.func.now() - timedelta(days=91)))
    assert housekeeping.forget(ctx) == 2


# --- origins --------------------------------------------------------------------------------------------------------


def meet(ctx: Context, *places: str, slow_for: timedelta | None = None) -> None:
    """Let origins be known, and be slow for so long."""
    since = None if slow_for is None else sa.func.now() - slow_for
    with ctx.sessions.begin() as session:
        for place in places:
            session.execute(webhook_origins.insert().values(origin=place, slow_since=since))


def known(ctx: Context) -> list[str]:
    with ctx.sessions.begin() as session:
        return sorted(session.scalars(sa.select(webhook_origins.c.origin)))


def is_slow(ctx: Context, place: str) -> bool:
    with ctx.sessions.begin() as session:
        of = webhook_origins.c
        return session.scalar(sa.select(of.slow_since).where(of.origin == place)) is not None


@pytest.mark.parametrize(
    ("slow_for", "delivery", "stays"),
    [
        (None, None, False),
        (None, "over", False),
        (None, "pending", True),
        (timedelta(days=29), None, True),
        (timedelta(days=31), None, False),
        (timedelta(days=31), "over", False),
        (timedelta(days=31), "pending", True),
    ],
)
def test_an_origin_at_which_nothing_is_pending_goes_and_a_slow_one_when_it_has_been_so_for_a_month(
    office: Office, slow_for: timedelta | None, delivery: str | None, stays: bool
) -> None:
    meet(office.ctx, PLACE, slow_for=slow_for)
    office.owe("https://another.example/hooks")
    if delivery is not None:
        delivery_id, _ = office.owe("https://shop.example/hooks")
        if delivery == "over":
            office.change(delivery_id, status="dead", dead_reason="schedule", next_attempt_at=None)
    assert [housekeeping.forget(office.ctx), housekeeping.forget(office.ctx)] == [int(not stays), 0]
    assert known(office.ctx) == [PLACE] * stays


def test_more_origins_than_one_batch_go_in_several(office: Office) -> None:
    meet(office.ctx, *(f"https://{n}.example:443" for n in range(5)))
    for left in (3, 1, 0, 0):
        with office.ctx.sessions.begin() as session:
            origins.forget(session, slow_before=SLOW_KEPT, limit=2)
        assert len(known(office.ctx)) == left


def test_an_origin_that_somebody_looks_at_stays_and_is_not_waited_for(office: Office) -> None:
    meet(office.ctx, PLACE)
    with office.ctx.sessions.begin() as session:
        assert origins.has_room(session, PLACE, beside="")
        assert housekeeping.forget(office.ctx) == 0
    assert housekeeping.forget(office.ctx) == 1


def test_who_waits_for_an_origin_that_is_being_forgotten_makes_it_anew_and_has_it_alone(office: Office) -> None:
    meet(office.ctx, PLACE)
    # Not pg_stat_activity: what a transaction saw there first, it sees until its end.
    waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    def look() -> tuple[bool, int]:
        with office.ctx.sessions.begin() as session:
            has_room = origins.has_room(session, PLACE, beside="")
            return has_room, housekeeping.forget(office.ctx)

    with ThreadPoolExecutor(2) as crowd, office.ctx.sessions.begin() as watching:
        with office.ctx.sessions.begin() as session:
            assert origins.forget(session, slow_before=SLOW_KEPT, limit=1) == 1
            runs = [crowd.submit(look) for _ in range(2)]
            wait_until(lambda: watching.scalar(waiting) == 2, within_s=10, what="both wait for the deletion")
        assert [run.result(10) for run in runs] == [(True, 0)] * 2, "locked anew, so it cannot be forgotten"
    assert known(office.ctx) == [PLACE]


@pytest.mark.parametrize("slow", [True, False])
def test_an_attempt_whose_origin_was_forgotten_meanwhile_marks_it(office: Office, slow: bool) -> None:
    with office.ctx.sessions.begin() as session:
        origins.mark(session, PLACE, is_slow=slow)
    assert is_slow(office.ctx, PLACE) is slow


def test_an_origin_that_was_slow_before_is_slow_since_then(office: Office) -> None:
    meet(office.ctx, PLACE, slow_for=timedelta(days=31))
    with office.ctx.sessions.begin() as session:
        origins.mark(session, PLACE, is_slow=True)
    assert housekeeping.forget(office.ctx) == 1


def test_ranges_of_blocks_that_were_read_one_after_the_other_become_one(ctx: Context) -> None:
    chain = ctx.settings.chains[0]
    with ctx.sessions.begin() as session:
        loops.ensure(session, kind="listener", chain_id=chain.chain_id, every=chain.poll)
        read_to(session, 30, chain=chain)
        for first in (21, 11, 1):
            coverage.extend(
                session,
                chain.chain_id,
                tokens=[OTHER_TOKEN],
                read=BlockRange(first, first + 9),
                parent_hash=block_hash(first - 1),
                last_hash=block_hash(first + 9),
                endpoint="node.example",
            )
    assert housekeeping.forget(ctx) == 2
    assert housekeeping.forget(ctx) == 0
    with ctx.sessions.begin() as session:
        assert [each.blocks for each in coverage.find(session, chain.chain_id, OTHER_TOKEN)] == [BlockRange(1, 30)]
