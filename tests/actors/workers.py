"""Workers in threads of the test and in processes of their own, and what there is to know of those."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dramatiq
from dramatiq import Actor, Worker
from dramatiq.broker import Broker

OWN_PORTS = 30_000 + os.getpid() % 2_000
"""Where this run of the tests looks for free ports: others may run on the same machine, and stop between two looks."""
ROOT = Path(__file__).resolve().parent.parent.parent


def declare(broker: Broker, run: Callable[..., object], *, name: str = "act", queue: str = "q") -> Actor[..., object]:
    """Make a function an actor of this broker."""
    return dramatiq.actor(broker=broker, queue_name=queue, actor_name=name)(run)


@contextmanager
def working(broker: Broker, *, threads: int = 4, queues: set[str] | None = None) -> Iterator[Worker]:
    """Run a worker in threads of this process."""
    worker = Worker(broker, queues=queues, worker_timeout=20, worker_threads=threads)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(timeout=10_000)


class Master:
    """A command in a session of its own, its output in a file, and every process that it has started."""

    def __init__(self, *command: str, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        inherited = {
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "HOME": os.environ.get("HOME", "/"),
            "TMPDIR": str(log.parent),
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env={**inherited, **environment},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """All that it has written so far."""
        return self.log.read_text()

    def family(self) -> dict[int, list[str]]:
        """The processes of its session that live, orphans included: their pids and command lines."""
        return {pid: _command(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)}

    def _is_ours(self, pid: int) -> bool:
        try:
            state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return int(session) == self.process.pid and state != "Z"

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def wait(self, within_s: float) -> int:
        return self.process.wait(within_s)

    def end(self) -> None:
        """Kill what is left."""
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def running(*command: str, environment: Mapping[str, str], log: Path) -> Iterator[Master]:
    master = Master(*command, environment=environment, log=log)
    try:
        yield master
    finally:
        master.end()


def environment_of(pid: int) -> dict[str, str]:
    """What a process was given as its environment when it started."""
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
