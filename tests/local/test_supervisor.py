"""The supervisor over little shell programs: readiness, lines, restarts, and a stop that leaves nothing behind."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctrip.local.children import Program
from ctrip.local.console import Console
from ctrip.local.options import plain_environment
from ctrip.local.supervisor import StartFailed, Supervisor
from tests.stack import ROOT, is_alive
from tests.waiting import wait_until


def shell(name: str, script: str, *, is_ready: Callable[[], bool] = lambda: True, **rest) -> Program:
    return Program(name, ("bash", "-c", script), plain_environment(), is_ready=is_ready, **rest)


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(written: io.StringIO) -> Iterator[Supervisor]:
    supervisor = Supervisor(Console(written, colours=False))
    yield supervisor
    supervisor.stop()


def watch_until(supervisor: Supervisor, condition: Callable[[], bool], *, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    supervisor.watch(until=lambda: condition() or time.monotonic() > deadline)
    assert condition()


def test_it_waits_until_all_are_ready(supervisor: Supervisor, tmp_path: Path, written: io.StringIO) -> None:
    flags = [tmp_path / "a", tmp_path / "b"]
    supervisor.start([shell(f.name, f"sleep 0.3; touch {f}; exec sleep 60", is_ready=f.exists) for f in flags])
    assert all(flag.exists() for flag in flags)
    assert len(re.findall(r"  [ab] +ready", written.getvalue())) == 2


def test_one_that_ends_before_it_is_ready_fails_the_start(supervisor: Supervisor, written: io.StringIO) -> None:
    broken = shell("postgres", "echo 'FATAL: no room'; exit 3", is_ready=lambda: False)
    with pytest.raises(StartFailed, match="postgres ended with exit code 3 before it was ready"):
        supervisor.start([broken])
    assert "| FATAL: no room" in written.getvalue()


def test_one_that_is_never_ready_fails_the_start(supervisor: Supervisor) -> None:
    with pytest.raises(StartFailed, match="api was not ready in time"):
        supervisor.start([shell("api", "exec sleep 60", is_ready=lambda: False)], within_s=0.3)


def test_every_line_carries_its_name_and_a_log_line_is_written_for_people(
    supervisor: Supervisor, written: io.StringIO
) -> None:
    log_line = r"{\"event\": \"payment_detected\", \"level\": \"info\", \"process\": \"x\", \"payment_id\": \"pay_1\"}"
    supervisor.run(shell("worker.listener", f'echo plain; echo "{log_line}"; printf "no end of line"', restarts=False))
    lines = [line.split(" ", 1)[1] for line in written.getvalue().splitlines()]
    assert [" ".join(line.split()) for line in lines] == [
        "worker.listener | plain",
        "worker.listener | payment_detected payment_id=pay_1",
        "worker.listener | no end of line",
    ]


def test_one_that_crashes_starts_again_and_later_each_time(supervisor: Supervisor, written: io.StringIO) -> None:
    restarts: list[dict[str, int]] = []
    supervisor.on_restart = lambda: restarts.append(supervisor.pids())
    supervisor.start([shell("worker", "sleep 0.1; exit 7")])
    watch_until(supervisor, lambda: len(restarts) == 3)
    assert len({pids["worker"] for pids in restarts}) == 3
    assert re.findall(r"exit code 7; starts again in ([\d.]+) s", written.getvalue())[:3] == ["0.2", "0.4", "0.8"]


def test_forks_of_one_that_was_killed_are_gone_before_it_starts_again(supervisor: Supervisor, tmp_path: Path) -> None:
    fork = tmp_path / "fork"
    supervisor.start([shell("worker", f"sleep 300 & echo $! > {fork}.new; mv {fork}.new {fork}; wait")])
    watch_until(supervisor, fork.exists)
    forked, master = int(fork.read_text()), supervisor.pids()["worker"]
    os.kill(master, signal.SIGKILL)
    watch_until(supervisor, lambda: supervisor.pids()["worker"] != master)
    assert not is_alive(forked)


def test_a_stop_kills_what_does_not_go_and_all_that_was_forked(supervisor: Supervisor, tmp_path: Path) -> None:
    forks = [tmp_path / "stubborn", tmp_path / "mild"]
    fork = "sleep 300 & echo $! > {0}.new; mv {0}.new {0}; "
    stubborn = "trap '' TERM; " + fork.format(forks[0]) + "while true; do wait; done"
    mild = fork.format(forks[1]) + "exec sleep 300"
    supervisor.start([shell("stubborn", stubborn, grace_s=0.3), shell("mild", mild)])
    watch_until(supervisor, lambda: all(fork.exists() for fork in forks))
    pids = [*supervisor.pids().values(), *(int(fork.read_text()) for fork in forks)]
    supervisor.stop()
    assert supervisor.pids() == {}
    wait_until(lambda: not any(is_alive(pid) for pid in pids), within_s=2, what=f"{pids} are gone")


def test_a_killed_supervisor_leaves_no_process_behind(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from ctrip.local.console import Console
from ctrip.local.postgres import embedded_postgres
from ctrip.local.supervisor import Supervisor
from tests.local.test_supervisor import shell
folder = Path(sys.argv[1])
supervisor = Supervisor(Console())
supervisor.start([embedded_postgres(folder / "postgres")[0], shell("worker", "exec sleep 300")])
(folder / "pids").write_text(" ".join(map(str, supervisor.pids().values())))
supervisor.watch()
"""
    driver = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text(), within_s=30)
    finally:
        driver.kill()
        driver.wait()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait_until(lambda: not any(is_alive(pid) for pid in pids), within_s=10, what=f"{pids} are gone")


def test_one_that_never_was_ready_is_not_waited_for(supervisor: Supervisor) -> None:
    deaf = shell("api", "trap '' TERM; while true; do sleep 0.1; done", is_ready=lambda: False, grace_s=60)
    with pytest.raises(StartFailed):
        supervisor.start([deaf], within_s=0.5)
    begun = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - begun < 20
