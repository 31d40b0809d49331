"""A tiny application on the hardened broker, for workers that tests start, stop and kill: it knows nothing of payments.

Its environment: APP_REDIS_URL, APP_METRICS_PORT, APP_HEARTBEAT_MS for tests that cannot wait half a minute, and
APP_POISON_GUARD, which may be "no".
What its actors do is noted in Redis.
"""

import os
import time

import dramatiq
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from actors.hardened import HardenedBroker
from actors.measure import Measure
from actors.middleware.due import StampDue
from actors.middleware.lifetime import DieWithMaster, StopOnce
from actors.middleware.poison import PoisonGuard
from actors.middleware.presence import Presence
from actors.middleware.retries import Retries
from actors.page import ServePage

NAMESPACE = "app"
URL = os.environ["APP_REDIS_URL"]


class Connect(Middleware):
    def after_process_boot(self, broker: Broker) -> None:
        assert isinstance(broker, HardenedBroker)
        broker.connect(URL)


def make_broker() -> HardenedBroker:
    broker = HardenedBroker(
        namespace=NAMESPACE,
        middleware=[
            DieWithMaster(),
            StopOnce(),
            Connect(),
            ServePage(lambda: ("127.0.0.1", int(os.environ.get("APP_METRICS_PORT", "0")))),
            Presence(),
            Measure(),
            StampDue(),
            *([] if os.environ.get("APP_POISON_GUARD") == "no" else [PoisonGuard()]),
            Retries(max_retries=1, min_backoff=50, max_backoff=100),
        ],
    )
    if "APP_HEARTBEAT_MS" in os.environ:
        broker.heartbeat_timeout = int(os.environ["APP_HEARTBEAT_MS"])
    return broker


broker = make_broker()
dramatiq.set_broker(broker)


def _note(name: str) -> None:
    broker.client.incr(f"noted:{name}")


@dramatiq.actor(queue_name="quick")
def note(name: str) -> None:
    _note(name)


@dramatiq.actor(queue_name="quick")
def note_process(name: str) -> None:
    _note(f"{name}:{os.getpid()}")
    time.sleep(0.1)


@dramatiq.actor(queue_name="quick")
def linger(name: str, seconds: float) -> None:
    _note(f"{name}:begun")
    time.sleep(seconds)
    _note(f"{name}:ended")


@dramatiq.actor(queue_name="quick")
def kill_worker(name: str) -> None:
    _note(name)
    os._exit(9)
