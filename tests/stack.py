"""The whole local stack in a test's hands: what it tells in stack.json, and its processes to kill."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.devchain import DevChain
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
START_WITHIN_S = 90
PORTS = int(os.environ.get("TEST_PORTS", "0"))
"""Added to the ports of all parts, so that two sessions side by side never try for the same ones."""
# Far from the ports of a stack that a person runs beside the tests.
_PLACES = {"PORT": 28000, "REDIS_PORT": 27379, "CHAIN_PORT": 27545, "METRICS_PORT": 29100}
_PORTS = {name: str(port + PORTS) for name, port in _PLACES.items()}
_OURS = ("DATABASE_URL", "REDIS_URL", "CHAIN_RPC", "DATA_DIR", "NO_DEMO", "NO_NPM", "PORT")


class RunningStack:
    """A supervisor as its own process, as `make run` starts it. `stack["api"]` and the like are stack.json's."""

    supervisor: "subprocess.Popen[bytes]"

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        """`folder` is DATA_DIR; what the stack says is in `log` beside it."""
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self._arguments = arguments
        self._environment = {**_without_ours(), **_PORTS, "DATA_DIR": str(folder), **environment}

    def start(self) -> None:
        """Start it; returns at once."""
        with self.log.open("ab") as output:
            self.supervisor = subprocess.Popen(
                [sys.executable, "-m", "ctrip.local", *self._arguments],
                cwd=ROOT,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait for stack.json; fail with the stack's own words where it ends before."""

        def is_ready() -> bool:
            assert self.supervisor.poll() is None, self.log.read_text()[-4000:]
            try:
                return self["supervisor"] == self.supervisor.pid  # and not one that was killed and left its file
            except FileNotFoundError:
                return False

        wait_until(is_ready, within_s=START_WITHIN_S, every_s=0.2, what=f"the stack is ready, see {self.log}")

    def stop(self) -> int:
        """Stop it as Ctrl-C does, where it still runs; return its exit code."""
        if self.supervisor.poll() is None:
            self.supervisor.send_signal(signal.SIGINT)
        return self.supervisor.wait(60)

    def kill_supervisor(self) -> None:
        """Kill the supervisor itself, and wait until all that it started has followed it."""
        below = list(self.family())
        self.supervisor.kill()
        self.supervisor.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in below), within_s=20, what=f"{below} are gone")

    def __getitem__(self, name: str) -> Any:
        return self.facts()[name]

    def facts(self) -> dict[str, Any]:
        """stack.json as it is now."""
        return json.loads((self.folder / "stack.json").read_text())

    def ctrip(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run an operator's command beside the stack, with the environment that it left for that."""
        exports = (line.removeprefix("export ") for line in (self.folder / "env").read_text().splitlines())
        pairs = (line.partition("=") for line in exports)
        environment = {**_without_ours(), **{name: value.strip("'") for name, _, value in pairs}}
        command = [sys.executable, "-m", "ctrip.cli", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def chain(self) -> DevChain:
        """The dev chain, which mines by the clock here."""
        return DevChain(self["chain_rpc"])

    def pids(self) -> dict[str, int]:
        """The masters' process ids by name, those of postgres, valkey and the chain too."""
        facts = self.facts()
        return facts["pids"] | facts["parts"]

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Kill a process, by default without a chance to say goodbye; return the pid that it had."""
        pid = self.pids()[name]
        os.kill(pid, number)
        return pid

    def wait_restarted(self, name: str, *, old_pid: int, within_s: float = 30) -> int:
        """Wait until the supervisor has started it anew; return its new pid."""
        return wait_until(lambda: (pid := self.pids()[name]) != old_pid and pid, within_s=within_s, what=name)

    def family(self) -> dict[int, str]:
        """Every living process below the supervisor, with its command line."""
        return {pid: command for pid, command in _processes().items() if self.supervisor.pid in _ancestors(pid)}


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def _without_ours() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _OURS}


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    try:
        while pid > 1:
            pid = int(_stat(pid)[1])
            found.add(pid)
    except OSError:
        return set()
    return found


def _processes() -> dict[int, str]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {pid: _command(pid) for pid in pids if is_alive(pid)}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
