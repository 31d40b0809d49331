"""Connections are shut when the time of an attempt is up, whatever waits on them."""

import heapq
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

from ctrip.time_limits import TimeLimit


@contextmanager
def shut_after(time_limit: TimeLimit, sock: socket.socket) -> Iterator[None]:
    """Shut the connection when time is up, whatever waits on it, a TLS handshake included."""
    # A second descriptor of the same connection: TLS takes the first one over and may close it at any moment.
    with sock.dup() as handle:
        number = _shutter.watch(handle, until=time_limit.ends_at)
        try:
            yield
        finally:
            _shutter.forget(number)


class _Shutter:
    """One thread that shuts connections when their time is up. A thread for each of them costs as much as its POST."""

    def __init__(self) -> None:
        self._numbers = count()
        self._watched: dict[int, socket.socket] = {}
        self._ends: list[tuple[float, int]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def watch(self, handle: socket.socket, *, until: float) -> int:
        """Shut this connection at that time of the monotonic clock, unless it is forgotten before."""
        with self._changed:
            number = next(self._numbers)
            self._watched[number] = handle
            heapq.heappush(self._ends, (until, number))
            if self._ends[0][1] == number:
                self._changed.notify()
            # Made with the first connection, in the process that has it: a thread does not outlive a fork.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="time-limits", daemon=True)
                self._thread.start()
        return number

    def forget(self, number: int) -> None:
        """Leave a connection alone: it is not touched any more when this returns."""
        with self._changed:
            self._watched.pop(number, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                while self._ends and (self._ends[0][0] <= now or self._ends[0][1] not in self._watched):
                    handle = self._watched.pop(heapq.heappop(self._ends)[1], None)
                    if handle is not None:
                        _shut(handle)
                self._changed.wait(self._ends[0][0] - now if self._ends else None)


def _shut(handle: socket.socket) -> None:
    with suppress(OSError):  # it was closed already
        handle.shutdown(socket.SHUT_RDWR)


_shutter = _Shutter()
