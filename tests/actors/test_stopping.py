"""However workers are told to stop: what runs finishes, the rest goes back, and the next worker runs it, once."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from actors.broker import NAMESPACE
from ctrip.context import Context
from tests.actors.limited import HOLD
from tests.actors.limited_workers import Limited
from tests.actors.workers import Master
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

RUNNING = ("r1", "r2")
PREFETCHED = ("p1", "p2")
WAITING = ("w1", "w2", "w3")
DELAYED = ("d1", "d2")


@pytest.fixture
def limited(ctx: Context, environment: dict[str, str], redis_client: Redis, tmp_path: Path) -> Iterator[Limited]:
    yield Limited(ctx, environment, redis_client, tmp_path)


def sigterm_twice(master: Master) -> None:
    master.signal(signal.SIGTERM)
    master.signal(signal.SIGTERM)


def sigterm_to_everyone(master: Master) -> None:
    """As systemd's KillMode=control-group and `tini -g` do; nobody's order is promised."""
    os.killpg(master.process.pid, signal.SIGTERM)


def ctrl_c(master: Master) -> None:
    os.killpg(master.process.pid, signal.SIGINT)


def hang_up(master: Master) -> None:
    os.killpg(master.process.pid, signal.SIGHUP)


def in_all_states(limited: Limited, master: Master) -> None:
    """Bring messages into every state: two run, two are prefetched, three wait in Redis, two sleep in the worker."""
    wait_until(lambda: limited.depth().workers == 1, within_s=20, what=master.said)
    for name in DELAYED:
        limited.send(HOLD.actor, name, 0.01, delay_ms=6_000)
    wait_until(lambda: limited.redis.llen(f"{NAMESPACE}:email.DQ") == 0, within_s=5, what="the delayed ones are taken")
    for name in (*RUNNING, *PREFETCHED):
        limited.send(HOLD.actor, name, 2.5)
    wait_until(lambda: limited.noted_each(RUNNING, "running") == [1, 1], within_s=5, what="two run")
    wait_until(lambda: limited.depth().ready == 0, within_s=5, what="two are prefetched")
    for name in WAITING:
        limited.send(HOLD.actor, name, 0.01)


@pytest.mark.parametrize("tell", [sigterm_twice, sigterm_to_everyone, ctrl_c])
def test_a_stop_lets_what_runs_finish_and_the_next_worker_runs_the_rest_once(
    limited: Limited, tell: Callable[[Master], None]
) -> None:
    with limited.start(threads=2) as master:
        in_all_states(limited, master)
        tell(master)
        assert master.wait(40) == 0
        assert "Traceback" not in master.said
    everything = (*RUNNING, *PREFETCHED, *WAITING, *DELAYED)
    assert limited.noted_each(everything, "ended") == [1, 1] + 7 * [0], "what ran has finished, and nothing else began"
    depth = limited.depth()
    assert (depth.ready, depth.in_flight, depth.delayed, depth.stranded) == (5, 0, 2, 0)
    assert limited.redis.llen(f"{NAMESPACE}:email.DQ") == 2
    with limited.start(threads=8) as master:
        wait_until(lambda: 0 not in limited.noted_each(everything, "ended"), within_s=30, what=master.said)
        wait_until(lambda: limited.depth().in_flight == 0, within_s=5)
    assert limited.noted_each(everything, "ended") == 9 * [1]


def test_a_hang_up_starts_the_workers_anew_and_costs_no_message(limited: Limited) -> None:
    with limited.start(threads=2) as master:
        in_all_states(limited, master)
        hang_up(master)
        everything = (*RUNNING, *PREFETCHED, *WAITING, *DELAYED)
        wait_until(lambda: 0 not in limited.noted_each(everything, "ended"), within_s=30, what=master.said)
        assert limited.noted_each(everything, "ended") == 9 * [1]
        assert master.said.count('"event": "worker_ready"') == 2
        master.signal(signal.SIGTERM)
        assert master.wait(40) == 0, "it is the same process still"


def test_what_does_not_end_in_time_is_cut_off_and_runs_again_elsewhere(limited: Limited) -> None:
    with limited.start(threads=1, stop_within_ms=500) as master:
        limited.send(HOLD.actor, "endless", 60.0)
        wait_until(lambda: limited.noted("endless:running") == 1, within_s=20, what=master.said)
        master.signal(signal.SIGTERM)
        assert master.wait(40) == 0
    assert (limited.depth().ready, limited.depth().in_flight) == (0, 1), (
        "nobody else may start it while it may still run"
    )
    # What a silent half minute does.
    beats = f"{NAMESPACE}:__heartbeats__"
    limited.redis.zadd(beats, {bytes(worker): 0 for worker in limited.redis.zrange(beats, 0, -1)})  # type: ignore[arg-type]
    with limited.start(threads=1) as master:
        wait_until(lambda: limited.noted("endless:running") == 2, within_s=20, what=master.said)
