"""Each guard of the broker: the fault that it closes, and what it leaves alone."""

import threading
import time
from typing import Any

import pytest
from dramatiq import Actor, middleware
from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import ConnectionClosed
from dramatiq.message import Message
from dramatiq.middleware import SkipMessage
from prometheus_client import REGISTRY
from redis import Redis

from actors.hardened import HardenedBroker
from actors.measure import Measure
from actors.middleware.dead_letters import Death, TellDeaths
from actors.middleware.due import StampDue
from actors.middleware.poison import STARTS, PoisonGuard
from actors.middleware.presence import Presence
from actors.middleware.retries import Retries
from actors.queues import Queues
from tests.actors.conftest import NAMESPACE, MakeBroker
from tests.actors.workers import declare, working
from tests.waiting import wait_until

pytestmark = pytest.mark.infra
ONE_RETRY: dict[str, Any] = {"max_retries": 1, "min_backoff": 20, "max_backoff": 40}


class Known(Exception):
    pass


def failing(broker: Broker, error: Exception) -> tuple[Actor[..., object], list[int]]:
    """An actor that always raises `error`, and a list of its runs."""
    runs: list[int] = []

    def fail() -> None:
        runs.append(1)
        raise error

    return declare(broker, fail, name="fail"), runs


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"ctrip_{name}", labels) or 0


def is_idle(queues: Queues) -> bool:
    (depth,) = queues.depths(["q"])
    return depth.ready + depth.in_flight + depth.delayed == 0


# --- retries --------------------------------------------------------------------------------------------------------


class NoRetryGetsThrough(HardenedBroker):
    """A broker that goes away whenever a retry is enqueued, and only then."""

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        if "retries" in message.options:
            raise ConnectionClosed("gone just now")  # type: ignore[no-untyped-call]
        return super().enqueue(message, delay=delay)


@pytest.mark.parametrize(("retries", "dead"), [(Retries, 1), (middleware.Retries, 0)])
def test_a_retry_that_cannot_be_enqueued_is_a_dead_letter_and_not_lost(
    redis_url: str, redis_client: Redis, queues: Queues, retries: type[middleware.Retries], dead: int
) -> None:
    broker = NoRetryGetsThrough(namespace=NAMESPACE, middleware=[retries(**ONE_RETRY)])
    broker.connect(redis_url)
    actor, runs = failing(broker, ValueError("no"))
    with working(broker):
        actor.send()
        wait_until(lambda: runs and is_idle(queues), within_s=5)
    assert queues.depths(["q"])[0].dead == dead, "with Dramatiq's own class nothing of it is left anywhere"


def test_an_unexpected_exception_is_retried_and_then_a_dead_letter(make_broker: MakeBroker, queues: Queues) -> None:
    broker = make_broker(Retries(**ONE_RETRY))
    actor, runs = failing(broker, ValueError("no"))
    with working(broker):
        actor.send()
        wait_until(lambda: queues.depths(["q"])[0].dead == 1, within_s=5)
    assert len(runs) == 2


def test_an_exception_that_asks_for_no_retry_ends_its_message_quietly(make_broker: MakeBroker, queues: Queues) -> None:
    broker = make_broker(Retries(dropped=(Known,), **ONE_RETRY))
    actor, runs = failing(broker, Known())
    with working(broker):
        actor.send()
        wait_until(lambda: runs and is_idle(queues), within_s=5)
    assert len(runs) == 1
    assert queues.depths(["q"])[0].dead == 0


# --- poison ---------------------------------------------------------------------------------------------------------


def start_and_be_killed(broker: Broker, message: Message[Any]) -> None:
    """Start a message in a process that will not hear of its end."""
    PoisonGuard().before_process_message(broker, MessageProxy(message))


def test_a_message_that_was_started_three_times_without_an_end_is_not_started_again(
    make_broker: MakeBroker, queues: Queues, redis_client: Redis
) -> None:
    deaths = list[Death]()
    broker = make_broker(TellDeaths(deaths.append), PoisonGuard())
    actor, runs = failing(broker, ValueError("no"))
    message = actor.message()
    for _ in range(STARTS):
        start_and_be_killed(broker, message)
    with working(broker):
        broker.enqueue(message)
        wait_until(lambda: deaths, within_s=5)
    assert runs == []
    assert [death.reason for death in deaths] == ["poison"]
    assert redis_client.keys("*__starts__*") == [], "a replay begins anew"


def test_starts_that_end_do_not_add_up(make_broker: MakeBroker) -> None:
    guard = PoisonGuard()
    broker = make_broker(guard)
    actor, _ = failing(broker, ValueError("no"))
    message = MessageProxy(actor.message())
    for _ in range(STARTS + 1):
        guard.before_process_message(broker, message)
        guard.after_process_message(broker, message, exception=ValueError("no"))


def test_poison_is_told_apart_by_message(make_broker: MakeBroker) -> None:
    broker = make_broker()
    actor, _ = failing(broker, ValueError("no"))
    message = actor.message()
    for _ in range(STARTS):
        start_and_be_killed(broker, message)
    guard, again = PoisonGuard(), MessageProxy(message)
    guard.before_process_message(broker, MessageProxy(actor.message()))
    with pytest.raises(SkipMessage):
        guard.before_process_message(broker, again)
    assert again.failed


def test_the_turn_of_a_suspect_lasts_until_it_is_acknowledged(make_broker: MakeBroker) -> None:
    guard = PoisonGuard()
    broker = make_broker(guard)
    actor, _ = failing(broker, ValueError("no"))
    first, second = (MessageProxy(actor.message()) for _ in range(2))
    for message in (first, second):
        PoisonGuard().before_process_message(broker, message)
    guard.before_process_message(broker, first)
    other = threading.Thread(target=guard.before_process_message, args=(broker, second), daemon=True)
    other.start()
    guard.after_process_message(broker, first)
    other.join(0.3)
    assert other.is_alive(), "a kill would bring the first one back, though it has run"
    guard.after_ack(broker, first)
    other.join(5)
    assert not other.is_alive()


def test_those_that_ran_beside_a_kill_run_again_one_at_a_time_and_a_wait_is_no_start(
    make_broker: MakeBroker, redis_client: Redis
) -> None:
    broker = make_broker(PoisonGuard())
    begun, may_end = list[str](), threading.Semaphore(0)

    def linger(name: str) -> None:
        begun.append(name)
        may_end.acquire(timeout=10)

    actor = declare(broker, linger)
    suspects = [actor.message(name) for name in "abc"]
    for message in suspects:
        start_and_be_killed(broker, message)
        broker.enqueue(message)
    with working(broker):
        wait_until(lambda: begun, within_s=5)
        actor.send("fresh")
        wait_until(lambda: "fresh" in begun, within_s=5, what="who was never beside a kill waits for nobody")
        assert len(begun) == 2
        starts = [redis_client.get(f"{NAMESPACE}:__starts__.{message.message_id}") for message in suspects]
        assert sorted(start for start in starts if start is not None) == [b"1", b"1", b"2"]
        for _ in range(4):
            may_end.release()
        broker.join("q", timeout=5_000)
    assert sorted(begun) == ["a", "b", "c", "fresh"]
    assert redis_client.keys("*__starts__*") == []


# --- deaths ---------------------------------------------------------------------------------------------------------


def test_each_death_is_told_with_its_reason_and_its_exception(make_broker: MakeBroker) -> None:
    deaths: list[Death] = []
    broker = make_broker(TellDeaths(deaths.append), Retries(max_retries=0), middleware.AgeLimit(max_age=60_000))
    actor, runs = failing(broker, ValueError("no"))
    with working(broker):
        actor.send()
        broker.enqueue(Message("q", "nobody", (), {}, {}))
        broker.enqueue(Message("q", actor.actor_name, (), {}, {}, message_timestamp=1))
        wait_until(lambda: len(deaths) == 3, within_s=5)
    told = {death.reason: type(death.exception).__name__ for death in deaths}
    assert told == {"retries": "ValueError", "unknown_actor": "ActorNotFound", "age": "SkipMessage"}
    assert {death.queue for death in deaths} == {"q"}
    assert len(runs) == 1


# --- numbers --------------------------------------------------------------------------------------------------------


def test_runs_are_counted_by_their_outcome_and_retries_once(make_broker: MakeBroker, queues: Queues) -> None:
    broker = make_broker(Measure(dropped=(Known,)), Retries(dropped=(Known,), **ONE_RETRY))
    fails, _ = failing(broker, ValueError("no"))
    drops = declare(broker, lambda: _raise(Known()), name="drops")
    works = declare(broker, lambda: None, name="works")
    with working(broker):
        for actor in (fails, drops, works, works):
            actor.send()
        wait_until(lambda: queues.depths(["q"])[0].dead == 1 and is_idle(queues), within_s=5)
    labels = {"queue": "q", "actor": "fail"}
    assert sample("actor_runs_total", **labels, outcome="retry") == 1
    assert sample("actor_runs_total", **labels, outcome="dead") == 1
    assert sample("actor_runs_total", queue="q", actor="drops", outcome="skipped") == 1
    assert sample("actor_runs_total", queue="q", actor="works", outcome="success") == 2
    assert sample("actor_retries_total", **labels, reason="ValueError") == 1
    assert sample("actor_errors_total", actor="fail", exception="ValueError") == 2
    assert sample("actor_duration_seconds_count", queue="q", actor="works") == 2
    assert sample("actor_wait_seconds_count", queue="q", actor="works") == 2


def test_an_intended_delay_is_no_waiting(make_broker: MakeBroker) -> None:
    broker = make_broker(Measure(), StampDue())
    ran = threading.Event()
    actor = declare(broker, ran.set, name="waits")
    with working(broker):
        actor.send_with_options(delay=5_000)
        assert ran.wait(30)
    assert sample("actor_wait_seconds_sum", queue="q", actor="waits") < 4


def test_a_worker_is_present_while_it_runs_and_its_completed_messages_count_for_an_hour(
    make_broker: MakeBroker, queues: Queues, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.middleware.presence.EVERY_S", 0.05)
    broker = make_broker(Presence())
    actor = declare(broker, lambda: None, name="works")
    assert queues.depths(["q"])[0].workers == 0
    with working(broker):
        actor.send()
        actor.send_with_options(delay=50)
        wait_until(lambda: queues.depths(["q"])[0].completed_1h == 2, within_s=5, what="a delayed message counts once")
        assert queues.depths(["q"])[0].workers == 1
        assert queues.depths(["other"])[0].workers == 0
    assert queues.depths(["q"])[0].workers == 0, "it has signed out"
    in_an_hour = Queues(redis_client, namespace=NAMESPACE, heartbeat_timeout_ms=1, now_ms=lambda: _now_ms() + 3_600_000)
    assert in_an_hour.depths(["q"])[0].completed_1h == 0


def _raise(error: Exception) -> None:
    raise error


def _now_ms() -> int:
    return int(time.time() * 1000)
