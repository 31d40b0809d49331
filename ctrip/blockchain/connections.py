"""Connections to nodes over HTTP/1.1, kept alive: one for each request that is under way, and then for the next one."""

import select
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from urllib.parse import quote, unquote, urlsplit

from ctrip import __version__
from ctrip.blockchain.answers import Answer

_CONNECT_S = 2.0
SILENCE_S = 4.0
"""How long the other side may say nothing."""
Origin = tuple[bool, str, int]
"""Whether over TLS, the host and the port."""
_PORTS = {"http": 80, "https": 443}
_IN_PATHS = "/%:?&=+$,;@!'()*~-._[]"
"""What stays as it is in a path and its query: whatever a URL may hold, and what is quoted already."""


class Overdue(TimeoutError):
    """The answer did not come whole in time, although something came now and then."""


@dataclass(frozen=True)
class Place:
    """Where a URL leads. `head`, which begins each request to it, may hold a key, and is never shown."""

    origin: Origin
    head: bytes = field(repr=False)


@lru_cache(maxsize=256)
def place_of(url: str) -> Place:
    """Read a URL. Raises OSError where nobody can be reached by it."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    try:
        host = (parts.hostname or "").encode("idna").decode()
        name = parts.netloc.rpartition("@")[2].encode("idna").decode()
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        host = ""
    if not host or port is None:
        raise OSError("this is no URL of a node")
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_IN_PATHS)
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {name}",
        f"User-Agent: ctrip/{__version__}",
        "Content-Type: application/json",
        # What comes from afar is worth unpacking: a block packs to a fifth. From this machine or rack it would only
        # cost CPU.
        f"Accept-Encoding: {'gzip' if is_tls else 'identity'}",
    ]
    if parts.username is not None:
        known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Authorization: Basic {b64encode(known.encode()).decode()}")
    return Place((is_tls, host, port), "\r\n".join([*lines, "Content-Length: "]).encode())


class Connection:
    """A connection, for one request at a time. What fails raises OSError, silence TimeoutError."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._idle = select.poll()
        self._idle.register(connected, select.POLLIN)
        self._answer: Answer | None = None

    @property
    def is_dropped(self) -> bool:
        """True where the other side said something unasked: mostly, that it has closed."""
        return bool(self._idle.poll(0))

    @property
    def is_free(self) -> bool:
        """True where it may carry another request: the answer was read whole, and both sides want to go on."""
        return self._answer is not None and self._answer.is_over

    def ask(self, head: bytes, body: bytes, *, check: Callable[[], None]) -> Answer:
        """Send a request and return the beginning of its answer. `check` is called whenever something came of it."""
        self._answer = None

        def receive(most: int) -> bytes:
            came = self._socket.recv(most)
            check()
            return came

        self._socket.sendall(b"%b%d\r\n\r\n%b" % (head, len(body), body))
        self._answer = Answer(receive)
        return self._answer

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class Connections:
    """Connections that are kept alive, `most` of them to all places together. Threads may share it."""

    def __init__(self, *, most: int, trust: Callable[[], ssl.SSLContext], silence_s: float = SILENCE_S) -> None:
        self._most = most
        self._silence_s = silence_s
        self._trust = trust
        self._free: list[tuple[Origin, Connection]] = []
        """The one used last is at the end."""
        self._lock = threading.Lock()

    @contextmanager
    def to(self, place: Place) -> Iterator[Connection]:
        """Lend a connection: the one used last, which is the likeliest to be alive, or a new one. Raises OSError."""
        connection = self._kept(place.origin)
        while connection is not None and connection.is_dropped:
            connection.close()
            connection = self._kept(place.origin)
        if connection is None:
            connection = Connection(_dial(place.origin, self._trust, silence_s=self._silence_s))
        try:
            yield connection
        finally:
            self._keep(place.origin, connection)

    def _kept(self, origin: Origin) -> Connection | None:
        with self._lock:
            for at in range(len(self._free) - 1, -1, -1):
                if self._free[at][0] == origin:
                    return self._free.pop(at)[1]
        return None

    def _keep(self, origin: Origin, connection: Connection) -> None:
        if not connection.is_free:
            connection.close()
            return
        with self._lock:
            self._free.append((origin, connection))
            surplus = self._free[: -self._most]
            del self._free[: -self._most]
        for _, oldest in surplus:
            oldest.close()


@cache
def system_trust() -> ssl.SSLContext:
    """Return what the system trusts: read once, because that takes longer than many requests."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _dial(origin: Origin, trust: Callable[[], ssl.SSLContext], *, silence_s: float) -> socket.socket:
    is_tls, host, port = origin
    connected = socket.create_connection((host, port), timeout=_CONNECT_S)
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if is_tls:
            connected = trust().wrap_socket(connected, server_hostname=host)
    except OSError:
        connected.close()
        raise
    connected.settimeout(silence_s)
    return connected
