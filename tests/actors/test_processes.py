"""Worker processes: what they count together, and what is left when one of them, or their master, is killed."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from dramatiq.message import Message
from redis import Redis

from actors.hardened import HardenedBroker
from actors.queues import Queues
from ctrip.local.children import free_port
from tests.actors.workers import OWN_PORTS, Master, running
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


class App:
    """The tiny application of tests/actors/app.py, its workers started as an operator starts them."""

    def __init__(self, redis: Redis, url: str, folder: Path) -> None:
        self.redis = redis
        self.port = free_port(OWN_PORTS)
        self.folder = folder
        self.counters = folder / "counters"
        self.counters.mkdir()
        self.environment = {
            "APP_REDIS_URL": url,
            "APP_METRICS_PORT": str(self.port),
            "PROMETHEUS_MULTIPROC_DIR": str(self.counters),
            "dramatiq_worker_timeout": "100",
        }
        self.queues = Queues(redis, namespace="app", heartbeat_timeout_ms=30_000)
        self._broker = HardenedBroker(namespace="app", middleware=[])
        self._broker.connect(url)

    def start(self, *, processes: int = 1, threads: int = 2, **environment: str) -> Any:
        size = ["-p", str(processes), "-t", str(threads)]
        # As in worker.sh: else the master does not see for 30 s that a worker has died while it booted.
        command = ["dramatiq", "tests.actors.app", "--skip-logging", "--worker-fork-timeout", "10", *size]
        return running(*command, environment={**self.environment, **environment}, log=self.folder / "app.log")

    def send(self, actor: str, *args: Any) -> None:
        self._broker.enqueue(Message("quick", actor, args, {}, {}))

    def noted(self, name: str) -> int:
        return int(self.redis.get(f"noted:{name}") or 0)

    def workers(self) -> int:
        return self.queues.depths(["quick"])[0].workers

    def count(self, series: str) -> float:
        page = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=5).text
        found = re.search(rf"^{re.escape(series)} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0


@pytest.fixture
def app(redis_client: Redis, redis_url: str, tmp_path: Path) -> Iterator[App]:
    yield App(redis_client, redis_url, tmp_path)


def worker_pids(master: Master) -> set[int]:
    # Python's resource tracker is a child too, and knows no queue.
    return {
        pid for pid, command in master.family().items() if pid != master.process.pid and "tracker" not in str(command)
    }


SUCCESSES = 'ctrip_actor_runs_total{actor="note_process",outcome="success",queue="quick"}'


def test_the_counters_of_two_processes_add_up_on_one_page_and_stay_when_one_takes_over(app: App) -> None:
    with app.start(processes=2) as master:
        wait_until(lambda: app.workers() == 2, within_s=20, what=master.said)
        for _ in range(20):
            app.send("note_process", "by")
        wait_until(lambda: app.count(SUCCESSES) == 20, within_s=20, what="all of them are on the page")
        by_process = {pid: app.noted(f"by:{pid}") for pid in worker_pids(master)}
        shares = sorted(share for share in by_process.values() if share)
        assert sum(shares) == 20
        assert len(shares) == 2, f"both processes had a part: {by_process}"
        master.signal(signal.SIGTERM)
        assert master.wait(15) == 0
    with app.start() as master:
        wait_until(app.workers, within_s=20, what=master.said)
        app.send("note_process", "by")
        wait_until(lambda: app.count(SUCCESSES) == 21, within_s=10, what="counters of the processes before go on")


def test_killing_the_master_leaves_no_process(app: App) -> None:
    with app.start(processes=2) as master:
        wait_until(lambda: app.workers() == 2, within_s=20, what=master.said)
        assert len(master.family()) >= 3
        master.signal(signal.SIGKILL)
        wait_until(lambda: master.family() == {}, within_s=5, what=f"left: {master.family()}")


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_sigterm_lets_what_runs_finish_and_puts_the_rest_back(app: App, whole_group: bool) -> None:
    with app.start(threads=2) as master:
        wait_until(app.workers, within_s=20, what=master.said)
        for name in ("a", "b", "c", "d"):
            app.send("linger", name, 2.0)
        wait_until(lambda: sum(app.noted(f"{name}:begun") for name in "abcd") == 2, within_s=10)
        if whole_group:
            os.killpg(master.process.pid, signal.SIGTERM)
        else:
            master.signal(signal.SIGTERM)
        assert master.wait(15) == 0
    begun = [name for name in "abcd" if app.noted(f"{name}:begun")]
    assert len(begun) == 2
    assert [name for name in begun if app.noted(f"{name}:ended")] == begun
    depth = app.queues.depths(["quick"])[0]
    assert (depth.ready, depth.in_flight) == (2, 0)


@pytest.mark.parametrize(("guard", "kills"), [("yes", 3), ("no", 4)], ids=["guarded", "stock"])
def test_a_message_that_kills_its_worker_is_not_started_a_fourth_time_and_takes_no_neighbour_along(
    app: App, guard: str, kills: int
) -> None:
    """Without the guard there is no end to it; four is where this test gives up."""
    for name in ("a", "b"):
        app.send("linger", name, 0.6)
    app.send("kill_worker", "deadly")
    killed = 0

    def is_over() -> bool:
        depth = app.queues.depths(["quick"])[0]
        return depth.ready + depth.in_flight == 0

    while killed < 4 and not is_over():
        with app.start(threads=4, APP_HEARTBEAT_MS="400", APP_POISON_GUARD=guard) as master:
            wait_until(lambda: master.process.poll() is not None or is_over(), within_s=20)
            killed += master.process.poll() is not None
    assert (killed, app.noted("deadly")) == (kills, kills)
    dead = app.queues.dead_messages("quick", older_than_ms=0, limit=9)
    assert [json.loads(message.content)["actor_name"] for message in dead] == ["kill_worker"] * (guard == "yes")
    assert guard == "no" or (app.noted("a:ended"), app.noted("b:ended")) == (1, 1)


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_what_a_killed_worker_held_runs_again_within_35_seconds(app: App) -> None:
    with app.start(threads=1) as first:
        wait_until(app.workers, within_s=20, what=first.said)
        app.send("linger", "held", 3.0)
        wait_until(lambda: app.noted("held:begun") == 1, within_s=5)
        for pid in worker_pids(first):
            os.kill(pid, signal.SIGKILL)
        killed_at = time.monotonic()
        assert first.wait(10) != 0
    with app.start(threads=1):
        wait_until(lambda: app.noted("held:ended") == 1, within_s=45, what="it runs again")
        assert app.noted("held:begun") == 2
        took_s = time.monotonic() - killed_at - 3
        assert took_s <= 35
