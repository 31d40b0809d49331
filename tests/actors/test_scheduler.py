"""The scheduler's tasks, and whole processes: loops and effects come back by themselves whatever Redis forgets."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from dramatiq.errors import ConnectionClosed
from redis import Redis, RedisError

from actors import QUEUES
from actors.broker import NAMESPACE, broker, wake
from actors.hardened import make_client
from actors.listener import listen_for_payments
from actors.queues import Queues
from actors.scheduler import BACKLOG, Doorbell, Patient, Tasks
from actors.webhook import send_webhook
from ctrip.context import Context
from ctrip.database import work
from ctrip.database.engine import Sessions, make_engine
from ctrip.database.models import dead_letters as letter_rows
from ctrip.database.models import loops as loop_rows
from ctrip.database.models import webhook_deliveries as rows
from ctrip.domain.dead_letters import Filter, Reason, row_died
from ctrip.errors import Unavailable
from ctrip.outbound.rates import Static
from ctrip.services import dead_letters, rates
from ctrip.services import queues as snapshots
from tests.actors.conftest import OwnRedis
from tests.actors.workers import Master, running
from tests.factories import store_payment
from tests.sink import Sink
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


@pytest.fixture
def our_queues(redis_client: Redis, redis_url: str) -> Queues:
    broker.connect(redis_url)
    return Queues(broker.client, namespace=NAMESPACE, heartbeat_timeout_ms=30_000)


@pytest.fixture
def tasks(ctx: Context, our_queues: Queues) -> Tasks:
    return Tasks(ctx, our_queues)


def ready(queues: Queues) -> dict[str, int]:
    return {depth.queue: depth.ready for depth in queues.depths(QUEUES) if depth.ready}


def owe(ctx: Context, count: int, url: str | None = None) -> None:
    """Owe so many deliveries to a URL, or each to another origin."""
    with ctx.sessions.begin() as session:
        for port in range(2000, 2000 + count):
            to = url or f"http://127.0.0.1:{port}/hook"
            store_payment(session, new_id=ctx.new_id, merchant_id=_merchant(session), webhook_url=to)


def _merchant(session: Any) -> str:
    found = session.scalar(sa.text("SELECT id FROM merchants"))
    assert isinstance(found, str)
    return found


def time_passes(ctx: Context) -> None:
    """Kicks were longer ago than anybody waits for them."""
    with ctx.sessions.begin() as session:
        for table in (rows, loop_rows):
            session.execute(sa.update(table).values(kicked_at=sa.text("now() - interval '1 min'")))


# --- tasks ----------------------------------------------------------------------------------------------------------


def test_the_watchdog_starts_every_loop_once_even_with_two_schedulers(ctx, our_queues: Queues) -> None:
    first, second = Tasks(ctx, our_queues), Tasks(ctx, our_queues)
    for _ in range(3):
        first.watch_loops()
        second.watch_loops()
    assert ready(our_queues) == {"listener": 2, "sweeper": 1}


def test_what_redis_forgot_is_sent_again(ctx, tasks: Tasks, our_queues: Queues, redis_client: Redis) -> None:
    owe(ctx, 5)
    tasks.watch_loops()
    tasks.relay_due()
    assert ready(our_queues) == {"listener": 2, "sweeper": 1, "webhook": 5}
    redis_client.flushall()
    with ctx.sessions.begin() as session:
        session.execute(sa.update(loop_rows).values(next_run_at=sa.text("now() - interval '2 s'")))
    tasks.watch_loops()
    tasks.relay_due()
    assert ready(our_queues) == {}, "it might only be slow"
    time_passes(ctx)
    tasks.watch_loops()
    tasks.relay_due()
    assert ready(our_queues) == {"listener": 2, "sweeper": 1, "webhook": 5}


def test_sources_of_rates_are_asked_by_one_of_two_schedulers(ctx, our_queues: Queues) -> None:
    class Counting(Static):
        rounds = 0

        def ask(self, pairs: Any, *, asked_at: Any) -> Any:
            self.rounds += 1
            return super().ask(pairs, asked_at=asked_at)

    source = Counting(ctx.settings.rates.static)
    ctx = replace(ctx, rate_sources={"static": source})
    for _ in range(3):
        Tasks(ctx, our_queues).refresh_rates()
    assert source.rounds == 1
    assert all(quoted.rate is not None for quoted in rates.report(ctx).quoted)


def test_a_queue_that_is_only_busy_is_not_flooded(ctx, tasks: Tasks, our_queues: Queues, redis_client: Redis) -> None:
    redis_client.rpush(f"{NAMESPACE}:webhook", *range(BACKLOG + 1))
    owe(ctx, 3)
    tasks.relay_due()
    assert ready(our_queues) == {"webhook": BACKLOG + 1}
    redis_client.ltrim(f"{NAMESPACE}:webhook", 0, 9)
    tasks.relay_due()
    assert ready(our_queues) == {"webhook": 13}


def test_a_replay_that_was_asked_for_is_sent_once_by_two_schedulers(ctx, tasks: Tasks, our_queues: Queues) -> None:
    now = ctx.now()
    died = {"queue": "webhook", "actor": "send_webhook", "exception": None, "first_at": now, "died_at": now}
    for name in ("a", "b"):
        dead_letters.record(ctx, row_died(row_id=name, reason=Reason.SCHEDULE, **died))
    dead_letters.request_replay(ctx, Filter(), by="tests", dry_run=False)
    tasks.replay_dead_letters()
    Tasks(ctx, our_queues).replay_dead_letters()
    assert ready(our_queues) == {"webhook": 2}


def test_a_letter_that_cannot_be_read_does_not_keep_others_from_being_replayed(
    ctx, tasks: Tasks, our_queues: Queues
) -> None:
    now = ctx.now()
    died = {"queue": "webhook", "actor": "send_webhook", "exception": None, "first_at": now, "died_at": now}
    for name in ("a", "b"):
        dead_letters.record(ctx, row_died(row_id=name, reason=Reason.SCHEDULE, **died))
    with ctx.sessions.begin() as session:
        session.execute(sa.update(letter_rows).where(letter_rows.c.row_id == "a").values(message="no JSON"))
    dead_letters.request_replay(ctx, Filter(), by="tests", dry_run=False)
    tasks.replay_dead_letters()
    assert ready(our_queues) == {"webhook": 1}


def test_replays_that_redis_did_not_take_are_sent_when_it_is_back(
    ctx, tasks: Tasks, our_queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = ctx.now()
    died = {"queue": "listener", "actor": "listen_for_payments", "exception": None, "first_at": now, "died_at": now}
    for name in ("1", "2", "3"):
        dead_letters.record(ctx, row_died(row_id=name, reason=Reason.RETRIES, **died))
    dead_letters.request_replay(ctx, Filter(), by="tests", dry_run=False)
    dispatch, calls = broker.scripts["dispatch"], list[str]()

    def go_away_after_one(**options: Any) -> Any:
        calls.append("enqueue")
        if len(calls) == 2:
            raise RedisError("away")
        return dispatch(**options)

    monkeypatch.setitem(broker.scripts, "dispatch", go_away_after_one)
    with pytest.raises(ConnectionClosed):
        tasks.replay_dead_letters()
    assert ready(our_queues) == {"listener": 1}
    tasks.replay_dead_letters()
    assert ready(our_queues) == {"listener": 3}
    assert {letter.replays for letter in dead_letters.matching(ctx, Filter(), limit=9)} == {1}


def test_a_doorbell_outlives_what_nobody_expected(ctx) -> None:
    answers: list[str] = []

    def answer() -> None:
        answers.append("heard")
        if len(answers) == 1:
            raise KeyError("never thought of")

    doorbell = Doorbell(ctx, answer)
    doorbell.start()

    def ring_until(count: int) -> bool:
        with ctx.sessions.begin() as session:
            work.ring(session)
        return len(answers) >= count

    wait_until(lambda: ring_until(2), within_s=10)
    doorbell.stop()
    doorbell.join(5)
    assert not doorbell.is_alive()


def test_snapshots_reach_those_who_do_not_know_redis(ctx, tasks: Tasks) -> None:
    wake(send_webhook, ["whd_1", "whd_2"])
    tasks.take_snapshots()
    assert {found.queue: found.ready for found in snapshots.snapshots(ctx)} == {
        "listener": 0,
        "sweeper": 0,
        "webhook": 2,
        "email": 0,
    }


def test_with_redis_away_nothing_is_kicked_that_could_not_be_sent(ctx, own_redis: OwnRedis) -> None:
    owe(ctx, 1)
    here = Queues(make_client(own_redis.url), namespace=NAMESPACE, heartbeat_timeout_ms=30_000)
    broker.connect(own_redis.url)
    tasks = Tasks(ctx, here)
    own_redis.kill()
    for task in (
        tasks.watch_loops,
        tasks.relay_due,
        tasks.replay_dead_letters,
        tasks.take_snapshots,
        tasks.collect_dead,
    ):
        with pytest.raises(RedisError):
            task()
    own_redis.start()
    tasks.watch_loops()
    tasks.relay_due()
    assert ready(here) == {"listener": 2, "sweeper": 1, "webhook": 1}, "all of it is due at once"


def test_with_postgres_away_every_task_says_so_in_our_own_words(ctx, our_queues: Queues) -> None:
    gone = Sessions(make_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none", process="tests"))
    tasks = Tasks(replace(ctx, sessions=gone), our_queues)
    for task in (tasks.watch_loops, tasks.relay_due, tasks.replay_dead_letters, tasks.take_snapshots, tasks.forget):
        with pytest.raises(Unavailable):
            task()


def test_a_task_waits_for_what_is_away_and_goes_on_when_it_is_back() -> None:
    lost = ConnectionClosed("c")  # type: ignore[no-untyped-call]
    answers: list[Exception | None] = [None, Unavailable("a"), RedisError("b"), lost, None, None]

    def task() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    patient, said = Patient("relay", task), list[str]()
    for _ in range(6):
        patient()
        said.append("waits" if patient.is_waiting else "runs")
    assert said == ["runs", "waits", "waits", "waits", "runs", "runs"]


def test_messages_that_cannot_be_sent_are_left_to_the_scheduler(own_redis: OwnRedis) -> None:
    broker.connect(own_redis.url)
    assert wake(listen_for_payments, [1])
    own_redis.kill()
    assert not wake(listen_for_payments, [1, 2, 3])
    own_redis.start()


# --- whole processes ------------------------------------------------------------------------------------------------


@contextmanager
def worker(queue: str, environment: dict[str, str], folder: Path, **more: str) -> Iterator[Master]:
    with running("./worker.sh", queue, environment={**environment, **more}, log=folder / f"{queue}.log") as started:
        yield started


@contextmanager
def scheduler(environment: dict[str, str], folder: Path, name: str = "scheduler") -> Iterator[Master]:
    command = (sys.executable, "-m", "actors.scheduler")
    with running(*command, environment=environment, log=folder / f"{name}.log") as started:
        yield started


def fence(ctx: Context, name: str) -> int:
    with ctx.sessions.begin() as session:
        return session.scalar(sa.select(loop_rows.c.fence).where(loop_rows.c.name == name)) or 0


def ticks(ctx: Context, name: str, count: int, *, within_s: float, what: str = "") -> None:
    begun = fence(ctx, name)
    wait_until(lambda: fence(ctx, name) >= begun + count, within_s=within_s, what=f"{name} ticks. {what}")


LOOPS = 2
"""The listener's queue serves two loops of a chain, with a message each: blocks and balances."""


@pytest.mark.timeout(240)
def test_a_loop_runs_once_however_often_it_is_started_and_comes_back_after_a_flush(
    ctx, environment: dict[str, str], our_queues: Queues, redis_client: Redis, tmp_path: Path
) -> None:
    chain = ctx.settings.chains[0]
    name = f"listener:{chain.chain_id}"
    with (
        worker("listener", environment, tmp_path, LISTENER_PROCESSES="2") as listener,
        scheduler(environment, tmp_path) as first,
        scheduler(environment, tmp_path, "second"),
    ):
        ticks(ctx, name, 2, within_s=60, what=listener.said + first.said)
        for _ in range(5):
            wake(listen_for_payments, [chain.chain_id])

        def messages() -> int:
            depth = our_queues.depths(["listener"])[0]
            return depth.ready + depth.in_flight + depth.delayed

        ticks(ctx, name, 3, within_s=20)
        wait_until(lambda: messages() <= LOOPS, within_s=10, what="five duplicates and the loop's own fall to one")
        ticks(ctx, name, 3, within_s=20)
        # Two for a moment: a run sends its successor before it is acknowledged itself.
        wait_until(lambda: messages() <= LOOPS, within_s=5, what="still one")
        for _ in range(2):
            redis_client.flushall()
            ticks(ctx, name, 3, within_s=20, what="back by itself")
        wait_until(lambda: messages() <= LOOPS, within_s=10, what=f"{messages()}")


@pytest.mark.timeout(240)
def test_a_hundred_effects_that_were_queued_when_redis_was_flushed_each_happen_once(
    ctx, environment: dict[str, str], our_queues: Queues, redis_client: Redis, tmp_path: Path
) -> None:
    with Sink() as sink:
        owe(ctx, 100, sink.url)
        tasks = Tasks(ctx, our_queues)
        tasks.relay_due()
        assert ready(our_queues) == {"webhook": 2}, "as many as may run at one origin: they go on with the rest"
        redis_client.flushall()
        time_passes(ctx)
        with worker("webhook", environment, tmp_path) as started, scheduler(environment, tmp_path) as running_one:
            wait_until(lambda: len(sink.received) >= 100, within_s=90, what=started.said[-2000:] + running_one.said)
            wait_until(lambda: _statuses(ctx) == {"delivered": 100}, within_s=10)
    events = [received.headers["webhook-id"] for received in sink.received]
    assert len(events) == len(set(events)) == 100


def _statuses(ctx: Context) -> dict[str, int]:
    with ctx.sessions.begin() as session:
        return {row[0]: row[1] for row in session.execute(sa.select(rows.c.status, sa.func.count()).group_by("status"))}


@pytest.mark.timeout(120)
def test_a_webhook_that_failed_comes_back_soon_without_any_scheduler(
    ctx, environment: dict[str, str], our_queues: Queues, redis_client: Redis, tmp_path: Path
) -> None:
    with Sink() as sink:
        sink.answer = lambda _: 500 if len(sink.received) < 3 else 200
        owe(ctx, 1, sink.url)
        Tasks(ctx, our_queues).relay_due()
        with worker("webhook", environment, tmp_path, WEBHOOK_RETRY_SCHEDULE="0,1,1,3600") as started:
            wait_until(lambda: _statuses(ctx) == {"delivered": 1}, within_s=40, what=started.said)
        assert len(sink.received) == 3


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["DATABASE_URL", "METRICS_PORT"])
def test_a_scheduler_that_cannot_start_says_why_once(
    ctx, environment: dict[str, str], redis_url: str, tmp_path: Path, name: str
) -> None:
    taken = str(urlsplit(redis_url).port)
    faults = {"DATABASE_URL": "postgresql://someone:hunter2@127.0.0.1:1/none", "METRICS_PORT": taken}
    with scheduler({**environment, name: faults[name]}, tmp_path) as started:
        assert started.wait(30) == 78
        assert started.said.count(name) == 1
        assert ("127.0.0.1:1/none" if name == "DATABASE_URL" else f"127.0.0.1:{taken}") in started.said
        assert "Traceback" not in started.said and "hunter2" not in started.said


@pytest.mark.timeout(120)
def test_a_scheduler_outlives_redis_and_stops_when_told(ctx, environment, own_redis: OwnRedis, tmp_path: Path) -> None:
    here = Queues(make_client(own_redis.url), namespace=NAMESPACE, heartbeat_timeout_ms=30_000)
    with scheduler({**environment, "REDIS_URL": own_redis.url}, tmp_path) as started:
        wait_until(lambda: ready(here) == {"listener": 2, "sweeper": 1}, within_s=30, what=started.said)
        own_redis.kill()
        wait_until(lambda: started.said.count("task_waits") >= 3, within_s=20, what=started.said)
        owe(ctx, 1)
        own_redis.start()
        wait_until(lambda: ready(here).get("webhook") == 1, within_s=20, what=started.said)
        waited = [line["task"] for line in map(json.loads, started.said.splitlines()) if line["event"] == "task_waits"]
        assert sorted(waited) == sorted(set(waited)), "each says so once"
        started.signal(signal.SIGTERM)
        assert started.wait(10) == 0
