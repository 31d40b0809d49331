"""A line to Postgres that is cut at a message and a moment that a test chooses.

It reads as much of the protocol (the Postgres manual, "Message Formats") as that takes: psycopg2 sends each statement,
BEGIN and COMMIT too, as one Query message, and Postgres ends its answer with ReadyForQuery.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_QUERY, _READY = b"Q", b"Z"
_PORT = 5432
_CHUNK = 2**16


class Moment(StrEnum):
    """When the line is cut: each leaves another thing unknown to whoever sent the statement."""

    BEFORE = "before Postgres gets the statement"
    DURING = "while Postgres is at it"
    AFTER = "when Postgres has done it, before its answer is heard"


class PostgresLine:
    """Listens on loopback at `url`, and leads to the Postgres whose socket a URL names."""

    def __init__(self, target_url: str) -> None:
        parts = urlsplit(target_url)
        (folder,) = parse_qs(parts.query)["host"]
        self._target = str(Path(folder) / f".s.PGSQL.{_PORT}")
        self._server = socket.create_server(("127.0.0.1", 0))
        port = self._server.getsockname()[1]
        plain = "sslmode=disable&gssencmode=disable"
        self.url = f"{parts.scheme}://{parts.username}@127.0.0.1:{port}{parts.path}?{plain}"
        self._lock = threading.Lock()
        self._cut: tuple[int, Moment] | None = None
        self.sent: list[str] = []
        """The statements since the line was last armed."""
        self._is_at_rest = threading.Event()
        self._is_at_rest.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, number: int, moment: Moment) -> None:
        """Cut the connection that sends the statement of this number, from now on and counted from 1; once."""
        with self._lock:
            self._cut, self.sent = (number, moment), []

    def spare(self) -> bool:
        """Cut nothing any more. Returns whether something would still have been cut: its statement has not come."""
        with self._lock:
            is_armed, self._cut = self._cut is not None, None
        return is_armed

    def wait_at_rest(self) -> None:
        """Wait until Postgres has done what was cut off while it was at it."""
        assert self._is_at_rest.wait(30), "Postgres is still at it"

    def close(self) -> None:
        """Take no more connections."""
        _end(self._server)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._lead, args=(client,), daemon=True).start()

    def _lead(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._target)
        except OSError:
            _end(client)
            return
        cut = threading.Event()
        downwards = threading.Thread(target=self._answer, args=(server, client, cut), daemon=True)
        downwards.start()
        with suppress(OSError):
            self._ask(client, server, cut)
        # What is cut off when Postgres has got it ends when that has answered.
        if cut.is_set():
            downwards.join(30)
            self._is_at_rest.set()
        for side in (client, server):
            _end(side)

    def _ask(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        """Pass on what is asked; return where the line is to be cut."""
        server.sendall(_first(client))
        for kind, message in _messages(client):
            moment = self._moment_of(message) if kind == _QUERY else None
            if moment is Moment.BEFORE:
                return
            if moment is not None:
                self._is_at_rest.clear()
                cut.set()
            server.sendall(message)
            if moment is Moment.DURING:
                _end(client)
            if moment is not None:
                return

    def _answer(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
        """Pass on what is answered; once `cut`, read until Postgres is ready for more, and tell nobody."""
        with suppress(OSError):
            for kind, message in _messages(server):
                if not cut.is_set():
                    client.sendall(message)
                elif kind == _READY:
                    break
        if not cut.is_set():
            _end(client)

    def _moment_of(self, message: bytes) -> Moment | None:
        with self._lock:
            if self._cut is None:
                return None
            self.sent.append(message[5:-1].decode())
            number, moment = self._cut
            if len(self.sent) < number:
                return None
            self._cut = None
            return moment


def _first(client: socket.socket) -> bytes:
    """Read the startup message, which alone has no type."""
    head = _exactly(client, 4)
    return head + _exactly(client, struct.unpack("!i", head)[0] - 4)


def _messages(side: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    """Read messages, each with its type, until the connection ends."""
    while True:
        head = _exactly(side, 5)
        yield head[:1], head + _exactly(side, struct.unpack("!i", head[1:])[0] - 4)


def _exactly(side: socket.socket, count: int) -> bytes:
    read = bytearray()
    while len(read) < count:
        chunk = side.recv(min(count - len(read), _CHUNK))
        if not chunk:
            raise ConnectionResetError
        read += chunk
    return bytes(read)


def _end(side: socket.socket) -> None:
    with suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
    side.close()
