"""Jobs on a real Postgres: asked for, refused, claimed by one run at a time, and over once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import events, work
from ctrip.database import jobs as job_rows
from ctrip.database.models import audit_log
from ctrip.database.models import jobs as table
from ctrip.domain.addresses import checksum_address
from ctrip.domain.events import EventType
from ctrip.domain.ids import Prefix
from ctrip.domain.jobs import MOST_OPEN, Done, Failed, Job, JobKind, JobStatus, Later, job_object
from ctrip.domain.loops import Tick
from ctrip.errors import Conflict, DestinationRefused, InvalidValue, NodeUnavailable, NotFound
from ctrip.runs import JobRun, run_job
from ctrip.services import jobs, loops
from tests.factories import store_payment

pytestmark = pytest.mark.infra

BY = "key_1"


def ask(ctx: Context) -> str:
    return str(jobs.scan_now(ctx, chain="anvil", by=BY)["id"])


def row(ctx: Context, job_id: str) -> dict[str, Any]:
    with ctx.sessions.begin() as session:
        return dict(session.execute(sa.select(table).where(table.c.id == job_id)).one()._mapping)


def due_now(ctx: Context, **values: Any) -> None:
    with ctx.sessions.begin() as session:
        session.execute(sa.update(table).values({"next_attempt_at": sa.func.now(), "lease_until": None} | values))


def test_a_job_reads_as_the_contract_says(ctx) -> None:
    asked = jobs.scan_now(ctx, chain="anvil", by=BY)
    assert asked == jobs.find(ctx, str(asked["id"]))
    assert {name: asked[name] for name in ("object", "kind", "status", "progress", "result", "error")} == {
        "object": "job",
        "kind": "scan-now",
        "status": "scheduled",
        "progress": None,
        "result": None,
        "error": None,
    }
    assert asked["status_url"] == f"/admin/jobs/{asked['id']}"
    assert asked["params"] == {"chain": "anvil", "chain_id": 31337}


def test_what_was_asked_for_and_by_whom_stands_in_the_audit_log(ctx) -> None:
    job_id = ask(ctx)
    with ctx.sessions.begin() as session:
        (noted,) = session.execute(sa.select(audit_log)).all()
    assert (noted.by, noted.action, noted.target) == (BY, "jobs.scan-now", job_id)


def test_the_relay_finds_each_job_and_its_actor_at_once(ctx) -> None:
    job_id = ask(ctx)
    with ctx.sessions.begin() as session:
        due = work.claim_due(session, Prefix.JOB, limit=10, again_after=timedelta(seconds=10))
    assert due == [work.Due(job_id, "job_scan_now")]


# --- refused at once --------------------------------------------------------------------------------------------------

PAY = "pay_01ARZ3NDEKTSV4RRFFQ69G5FAV"
STRANGER = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"

REFUSALS: list[tuple[str, Callable[[Context], object], type[Exception], str | None, str]] = [
    ("an unknown chain", lambda c: jobs.scan_now(c, chain="moon", by=BY), InvalidValue, "chain", "there is anvil"),
    ("an unknown chain to sweep", lambda c: jobs.sweep_now(c, chain="moon", by=BY), InvalidValue, "chain", "no chain"),
    (
        "an unknown token",
        lambda c: jobs.sweep_address(c, chain="anvil", address=STRANGER, token="DOGE", by=BY),
        InvalidValue,
        "token",
        "no token 'DOGE'",
    ),
    (
        "what is no address",
        lambda c: jobs.sweep_address(c, chain="anvil", address="0x12", token=None, by=BY),
        InvalidValue,
        "address",
        "is no address",
    ),
    (
        "an address that is not ours",
        lambda c: jobs.sweep_address(c, chain="anvil", address=STRANGER, token=None, by=BY),
        NotFound,
        "address",
        "was not issued here",
    ),
    ("an unknown payment", lambda c: jobs.process_payment(c, payment_id=PAY, by=BY), NotFound, "payment_id", PAY),
    (
        "a webhook of an unknown payment",
        lambda c: jobs.send_webhook(c, payment_id=PAY, event_type="payment.created", by=BY),
        NotFound,
        "payment_id",
        PAY,
    ),
    (
        "a URL that the guard refuses",
        lambda c: jobs.custom_webhook(c, url="http://169.254.169.254/x", payload={}, merchant_id=None, by=BY),
        DestinationRefused,
        "url",
        ".",
    ),
    (
        "an unknown merchant",
        lambda c: jobs.custom_webhook(c, url="https://a.example/", payload={}, merchant_id="mer_1", by=BY),
        NotFound,
        "merchant_id",
        "mer_1",
    ),
]


@pytest.mark.parametrize(("ask", "refusal", "param", "words"), [c[1:] for c in REFUSALS], ids=[c[0] for c in REFUSALS])
def test_what_cannot_be_done_is_refused_at_once(ctx, ask, refusal, param, words) -> None:
    with pytest.raises(refusal, match=words) as caught:
        ask(ctx)
    assert caught.value.param == param
    assert jobs.matching(ctx, kind=None, status=None, limit=10) == []


def test_a_disabled_chain_is_refused(ctx) -> None:
    off = replace(ctx.settings.chains[0], enabled=False)
    with pytest.raises(InvalidValue, match="switched off"):
        jobs.scan_now(replace(ctx, settings=replace(ctx.settings, chains=(off,))), chain="anvil", by=BY)


def test_an_event_that_the_payment_does_not_have_is_refused_with_those_that_it_has(ctx) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
    with pytest.raises(InvalidValue, match=r"it has payment\.created"):
        jobs.send_webhook(ctx, payment_id=payment.id, event_type="payment.settled", by=BY)


def test_an_address_of_ours_can_be_swept_in_any_listed_asset(ctx) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
    here = checksum_address(payment.address)
    for token, symbol in ((None, None), ("usdc", "USDC")):
        made = jobs.sweep_address(ctx, chain="anvil", address=here, token=token, by=BY)
        assert isinstance(made["params"], dict)
        assert (made["params"]["address"], made["params"]["token"]) == (here, symbol)


def test_a_paused_loop_is_not_run_for_a_job(ctx) -> None:
    loops.ensure_loops(ctx)
    loops.pause(ctx, "listener:31337", by=BY)
    with pytest.raises(Conflict, match="paused"):
        jobs.scan_now(ctx, chain="anvil", by=BY)
    jobs.sweep_now(ctx, chain="anvil", by=BY)


def test_more_jobs_than_an_operator_can_mean_are_refused_until_some_are_over(ctx) -> None:
    for _ in range(MOST_OPEN):
        job_id = ask(ctx)
    with pytest.raises(Conflict, match="100 scan-now jobs are open"):
        ask(ctx)
    jobs.sweep_now(ctx, chain="anvil", by=BY)  # a flood of one kind shuts out no other
    run_job(ctx, job_id, work=lambda _: Done({}))
    ask(ctx)


def test_several_that_ask_at_once_do_not_pass_the_limit(ctx) -> None:
    for _ in range(MOST_OPEN - 2):
        ask(ctx)

    def accepted(_: int) -> bool:
        try:
            return bool(ask(ctx))
        except Conflict:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(accepted, range(8))).count(True) == 2


# --- run --------------------------------------------------------------------------------------------------------------


def test_a_job_goes_on_from_its_progress_until_it_is_done(ctx) -> None:
    job_id = ask(ctx)
    seen: list[object] = []

    def count(job: JobRun) -> Later | Done:
        seen.append(job.progress)
        steps = 1 if job.progress is None else job.progress["steps"] + 1
        return Done({"steps": steps}) if steps == 3 else Later(timedelta(0), {"steps": steps})

    assert [run_job(ctx, job_id, work=count) for _ in range(4)] == [
        Tick(again_in=timedelta(0)),
        Tick(again_in=timedelta(0)),
        Tick(),
        Tick(),
    ]
    assert seen == [None, {"steps": 1}, {"steps": 2}]
    stored = row(ctx, job_id)
    assert (stored["status"], stored["result"], stored["attempts"]) == ("done", {"steps": 3}, 3)
    assert stored["started_at"] <= stored["ended_at"]


def test_a_job_that_is_not_due_is_not_run(ctx) -> None:
    job_id = ask(ctx)
    assert run_job(ctx, job_id, work=lambda _: Later(timedelta(seconds=30), {})).again_in == timedelta(seconds=30)
    assert run_job(ctx, job_id, work=lambda _: Done({})) == Tick()
    assert row(ctx, job_id)["status"] == JobStatus.RUNNING


def test_two_runs_at_once_are_one(ctx) -> None:
    job_id = ask(ctx)
    ran = []

    def work(_: JobRun) -> Done:
        ran.append("first")
        run_job(ctx, job_id, work=lambda _: ran.append("second") or Done({}))  # type: ignore[func-returns-value]
        return Done({"by": "first"})

    run_job(ctx, job_id, work=work)
    assert ran == ["first"]
    assert row(ctx, job_id)["result"] == {"by": "first"}


@pytest.mark.parametrize(
    "second", [Done({"by": "second"}), Later(timedelta(0), {"by": "second"})], ids=["done", "later"]
)
def test_a_run_that_was_overtaken_writes_nothing(ctx, second: Done | Later) -> None:
    job_id = ask(ctx)

    def work(job: JobRun) -> Done:
        due_now(ctx)  # its lease ends while it works
        run_job(ctx, job_id, work=lambda _: second)
        return Done({"by": "first"})

    assert run_job(ctx, job_id, work=work) == Tick()
    stored = row(ctx, job_id)
    assert {"by": "second"} in (stored["result"], stored["progress"])
    assert {"by": "first"} not in (stored["result"], stored["progress"])


def test_what_a_killed_run_noted_is_where_the_next_one_begins(ctx) -> None:
    job_id = ask(ctx)

    class Killed(BaseException):
        pass

    def work(job: JobRun) -> Done:
        with job.storing() as session:
            job.note(session, {"made": "x"})
        raise Killed

    with pytest.raises(Killed):
        run_job(ctx, job_id, work=work)
    assert run_job(ctx, job_id, work=lambda _: Done({})) == Tick(), "its lease still runs"
    due_now(ctx)
    run_job(ctx, job_id, work=lambda job: Done(dict(job.progress or {})))
    assert row(ctx, job_id)["result"] == {"made": "x"}


def test_a_node_that_is_silent_is_waited_for_and_named(ctx) -> None:
    job_id = ask(ctx)

    def silent(_: JobRun) -> Done:
        raise NodeUnavailable("node.example did not answer" + "!" * 1000)

    assert run_job(ctx, job_id, work=silent).again_in == timedelta(seconds=5)
    stored = row(ctx, job_id)
    assert (stored["status"], len(stored["progress"]["waits_for"])) == (JobStatus.RUNNING, 200)


def test_what_the_domain_refuses_ends_the_job(ctx) -> None:
    job_id = ask(ctx)

    def refuse(_: JobRun) -> Done:
        raise Conflict("it is stopped")

    run_job(ctx, job_id, work=refuse)
    assert (row(ctx, job_id)["status"], row(ctx, job_id)["error"]) == (JobStatus.FAILED, "it is stopped")


def test_a_job_that_takes_more_than_an_hour_fails_and_says_how_far_it_came(ctx) -> None:
    job_id = ask(ctx)
    run_job(ctx, job_id, work=lambda _: Later(timedelta(0), {"next_block": 7}))
    due_now(ctx, started_at=sa.text("now() - interval '61 min'"))
    assert run_job(ctx, job_id, work=lambda job: Later(timedelta(0), job.progress or {})) == Tick()
    assert row(ctx, job_id)["error"] == "it was not over after 60 minutes; its progress says how far it came"


def test_an_exception_frees_the_job_and_its_dead_letter_lets_it_wait_for_a_replay(ctx) -> None:
    job_id = ask(ctx)

    def burst(_: JobRun) -> Done:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            run_job(ctx, job_id, work=burst)
    with ctx.sessions.begin() as session:
        session.execute(sa.update(table).values(started_at=sa.text("now() - interval '2 h'")))
        work.fail(session, job_id)
    failed = row(ctx, job_id)
    assert (failed["status"], "nobody expected" in failed["error"]) == (JobStatus.FAILED, True)
    assert run_job(ctx, job_id, work=burst) == Tick()
    with ctx.sessions.begin() as session:
        work.revive(session, [job_id])
    assert row(ctx, job_id)["status"] == JobStatus.SCHEDULED
    run_job(ctx, job_id, work=lambda _: Later(timedelta(0), {}))
    assert row(ctx, job_id)["status"] == JobStatus.RUNNING, "it has its hour again"
    run_job(ctx, job_id, work=lambda _: Done({}))
    assert (row(ctx, job_id)["status"], row(ctx, job_id)["error"]) == (JobStatus.DONE, None)


def test_what_an_operator_wrote_into_one_job_is_in_no_jobs_way(ctx) -> None:
    with ctx.sessions.begin() as session:
        params = {"payload": {"odd": "\x00"}}  # JSON that Postgres stores, and fails to look into
        odd = job_rows.add(session, JobKind.CUSTOM_WEBHOOK, params=params, by=BY, new_id=ctx.new_id)
    for job_id in (odd.id, ask(ctx)):
        run_job(ctx, job_id, work=lambda _: Done({}))
        assert row(ctx, job_id)["status"] == JobStatus.DONE


# --- looked at --------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_by_kind_and_status_newest_first(ctx) -> None:
    first, second = ask(ctx), ask(ctx)
    jobs.sweep_now(ctx, chain="anvil", by=BY)
    run_job(ctx, first, work=lambda _: Failed("no"))

    def ids(**wanted: Any) -> list[str]:
        found: list[Job] = jobs.matching(ctx, **{"kind": None, "status": None, "limit": 10} | wanted)
        return [str(job_object(job)["id"]) for job in found]

    assert ids(kind=str(JobKind.SCAN_NOW)) == [second, first]
    assert ids(status="failed") == [first]
    assert ids(kind=str(JobKind.SCAN_NOW), after=second) == [first]
    assert len(ids()) == 3


def test_an_unknown_job_is_not_found(ctx) -> None:
    with pytest.raises(NotFound):
        jobs.find(ctx, "job_1")


def test_a_job_is_forgotten_a_while_after_it_ended(ctx) -> None:
    over, still_open = ask(ctx), ask(ctx)
    run_job(ctx, over, work=lambda _: Done({}))
    with ctx.sessions.begin() as session:
        assert job_rows.forget(session, older_than=timedelta(hours=1), limit=10) == 0
        session.execute(sa.update(table).where(table.c.id == over).values(ended_at=sa.text("now() - interval '2 h'")))
        assert job_rows.forget(session, older_than=timedelta(hours=1), limit=10) == 1
    assert [job.id for job in jobs.matching(ctx, kind=None, status=None, limit=10)] == [still_open]


def test_one_job_of_a_kind_is_at_work_on_a_chain_at_a_time_and_the_next_waits_for_its_turn(ctx) -> None:
    first, second = ask(ctx), ask(ctx)
    with ctx.sessions.begin() as session:
        claim = job_rows.claim(session, first)
    assert claim is not None
    with ctx.sessions.begin() as session:
        assert job_rows.claim(session, second) is None
    waiting = row(ctx, second)
    assert (waiting["status"], waiting["attempts"], waiting["kicked_at"]) == (JobStatus.SCHEDULED, 0, None)
    with ctx.sessions.begin() as session:
        job_rows.release(session, claim)
        session.execute(sa.update(table).where(table.c.id == second).values(next_attempt_at=sa.func.now()))
    with ctx.sessions.begin() as session:
        assert job_rows.claim(session, second) is not None, "the chain is free"
        assert job_rows.claim(session, first) is None


def test_of_many_events_of_a_type_the_newest_is_sent(ctx, merchant_id) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id, merchant_id=merchant_id)
        for version in (2, 3):
            newer = replace(payment, version=version)
            body: dict[str, object] = {"payment": {"version": version}}
            events.append(session, [events.News(EventType.PAYMENT_UPDATED, newer, body)], new_id=ctx.new_id)
        newest = events.of_payment(session, payment.id, limit=10)[-1]
    asked = jobs.send_webhook(ctx, payment_id=payment.id, event_type="payment.updated", by=BY)
    assert row(ctx, str(asked["id"]))["params"]["event_id"] == newest.id
