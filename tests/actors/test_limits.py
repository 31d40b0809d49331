"""The limits of the table, each on workers as they run: most at once, time, tries, and what comes before and after.

How long results are kept is what test_table and the housekeeping's own tests are about.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest
import sqlalchemy as sa
from redis import Redis

from ctrip.context import Context
from tests.actors.limited import FAIL, HOLD, OVERRUN, QUEUE
from tests.actors.limited_workers import Limited
from tests.actors.workers import ROOT
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


@pytest.fixture
def limited(ctx: Context, environment: dict[str, str], redis_client: Redis, tmp_path: Path) -> Iterator[Limited]:
    yield Limited(ctx, environment, redis_client, tmp_path)


def test_a_flood_of_slow_messages_never_has_more_of_them_at_once_than_threads_times_processes(limited: Limited) -> None:
    with limited.start(processes=2, threads=3) as master:
        wait_until(lambda: limited.depth().workers == 2, within_s=30, what=master.said)
        for number in range(60):
            limited.send(HOLD.actor, "flood", 0.2, number)
        wait_until(lambda: limited.noted("flood:ended") == 60, within_s=30, what="the flood has run off")
        assert limited.redis.zrange("noted:flood:seen", -1, -1) == [b"6"]


def test_a_run_over_its_time_is_ended_retried_by_its_rule_and_then_a_dead_letter(limited: Limited) -> None:
    with limited.start() as master:
        limited.send(OVERRUN.actor, "long")
        (letter,) = wait_until(limited.letters, within_s=30, what=master.said)
    assert limited.noted("long:begun") == OVERRUN.tries == 2
    assert limited.noted("long:ended") == 0
    assert (letter.reason, letter.actor) == ("retries", OVERRUN.actor)
    assert letter.exception.startswith("TimeLimitExceeded")


def test_a_message_that_always_fails_runs_as_often_as_its_rule_says_and_is_then_a_dead_letter(limited: Limited) -> None:
    with limited.start() as master:
        limited.send(FAIL.actor, "failing")
        (letter,) = wait_until(limited.letters, within_s=30, what=master.said)
        assert limited.noted("failing:begun") == FAIL.tries == 1 + FAIL.retries
    assert (letter.reason, letter.exception) == ("retries", "ArithmeticError: failing")


def connections(ctx: Context) -> int:
    """How many connections the workers' processes have to Postgres."""
    query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
    with ctx.sessions.begin() as session:
        return session.scalar(query, {"name": f"ctrip-{QUEUE}"}) or 0


def test_a_process_builds_its_context_once_before_it_takes_messages_and_closes_it_after_the_last(
    limited: Limited,
) -> None:
    for number in range(30):
        limited.send(HOLD.actor, "early", 0.05, number)
    with limited.start(processes=2, threads=3) as master:
        wait_until(lambda: limited.noted("early:ended") == 30, within_s=40, what=master.said)
        contexts = [bytes(each).split(b":") for each in limited.redis.smembers("noted:early:contexts")]  # type: ignore[arg-type]
        assert len({pid for pid, _ in contexts}) == len(contexts), "one context for all runs of a process"
        limited.send(HOLD.actor, "last", 1.0)
        wait_until(lambda: limited.noted("last:running") == 1, within_s=5)
        master.signal(signal.SIGTERM)
        assert master.wait(15) == 0
        assert master.said.count('"event": "worker_ready"') == master.said.count('"event": "worker_stopped"') == 2
    assert limited.noted("last:ended") == 1


WORKER = """
import sys, dramatiq, actors.broker, actors.email
worker = dramatiq.Worker(actors.broker.broker, queues={"email"})
worker.start()
print("started", flush=True)
sys.stdin.readline()
worker.stop(5_000)
print("stopped", flush=True)
sys.stdin.readline()
"""


def test_a_worker_that_has_stopped_holds_no_connection_though_its_process_lives(limited: Limited) -> None:
    before = _clients(limited)
    command, environment = [sys.executable, "-c", WORKER], {**os.environ, **limited.environment}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=PIPE, stdout=PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "started\n"
        assert connections(limited.ctx) > 0
        assert _clients(limited) - before
        worker.stdin.write("stop\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "stopped\n"
        wait_until(lambda: connections(limited.ctx) == 0, within_s=5)
        assert _clients(limited) <= before


def _clients(limited: Limited) -> set[str]:
    """Which connections Redis has: some of processes that ended before may still go."""
    return {client["id"] for client in limited.redis.client_list()}
