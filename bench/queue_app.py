"""The actors that the queue's faults are shown with, on Dramatiq's own broker or on ours: BENCH_BROKER=stock or ours.

What they do is noted in the Redis of BENCH_REDIS_URL. BENCH_HEARTBEAT_MS shortens the heartbeat where half a minute is
not the point.
"""

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from redis import Redis

from actors.hardened import HardenedBroker
from actors.middleware.due import StampDue
from actors.middleware.lifetime import DieWithMaster, StopOnce
from actors.middleware.poison import PoisonGuard
from actors.middleware.presence import Presence
from actors.middleware.retries import Retries

NAMESPACE = "bench"
QUEUE = "bench"
URL = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379")


def make_broker(which: str) -> RedisBroker:
    if which == "stock":
        stock = RedisBroker(url=URL, namespace=NAMESPACE)  # type: ignore[no-untyped-call]
        if "BENCH_HEARTBEAT_MS" in os.environ:
            stock.maintenance_chance = 1_000_000
        return stock
    guards = [DieWithMaster(), StopOnce(), Presence(), StampDue(), PoisonGuard(), Retries()]
    ours = HardenedBroker(namespace=NAMESPACE, middleware=guards)
    ours.connect(URL)
    return ours


broker = make_broker(os.environ.get("BENCH_BROKER", "ours"))
if "BENCH_HEARTBEAT_MS" in os.environ:
    broker.heartbeat_timeout = int(os.environ["BENCH_HEARTBEAT_MS"])
dramatiq.set_broker(broker)
notes = Redis.from_url(URL)


@dramatiq.actor(queue_name=QUEUE)
def note(name: str) -> None:
    notes.incr(f"noted:{name}")


@dramatiq.actor(queue_name=QUEUE)
def linger(name: str) -> None:
    notes.incr(f"noted:{name}")
    time.sleep(1_800)


@dramatiq.actor(queue_name=QUEUE)
def die(name: str) -> None:
    notes.incr(f"noted:{name}")
    os._exit(9)


@dramatiq.actor(queue_name=QUEUE)
def fail_in_a_moment(name: str) -> None:
    notes.incr(f"noted:{name}")
    time.sleep(2)
    raise RuntimeError("as it was meant to")


@dramatiq.actor(queue_name=QUEUE)
def measure(sent_at: float) -> None:
    notes.rpush("latencies", time.time() - sent_at)
