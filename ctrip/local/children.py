"""Child processes that die with their parent, whatever kills it, and the ports and packages that they need."""

import ctypes
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ctrip.errors import MisconfiguredError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Program:
    """How to run one child in the foreground.

    `environment` is the whole environment, not an addition to ours: keys reach the processes that name them and no
    other. `is_ready` answers False, or raises OSError, until the child can be used. `stop_signal` asks it to finish
    within `grace_s` seconds; after that its process group is killed. A child that `restarts` comes back after a crash.
    `where` is shown beside its name once it is ready. What `speaks_for_itself` writes is shown without a prefix;
    lines that hold one of the texts of `noise` are not shown.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    is_ready: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 10.0
    restarts: bool = True
    folder: Path | None = None
    where: str = ""
    speaks_for_itself: bool = False
    noise: tuple[str, ...] = ()


def spawn(program: Program, *, output: int | IO[bytes], held_open: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, its stdout and stderr going to `output`; it inherits `held_open`.

    The kernel sends it the stop signal when the calling *thread* ends, a SIGKILL of this process included: spawn from
    the main thread only.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        if _LIBC is None:
            return
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(program.stop_signal))
        if os.getppid() != parent:  # it died before the line above: nobody would send the signal
            os._exit(1)

    return subprocess.Popen(
        program.argv,
        bufsize=0,
        pass_fds=tuple(held_open),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(program.environment),
        cwd=program.folder,
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 (two system calls, no lock taken; no other way covers a SIGKILL)
    )


def is_ready(program: Program) -> bool:
    """Ask once whether a program that was started can be used."""
    try:
        return program.is_ready()
    except OSError:
        return False


def stop(child: subprocess.Popen[bytes], program: Program) -> bool:
    """Ask a child to finish and wait; kill its process group where it does not. Returns whether it went by itself."""
    if child.poll() is not None:
        return True
    child.send_signal(program.stop_signal)
    try:
        child.wait(program.grace_s)
    except subprocess.TimeoutExpired:
        kill_group(child)
        child.wait()
        return False
    return True


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a child and what it has forked."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def free_port(wanted: int) -> int:
    """Return `wanted`, or where it is taken the next port above it that is free, on the loopback address."""
    for port in range(wanted, min(wanted + 200, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise MisconfiguredError(f"no free port on 127.0.0.1 from {wanted} to {wanted + 199}")


def package_folder(package: str) -> Path:
    """Return the folder of an installed package without importing it: an import may start or write things."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MisconfiguredError(f"the Python package {package} is not installed; run `make` to build the environment")
    return Path(next(iter(spec.submodule_search_locations)))
