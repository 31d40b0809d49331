"""One fault of Dramatiq's on Redis, with its own broker or with ours: `python -m bench.queue_faults FAULT stock|ours`.

Prints one line of JSON, {"value": …}. Each run has a Valkey of its own.
"""

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dramatiq.message import Message
from redis import Redis
from redis.exceptions import RedisError

from actors.hardened import HardenedBroker
from actors.queues import Depth, Queues
from bench.queue_app import NAMESPACE, QUEUE
from tests.actors.conftest import OwnRedis
from tests.actors.workers import Master, running
from tests.waiting import wait_until

OUTAGE_S = 25
STARTS_SHOWN = 6
POLL_MS = {"stock": "1000", "ours": "50"}
"""Dramatiq's own default, and what worker.sh sets."""


class Scene:
    """A Valkey, and workers of bench/queue_app.py on it."""

    def __init__(self, which: str, folder: Path) -> None:
        self.which = which
        self.folder = folder
        self.valkey = OwnRedis(folder / "valkey")
        self.redis = Redis.from_url(self.valkey.url)
        self.queues = Queues(self.redis, namespace=NAMESPACE, heartbeat_timeout_ms=30_000)
        self._sender = HardenedBroker(namespace=NAMESPACE, middleware=[])
        self._sender.connect(self.valkey.url)

    def worker(self, *, threads: int = 2, **changes: str) -> Any:
        environment = {
            "BENCH_BROKER": self.which,
            "BENCH_REDIS_URL": self.valkey.url,
            "dramatiq_worker_timeout": POLL_MS[self.which],
            **changes,
        }
        size = ["--processes", "1", "--threads", str(threads)]
        command = ["dramatiq", "bench.queue_app", "--worker-fork-timeout", "10", *size]
        return running(*command, environment=environment, log=self.folder / "worker.log")

    def send(self, actor: str, *args: Any, delay_s: float | None = None) -> None:
        delay = None if delay_s is None else int(delay_s * 1000)
        self._sender.enqueue(Message(QUEUE, actor, args, {}, {}), delay=delay)

    def noted(self, name: str) -> int:
        return int(self.redis.get(f"noted:{name}") or 0)

    def depth(self) -> Depth:
        return self.queues.depths([QUEUE])[0]

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()


def rerun_after_kill(scene: Scene, *, within_s: float = 900) -> float | None:
    """Seconds from a worker's kill -9 until what it ran is run again by one that was started at once; None: not so."""
    with scene.worker() as master:
        scene.send("linger", "held")
        wait_until(lambda: scene.noted("held"), within_s=30)
        killed_at = time.monotonic()
        kill_all(master)
    with scene.worker():
        is_again = _does(lambda: scene.noted("held") == 2, within_s=within_s)
        return round(time.monotonic() - killed_at, 1) if is_again else None


def delayed_survive_an_outage(scene: Scene) -> int:
    """How many of 5 delayed messages that a worker holds run after Redis was away for OUTAGE_S."""
    with scene.worker():
        wait_until(lambda: _has_polled(scene), within_s=30)
        for number in range(5):
            scene.send("note", f"delayed {number}", delay_s=8)
        held = f"{NAMESPACE}:{QUEUE}.DQ"
        wait_until(lambda: scene.redis.hlen(f"{held}.msgs") == 5 and not scene.redis.llen(held), within_s=7)
        scene.valkey.kill()
        time.sleep(OUTAGE_S)
        scene.valkey.start()
        scene.send("note", "immediate")
        wait_until(lambda: scene.noted("immediate"), within_s=30, what="the worker is at it again")

        def survivors() -> int:
            return sum(scene.noted(f"delayed {number}") > 0 for number in range(5))

        _does(lambda: survivors() == 5, within_s=20)
        return survivors()


def retries_lost(scene: Scene) -> int:
    """How many of one failed message are nowhere, if Redis was away when its retry was enqueued."""
    with scene.worker():
        scene.send("fail_in_a_moment", "fails")
        wait_until(lambda: scene.noted("fails"), within_s=30)
        scene.valkey.kill()
        wait_until(lambda: "Failed to post_process_message" in scene.log(), within_s=60)
        scene.valkey.start()
        wait_until(lambda: scene.depth().in_flight == 0, within_s=30)
        depth = scene.depth()
        return 0 if depth.delayed or depth.dead or depth.ready or scene.noted("fails") > 1 else 1


def poison_starts(scene: Scene) -> int:
    """How often a message is started that kills its worker; no more than STARTS_SHOWN are waited for."""
    scene.send("die", "poison")
    while scene.noted("poison") < STARTS_SHOWN and scene.depth().dead == 0:
        with scene.worker(BENCH_HEARTBEAT_MS="400") as master:
            wait_until(lambda: master.process.poll() is not None or scene.depth().dead, within_s=30)
    return scene.noted("poison")


def neighbours_stranded(scene: Scene) -> int:
    """How many of 10 messages do not run, because one among them cannot be read."""
    names = [f"beside {number}" for number in range(10)]
    for name in names[:3]:
        scene.send("note", name)
    scene.redis.hset(f"{NAMESPACE}:{QUEUE}.msgs", "bad", "{not json")
    scene.redis.rpush(f"{NAMESPACE}:{QUEUE}", "bad")
    for name in names[3:]:
        scene.send("note", name)
    with scene.worker(threads=8):
        wait_until(lambda: scene.noted(names[0]), within_s=30)
        time.sleep(5)
        scene.send("note", "late")
        wait_until(lambda: scene.noted("late"), within_s=10, what="the worker goes on")
    return sum(scene.noted(name) == 0 for name in names)


def latencies(scene: Scene) -> list[float]:
    """Seconds from the sending of a message to its run, each sent to a queue that has been idle for a while."""
    samples = {"ours": 240, "stock": 50}[scene.which]
    with scene.worker():
        scene.send("note", "warm")
        wait_until(lambda: scene.noted("warm"), within_s=30)
        for number in range(samples):
            # Long enough for the polls to have slowed down, and not in step with them.
            time.sleep(0.2 + (number * 0.618 % 1) * 2 * int(POLL_MS[scene.which]) / 1000)
            scene.send("measure", time.time())
        wait_until(lambda: scene.redis.llen("latencies") == samples, within_s=30)
    return [float(seconds) for seconds in scene.redis.lrange("latencies", 0, -1)]


FAULTS: dict[str, Callable[[Scene], Any]] = {
    "rerun": rerun_after_kill,
    "outage": delayed_survive_an_outage,
    "retry": retries_lost,
    "poison": poison_starts,
    "undecodable": neighbours_stranded,
    "latency": latencies,
}


def kill_all(master: Master) -> None:
    for pid in master.family():
        os.kill(pid, signal.SIGKILL)
    master.process.wait(10)


def _has_polled(scene: Scene) -> bool:
    return bool(scene.redis.exists(f"{NAMESPACE}:__heartbeats__")) and "is ready for action" in scene.log()


def _does(condition: Callable[[], bool], *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def main(fault: str, which: str) -> None:
    with tempfile.TemporaryDirectory(prefix=f"ctrip-bench-{fault}-") as folder:
        scene = Scene(which, Path(folder))
        try:
            value = FAULTS[fault](scene)
        except (AssertionError, RedisError):
            print(scene.log()[-4000:], file=sys.stderr)
            raise
        finally:
            scene.valkey.stop()
    print(json.dumps({"value": value}))


if __name__ == "__main__":
    main(*sys.argv[1:])
