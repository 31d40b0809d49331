"""Each fault of Dramatiq's own Redis broker, shown with it and gone with ours."""

import json
import signal
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
import redis
from dramatiq.broker import Broker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError

from actors.hardened import HardenedBroker, make_client
from actors.middleware.dead_letters import Death, TellDeaths
from actors.queues import DeadMessage, Queues, taken_key
from tests.actors.conftest import NAMESPACE, MakeBroker, OwnRedis
from tests.actors.workers import declare, working
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


class Ran:
    """What an actor was called with, in order."""

    def __init__(self, broker: Broker) -> None:
        self.names: list[str] = []
        self.actor = declare(broker, self._note)

    def _note(self, name: str) -> None:
        self.names.append(name)

    def send(self, name: str, *, delay_s: float = 0) -> None:
        delay = timedelta(seconds=delay_s) if delay_s else None
        self.actor.send_with_options(args=(name,), delay=delay)


@pytest.fixture(autouse=True)
def consumers_restart_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.2)
    monkeypatch.setattr("dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.2)


def hardened(url: str, *, heartbeat_ms: int = 30_000) -> RedisBroker:
    broker = HardenedBroker(namespace=NAMESPACE, middleware=[])
    broker.heartbeat_timeout = heartbeat_ms
    broker.connect(url)
    return broker


def stock(url: str, *, heartbeat_ms: int = 60_000) -> RedisBroker:
    return RedisBroker(  # type: ignore[no-untyped-call]
        client=make_client(url), namespace=NAMESPACE, middleware=[], heartbeat_timeout=heartbeat_ms
    )


def taken(broker: RedisBroker, queue: str = "q") -> int:
    """How many messages Redis lists as taken by this broker."""
    return int(broker.client.scard(taken_key(NAMESPACE, broker_id=broker.broker_id, queue=queue)))


# Some are due while Redis is away, when promoting them fails; some after it is back.
DELAYS_S = (0.2, 0.4, 0.6, 4.0, 4.5)
LONG_AGO = 0


@pytest.mark.parametrize(("make", "survivors"), [(hardened, 5), (stock, 0)])
def test_delayed_messages_survive_an_outage(
    own_redis: OwnRedis, make, survivors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make(own_redis.url)
    ran = Ran(broker)
    # The worker's clock stands until Redis is away: however slow the machine is, nothing is due before.
    with working(broker) as worker, monkeypatch.context() as stopped:
        stopped.setattr("dramatiq.worker.current_millis", lambda: LONG_AGO)
        for delay_s in DELAYS_S:
            ran.send(f"after {delay_s}", delay_s=delay_s)
        wait_until(lambda: worker.consumers["q.DQ"].delay_queue.qsize() == 5, within_s=5, what="held in memory")
        own_redis.kill()
        stopped.undo()
        wait_until(lambda: worker.consumers["q.DQ"].delay_queue.qsize() == 0, within_s=10, what="forgotten")
        own_redis.start()
        wait_until(broker.client.ping, within_s=5)
        if survivors:
            wait_until(lambda: len(ran.names) >= survivors, within_s=20, what=f"they run: {ran.names}")
        else:
            threading.Event().wait(DELAYS_S[-1] + 1)
        assert sorted(set(ran.names)) == sorted(f"after {delay_s}" for delay_s in DELAYS_S)[: survivors or 0]
        ran.send("now")
        if survivors:
            wait_until(lambda: "now" in ran.names, within_s=10, what="the worker goes on")


def test_a_redis_that_hangs_and_comes_back_leaves_every_consumer_alive(own_redis: OwnRedis) -> None:
    broker = hardened(own_redis.url)
    ran = Ran(broker)
    with working(broker) as worker:
        ran.send("before")
        ran.send("delayed", delay_s=1)
        wait_until(lambda: ran.names == ["before"], within_s=5)
        own_redis.child.send_signal(signal.SIGSTOP)
        with pytest.raises(BrokerConnectionError):
            ran.send("nobody takes it")
        own_redis.child.send_signal(signal.SIGCONT)
        assert all(consumer.is_alive() for consumer in worker.consumers.values())
        ran.send("after")
        wait_until(lambda: {"after", "delayed"} <= set(ran.names), within_s=10)


@pytest.mark.parametrize(
    ("fault", "within_s"), [(signal.SIGKILL, 3), (signal.SIGSTOP, 5)], ids=["a dead one", "one that hangs"]
)
def test_a_sender_gives_up_on_redis_soon_and_does_not_send_twice(
    own_redis: OwnRedis, fault: signal.Signals, within_s: float
) -> None:
    """By itself redis-py would have taken 4.35 s here, and more than 8 s there."""
    ran = Ran(hardened(own_redis.url))
    own_redis.child.send_signal(fault)
    gave_up = threading.Event()

    def send() -> None:
        with pytest.raises(BrokerConnectionError):
            ran.send("lost")
        gave_up.set()

    threading.Thread(target=send, daemon=True).start()
    is_soon = gave_up.wait(within_s)
    own_redis.child.send_signal(signal.SIGCONT)
    assert is_soon


def test_delayed_messages_of_another_worker_are_left_to_it(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, other = make_broker(), make_broker()
    mine, its = Ran(broker), Ran(other)
    with working(broker) as worker, monkeypatch.context() as stopped:
        stopped.setattr("dramatiq.worker.current_millis", lambda: LONG_AGO)
        mine.send("later", delay_s=1)
        wait_until(lambda: worker.consumers["q.DQ"].delay_queue.qsize() == 1, within_s=5)
        with working(other):
            stopped.undo()
            wait_until(lambda: mine.names + its.names, within_s=5)
    assert mine.names + its.names == ["later"]


# --- dead workers and live ones -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "runs"), [(hardened, ["held"]), (stock, [])])
def test_what_a_dead_worker_held_runs_again_without_any_luck(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, make, runs: list[str]
) -> None:
    """How long that takes with the real heartbeat, after a kill -9, is in test_processes."""
    monkeypatch.setattr("dramatiq.brokers.redis.random.randint", lambda _, most: most)
    monkeypatch.setattr("actors.hardened.HUNT_EVERY_S", 0.1)
    dead, alive = make(redis_url), make(redis_url, heartbeat_ms=300)
    Ran(dead).send("held")
    dead.do_fetch("q", 1)
    ran = Ran(alive)

    def polls() -> int:
        return int(redis_client.info("commandstats")["cmdstat_evalsha"]["calls"])

    polled_before = polls()
    with working(alive):
        wait_until(lambda: ran.names or polls() > polled_before + 300, within_s=30)
    assert ran.names == runs, "Dramatiq looks for dead workers at one command in a thousand"


@pytest.mark.parametrize(("make", "starts"), [(hardened, 1), (stock, 2)])
def test_a_worker_whose_consumers_are_full_is_not_declared_dead(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, make, starts: int
) -> None:
    monkeypatch.setattr("dramatiq.worker.QUEUE_PREFETCH", 1)
    monkeypatch.setattr("dramatiq.worker.DELAY_QUEUE_PREFETCH", 1)
    monkeypatch.setattr("actors.hardened.HUNT_EVERY_S", 0.1)
    begun: list[str] = []
    is_over = threading.Event()

    def linger() -> None:
        begun.append("now")
        is_over.wait(60)

    busy, other = make(redis_url, heartbeat_ms=800), make(redis_url, heartbeat_ms=800)
    # Luck is another test's matter.
    busy.maintenance_chance = other.maintenance_chance = 1_000_000
    actor, _ = declare(busy, linger), declare(other, linger)

    def beat_ms() -> float:
        return redis_client.zscore(f"{NAMESPACE}:__heartbeats__", busy.broker_id) or 0

    with working(busy, threads=1):
        actor.send_with_options(delay=60_000)
        actor.send()
        wait_until(lambda: begun and taken(busy, "q.DQ"), within_s=10, what="both of its consumers are full")
        full_at_ms = beat_ms()
        with working(other, threads=1):
            wait_until(lambda: len(begun) == 2 or beat_ms() > full_at_ms + 2_400, within_s=30)
            is_over.set()
    assert len(begun) == starts


def test_dead_letters_do_not_expire_by_themselves(redis_url: str, redis_client: redis.Redis) -> None:
    left, eight_days_ago = {}, time.time() - 8 * 24 * 3600
    for make in (hardened, stock):
        redis_client.zadd(f"{NAMESPACE}:q.XQ", {"of last week": eight_days_ago * 1000})
        broker = make(redis_url)
        broker.maintenance_chance = 1_000_000
        broker.do_fetch("q", 1)
        left[make] = redis_client.zcard(f"{NAMESPACE}:q.XQ")
    assert left == {hardened: 1, stock: 0}


# --- messages that cannot be read, answers that are lost ------------------------------------------------------------


def written(**changes: Any) -> bytes:
    """A message as Dramatiq writes it, but for the changes."""
    fields = {"queue_name": "q", "actor_name": "act", "args": ["x"], "kwargs": {}, "message_id": "m"}
    whole = {**fields, "options": {"redis_message_id": "bad"}, "message_timestamp": 1}
    return json.dumps({**whole, **changes}).encode()


NONSENSE = {
    "no JSON": b"{not json",
    "no text": b"\xff\xfe\0",
    "no message": b'{"a": 1}',
    "no object": b"[]",
    "far too deep": b"[" * 100_000,
    "another queue's": written(queue_name="other"),
    "without an id in Redis": written(options={}),
    "without options": written(options=None),
    "with an id that is no text": written(message_id=[1]),
    "for an actor whose name is no text": written(actor_name=["act"]),
    "with arguments that have no names": written(kwargs=[1]),
}


def send_around(ran: Ran, client: redis.Redis, nonsense: bytes) -> None:
    """Ten messages, the fourth place taken by one that nobody can read."""
    for number in range(3):
        ran.send(str(number))
    client.hset(f"{NAMESPACE}:q.msgs", mapping={"bad": nonsense})
    client.rpush(f"{NAMESPACE}:q", "bad")
    for number in range(3, 10):
        ran.send(str(number))


@pytest.mark.parametrize(("make", "runs", "stranded"), [(hardened, 10, 0), (stock, 3, 8)])
def test_a_message_that_cannot_be_read_strands_no_neighbour(
    redis_url: str, redis_client: redis.Redis, make, runs: int, stranded: int
) -> None:
    broker = make(redis_url)
    ran = Ran(broker)
    send_around(ran, redis_client, b"{not json")
    with working(broker, threads=8):
        wait_until(lambda: len(ran.names) >= runs, within_s=10)
        ran.send("late")
        wait_until(lambda: "late" in ran.names, within_s=10, what="the consumer goes on, or another in its stead")
        wait_until(lambda: taken(broker) == stranded, within_s=5)
    assert sorted(ran.names) == sorted([*map(str, range(runs)), "late"])


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("queue", ["q", "q.DQ"])
def test_whatever_cannot_be_read_is_a_dead_letter_at_once_with_its_bytes(
    make_broker: MakeBroker, queues: Queues, redis_client: redis.Redis, nonsense: bytes, queue: str
) -> None:
    deaths: list[Death] = []
    broker = make_broker(TellDeaths(deaths.append))
    declare(broker, lambda _: None)
    redis_client.hset(f"{NAMESPACE}:{queue}.msgs", mapping={"bad": nonsense})
    redis_client.rpush(f"{NAMESPACE}:{queue}", "bad")
    with working(broker) as worker:
        wait_until(lambda: deaths, within_s=5)
        assert all(thread.is_alive() for thread in [*worker.workers, *worker.consumers.values()])
    (death,) = deaths
    assert (death.queue, death.redis_id, death.reason) == ("q", "bad", "undecodable")
    assert type(death.exception).__name__ == "DecodeError"
    dead = queues.dead_message("q", "bad")
    assert dead == DeadMessage("q", "bad", nonsense, dead.died_at_ms if dead else 0)


def lose_an_answer(broker: RedisBroker) -> None:
    """Let Redis carry out the next fetch that finds something, and time out before its answer arrives."""
    dispatch, lost = broker.scripts["dispatch"], list[object]()

    def ask(*, keys: list[str], args: list[Any]) -> Any:
        answer = dispatch(keys=keys, args=args)
        if args[0] == "fetch" and answer and not lost:
            lost.append(answer)
            raise redis.TimeoutError("Timeout reading from socket")
        return answer

    broker.scripts["dispatch"] = ask


@pytest.mark.parametrize(("make", "runs"), [(hardened, ["early", "late"]), (stock, ["late"])])
def test_messages_whose_fetch_was_never_answered_are_put_back(
    redis_url: str, redis_client: redis.Redis, make, runs: list[str]
) -> None:
    broker = make(redis_url)
    ran = Ran(broker)
    ran.send("early")
    lose_an_answer(broker)
    with working(broker):
        wait_until(lambda: taken(broker), within_s=5)
        wait_until(lambda: taken(broker) == 0 or make is stock, within_s=5)
        ran.send("late")
        wait_until(lambda: len(ran.names) == len(runs), within_s=5)
    assert sorted(ran.names) == runs


@pytest.mark.parametrize(("make", "left"), [(hardened, 0), (stock, 2)])
def test_what_was_fetched_and_not_handed_out_is_back_when_its_consumer_is_closed(
    redis_url: str, redis_client: redis.Redis, make, left: int
) -> None:
    broker = make(redis_url)
    ran = Ran(broker)
    for name in ("one", "two", "three"):
        ran.send(name)
    consumer = broker.consume("q", prefetch=4)
    in_hand = next(consumer)
    assert in_hand is not None
    consumer.close()
    assert taken(broker) == 1 + left
    assert redis_client.llen(f"{NAMESPACE}:q") == 2 - left


def test_what_runs_when_its_consumer_is_replaced_is_not_put_back(redis_url: str, redis_client: redis.Redis) -> None:
    broker = hardened(redis_url)
    begun: list[str] = []
    may_end = threading.Event()

    def linger(name: str) -> None:
        begun.append(name)
        may_end.wait(30)

    actor = declare(broker, linger)
    with working(broker) as worker:
        actor.send("runs")
        wait_until(lambda: begun, within_s=5)
        before = worker.consumers["q"].consumer
        lose_an_answer(broker)
        actor.send("lost on its way")
        wait_until(lambda: len(begun) == 2, within_s=10)
        assert worker.consumers["q"].consumer is not before
        may_end.set()
        wait_until(lambda: taken(broker) == 0, within_s=5)
    assert begun == ["runs", "lost on its way"]
