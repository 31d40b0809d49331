"""Runs foreground children side by side: readiness, prefixed lines, restart after a crash, a stop that leaves nothing.

    starting ──ready──> running ──exit──> waiting (0.2 s, doubling, at most 10 s) ──> running
        └──exit, or not ready in time: StartFailed           stop: stop_signal, grace, then SIGKILL to the group

One thread does it all: it reads the children's pipes, and looks after them in between. So every child is a child of
the main thread, whose end is what the kernel tells them (see children.spawn).
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from ctrip.errors import CtripError
from ctrip.local.children import Program, is_ready, kill_group, spawn
from ctrip.local.console import Console

_STEP_S = 0.05
_READ_BYTES = 65_536
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.2, 10.0
_PROVEN_S = 10.0
"""A child that ran this long starts its backoff anew."""
_UNREADY_GRACE_S = 5.0


class StartFailed(CtripError):
    """A child ended, or was not ready in time, before the stack was up."""

    code = "start_failed"


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    started: float
    unread: bytes = b""
    ready_after_s: float | None = None
    crashes: int = 0
    again_at: float | None = None

    def grace_s(self, *, at: float) -> float:
        """Return how long it may take to stop. One that never was ready has nothing to bring to an end.

        (Granian does not hear a SIGTERM while its worker starts.)
        """
        is_settled = self.ready_after_s is not None or at - self.started > _PROVEN_S
        return self.program.grace_s if is_settled else min(self.program.grace_s, _UNREADY_GRACE_S)


class Supervisor:
    """Owns the children. `on_restart` is called after each one that came back. Use from the main thread only."""

    def __init__(self, console: Console, *, held_open: Sequence[int] = ()) -> None:
        """`held_open` are file descriptors that every child inherits: a lock among them lasts as long as any child."""
        self._console = console
        self._held_open = tuple(held_open)
        self._children: dict[str, _Child] = {}
        self._pipes = selectors.DefaultSelector()
        self.on_restart: Callable[[], None] = lambda: None

    def pids(self) -> dict[str, int]:
        """Return the process ids by name."""
        return {name: child.process.pid for name, child in self._children.items()}

    def start(self, programs: Sequence[Program], *, within_s: float = 60.0) -> None:
        """Start programs side by side and return when all are ready. Raises StartFailed."""
        begun = time.monotonic()
        for program in programs:
            self._start(program)
        waiting = [self._children[program.name] for program in programs]
        while waiting:
            self._step()
            for child in waiting:
                self._check_start(child, deadline=begun + within_s)
            waiting = [child for child in waiting if child.ready_after_s is None]

    def run(self, program: Program, *, within_s: float | None = None) -> int:
        """Run a program to its end beside the others and return its exit code. Raises StartFailed after `within_s`."""
        child = self._start(program)
        deadline = time.monotonic() + within_s if within_s else None
        while child.process.poll() is None:
            self._step()
            self._look_after()
            if deadline and time.monotonic() > deadline:
                raise StartFailed(f"{program.name} did not finish within {within_s:.0f} s")
        self._read_rest(child)
        del self._children[program.name]
        return child.process.returncode

    def watch(self, until: Callable[[], bool] = lambda: False) -> None:
        """Keep the children running until the condition holds, or a signal raises out of here."""
        while not until():
            self._step()
            self._look_after()

    def stop(self, *names: str) -> None:
        """Stop these children, or all, each as its program wants it; all at once, and kill those that do not go."""
        leaving = [self._children[name] for name in names or tuple(self._children) if name in self._children]
        begun = time.monotonic()
        for child in leaving:
            if child.process.poll() is None:
                child.process.send_signal(child.program.stop_signal)
        while any(child.process.poll() is None for child in leaving):
            self._step()
            for child in leaving:
                grace_s = child.grace_s(at=begun)
                if child.process.poll() is None and time.monotonic() > begun + grace_s:
                    self._console.line(child.program.name, f"did not stop in {grace_s:.0f} s: killed")
                    kill_group(child.process)
        for child in leaving:
            kill_group(child.process)  # what it forked and left behind
            self._read_rest(child)
            del self._children[child.program.name]

    def kill(self) -> None:
        """Kill all children and what they forked, at once."""
        for child in self._children.values():
            kill_group(child.process)

    def _step(self) -> None:
        """Show what the children wrote; wait for it at most a moment."""
        for key, _ in self._pipes.select(_STEP_S):
            child = self._children.get(key.data)
            written = os.read(key.fd, _READ_BYTES)
            if written and child is not None and child.process.stdout is key.fileobj:
                *lines, child.unread = (child.unread + written).split(b"\n")
                self._show(child, lines)
            elif not written:
                self._pipes.unregister(key.fileobj)

    def _start(self, program: Program, *, crashes: int = 0) -> _Child:
        process = spawn(program, output=subprocess.PIPE, held_open=self._held_open)
        child = _Child(program, process, started=time.monotonic(), crashes=crashes)
        self._children[program.name] = child
        self._pipes.register(_pipe(process), selectors.EVENT_READ, program.name)
        return child

    def _check_start(self, child: _Child, *, deadline: float) -> None:
        program = child.program
        code = child.process.poll()
        if code is not None:
            self._read_rest(child)
            raise StartFailed(f"{program.name} ended with {_ending(code)} before it was ready; its lines are above")
        if is_ready(program):
            child.ready_after_s = time.monotonic() - child.started
            self._console.step(program.name, child.ready_after_s, program.where)
        elif time.monotonic() > deadline:
            raise StartFailed(f"{program.name} was not ready in time; its lines are above")

    def _look_after(self) -> None:
        now = time.monotonic()
        for child in tuple(self._children.values()):
            if child.again_at is not None and now >= child.again_at:
                self._start(child.program, crashes=child.crashes)
                self.on_restart()
            elif child.again_at is None and child.program.restarts and child.process.poll() is not None:
                self._note_crash(child, now)

    def _note_crash(self, child: _Child, now: float) -> None:
        kill_group(child.process)  # a master that was killed may have left forks
        self._read_rest(child)
        child.crashes = 1 if now - child.started > _PROVEN_S else child.crashes + 1
        pause_s = min(_FIRST_BACKOFF_S * 2 ** (child.crashes - 1), _LAST_BACKOFF_S)
        child.again_at = now + pause_s
        ending = _ending(child.process.returncode)
        self._console.line(child.program.name, f"ended with {ending}; starts again in {pause_s:.1f} s")

    def _read_rest(self, child: _Child) -> None:
        pipe = _pipe(child.process)
        if pipe.closed:
            return
        if pipe in self._pipes.get_map():
            self._pipes.unregister(pipe)
        # A fork that lives on may hold the other end: take what is there and do not wait for its end.
        os.set_blocking(pipe.fileno(), False)
        rest = pipe.read() or b""
        pipe.close()
        self._show(child, [line for line in (child.unread + rest).split(b"\n") if line])

    def _show(self, child: _Child, lines: Sequence[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if child.program.speaks_for_itself:
                self._console.say(text)
            elif text and not any(noise in text for noise in child.program.noise):
                self._console.line(child.program.name, text)


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise ValueError("the child was started without a pipe")
    return process.stdout


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
