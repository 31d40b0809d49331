"""The end of an attempt by the clock on the wall."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Deadline:
    """Begins with its making. A socket's own timeout is no such thing: it begins anew with every byte read."""

    def __init__(self, timeout_s: float) -> None:
        self._began = time.monotonic()
        self._ends = self._began + timeout_s

    @property
    def is_over(self) -> bool:
        """True once nothing is left."""
        return time.monotonic() >= self._ends

    def left_s(self) -> float:
        """Return what is left, a millisecond at the least, so that it can stand as any call's timeout."""
        return max(0.001, self._ends - time.monotonic())

    def spent_ms(self) -> int:
        """Return what has passed."""
        return int((time.monotonic() - self._began) * 1000)

    @contextmanager
    def shuts(self, sock: socket.socket) -> Iterator[None]:
        """Shut the connection when time is up, whatever waits on it, a TLS handshake included."""
        # A second descriptor of the same connection: TLS takes the first one over and may close it at any moment.
        handle = sock.dup()
        timer = threading.Timer(self.left_s(), _shut, [handle])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            handle.close()


def _shut(handle: socket.socket) -> None:
    with suppress(OSError):  # it was closed already
        handle.shutdown(socket.SHUT_RDWR)
