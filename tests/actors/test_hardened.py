"""Delayed messages and consumers survive an outage of Redis; with Dramatiq's own broker they do not."""

import signal
import threading
from datetime import timedelta

import pytest
from dramatiq.broker import Broker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError

from actors.hardened import HardenedBroker, make_client
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


def hardened(url: str) -> HardenedBroker:
    broker = HardenedBroker(namespace=NAMESPACE, middleware=[])
    broker.connect(url)
    return broker


def stock(url: str) -> RedisBroker:
    return RedisBroker(client=make_client(url), namespace=NAMESPACE, middleware=[])  # type: ignore[no-untyped-call]


# Some are due while Redis is away, when promoting them fails; some after it is back.
DELAYS_S = (0.2, 0.4, 0.6, 4.0, 4.5)


@pytest.mark.parametrize(("make", "survivors"), [(hardened, 5), (stock, 0)])
def test_delayed_messages_survive_an_outage(own_redis: OwnRedis, make, survivors: int) -> None:
    broker = make(own_redis.url)
    ran = Ran(broker)
    with working(broker) as worker:
        for delay_s in DELAYS_S:
            ran.send(f"after {delay_s}", delay_s=delay_s)
        wait_until(lambda: worker.consumers["q.DQ"].delay_queue.qsize() == 5, within_s=5, what="held in memory")
        own_redis.kill()
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


def test_delayed_messages_of_another_worker_are_left_to_it(make_broker: MakeBroker) -> None:
    broker, other = make_broker(), make_broker()
    mine, its = Ran(broker), Ran(other)
    with working(broker) as worker:
        mine.send("later", delay_s=1)
        wait_until(lambda: worker.consumers["q.DQ"].delay_queue.qsize() == 1, within_s=5)
        with working(other):
            wait_until(lambda: mine.names + its.names, within_s=5)
    assert mine.names + its.names == ["later"]
