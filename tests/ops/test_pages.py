"""Pages of metrics: what several processes show together, what a killed one leaves, and what stands at zero."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from actors import QUEUES, TABLE
from ctrip.domain.dead_letters import Reason
from tests.stack import ROOT

_COUNTS = """
import os, signal, sys
from ctrip import metrics
metrics.ACTOR_RUNS.labels(queue="webhook", actor="send_webhook", outcome="success").inc(2)
metrics.SCHEDULER_TASK_LAST_RUN.labels(task="watchdog").set(1000)
if sys.argv[1:] == ["killed"]:
    os.kill(os.getpid(), signal.SIGKILL)
"""
_SHOWS = "from ctrip import metrics; print(metrics.render().decode())"
_ZEROS = """
import sys
from actors import zeros
from ctrip import metrics
from ctrip.settings import Role, load_settings
settings = load_settings(Role.LISTENER)
for queue in sys.argv[1:]:
    zeros.of_worker(settings, queue)
print(metrics.render().decode())
"""


def run(code: str, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    own = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "CHAINS_FILE": str(ROOT / "chains.yaml")}
    environment = {**os.environ, **own, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_processes_that_share_a_folder_add_up_and_a_killed_one_leaves_its_counts_and_nothing_else(
    tmp_path: Path,
) -> None:
    assert run(_COUNTS, folder=tmp_path).returncode == 0
    assert run(_COUNTS, "killed", folder=tmp_path).returncode == -signal.SIGKILL
    shown = run(_SHOWS, folder=tmp_path).stdout
    line = 'ctrip_actor_runs_total{actor="send_webhook",outcome="success",queue="webhook"}'
    assert f"{line} 4.0\n" in shown
    assert "pid=" not in shown, "no series of a process of its own, which would stay when that process is gone"
    assert shown.count("ctrip_scheduler_task_last_run_timestamp_seconds{") == 1


def test_what_the_actors_table_makes_possible_stands_at_zero(tmp_path: Path) -> None:
    shown = run(_ZEROS, *QUEUES, folder=tmp_path).stdout
    for rule in TABLE:
        for reason in Reason:
            line = f'ctrip_dead_letters_total{{actor="{rule.actor}",queue="{rule.queue}",reason="{reason}"}} 0.0\n'
            assert line in shown
        assert f'ctrip_actor_duration_seconds_count{{actor="{rule.actor}",queue="{rule.queue}"}} 0.0\n' in shown
    for line in (
        'ctrip_webhook_attempts_total{outcome="dead"} 0.0',
        'ctrip_email_attempts_total{outcome="sent"} 0.0',
        'ctrip_sweeps_total{chain="anvil",outcome="held"} 0.0',
        'ctrip_reorgs_total{chain="anvil"} 0.0',
        'ctrip_payment_detect_seconds_count{chain="anvil"} 0.0',
    ):
        assert line in shown


@pytest.mark.parametrize("queue", QUEUES)
def test_a_worker_shows_zeros_of_its_own_queue_alone(queue: str, tmp_path: Path) -> None:
    shown = run(_ZEROS, queue, folder=tmp_path).stdout
    assert set(re.findall(r'queue="([a-z]+)"', shown)) == {queue}
