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
from ctrip.time_limits import TimeLimit

_CONNECT_TIMEOUT_S = 2.0
"""How long one address may let us wait for a connection, and as long again for TLS."""
_SENT_AT_ONCE_BYTES = 2**20
"""One step goes on for as long as the other side takes what it is given."""
READ_TIMEOUT_S = 4.0
"""How long the other side may say nothing, or take nothing of what is sent."""
Origin = tuple[bool, str, int]
"""Whether over TLS, the host and the port."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNQUOTED = "/%:?&=+$,;@!'()*~-._[]"
"""What stays as it is in a path and its query: whatever a URL may hold, and what is quoted already."""


@dataclass(frozen=True)
class Target:
    """Where a URL leads. `head`, which begins each request to it, may hold a key, and is never shown."""

    origin: Origin
    head: bytes = field(repr=False)


@lru_cache(maxsize=256)
def target_of(url: str) -> Target:
    """Read a URL. Raises OSError where nobody can be reached by it."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        name = parts.netloc.rpartition("@")[2].encode("idna").decode()
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        host, port = "", None
    if not host or port is None:
        # Without its cause, whose text may hold a part of the URL.
        raise OSError("this is no URL of a node")
    is_tls = parts.scheme == "https"
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_UNQUOTED)
    lines = [
        f"POST {path} HTTP/1.1",
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
    return Target((is_tls, host, port), "\r\n".join([*lines, "Content-Length: "]).encode())


class Connection:
    """A connection, for one request at a time. What fails raises OSError; silence, and a time limit, TimeoutError."""

    def __init__(self, connected: socket.socket, *, read_timeout_s: float) -> None:
        self._socket = connected
        self._read_timeout_s = read_timeout_s
        self._unasked = select.poll()
        self._unasked.register(connected, select.POLLIN)
        self._answer: Answer | None = None

    @property
    def is_dropped(self) -> bool:
        """True where the other side said something unasked: mostly, that it has closed."""
        return bool(self._unasked.poll(0))

    @property
    def is_free(self) -> bool:
        """True where it may carry another request: the answer was read whole, and both sides want to go on."""
        return self._answer is not None and self._answer.is_over

    def ask(self, head: bytes, body: bytes, *, time_limit: TimeLimit) -> Answer:
        """Send a request and return the beginning of its answer, whose body is read by the same time limit."""
        self._answer = None

        def receive(most: int) -> bytes:
            self._limit(time_limit)
            return self._socket.recv(most)

        self._send(b"%b%d\r\n\r\n%b" % (head, len(body), body), time_limit)
        self._answer = Answer(receive)
        return self._answer

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _send(self, request: bytes, time_limit: TimeLimit) -> None:
        # Not `sendall`: its timeout is for all of it, and this one is for the other side's silence.
        left = memoryview(request)
        while left:
            self._limit(time_limit)
            left = left[self._socket.send(left[:_SENT_AT_ONCE_BYTES]) :]

    def _limit(self, time_limit: TimeLimit) -> None:
        """Bound how long the next step may wait."""
        wait_s = time_limit.left_s(self._read_timeout_s)
        # To set it costs a call of the system, and mostly it is what it was.
        if wait_s != self._socket.gettimeout():
            self._socket.settimeout(wait_s)


class ConnectionPool:
    """Connections that are kept alive, `most` idle ones to all origins together. Threads may share it."""

    def __init__(
        self, *, most: int, trust: Callable[[], ssl.SSLContext], read_timeout_s: float = READ_TIMEOUT_S
    ) -> None:
        self._most = most
        self._read_timeout_s = read_timeout_s
        self._trust = trust
        self._idle: list[tuple[Origin, Connection]] = []
        """The one used last is at the end."""
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, target: Target, *, time_limit: TimeLimit) -> Iterator[Connection]:
        """Lend a connection: the one used last, which is the likeliest to be alive, or a new one.

        Raises OSError. To resolve a name goes by the limits of the system's resolver, which cannot be stopped.
        """
        connection = self._kept(target.origin)
        while connection is not None and connection.is_dropped:
            connection.close()
            connection = self._kept(target.origin)
        if connection is None:
            dialled = _dial(target.origin, self._trust, time_limit=time_limit)
            connection = Connection(dialled, read_timeout_s=self._read_timeout_s)
        try:
            yield connection
        finally:
            self._keep(target.origin, connection)

    def _kept(self, origin: Origin) -> Connection | None:
        with self._lock:
            for at in range(len(self._idle) - 1, -1, -1):
                if self._idle[at][0] == origin:
                    return self._idle.pop(at)[1]
        return None

    def _keep(self, origin: Origin, connection: Connection) -> None:
        if not connection.is_free:
            connection.close()
            return
        with self._lock:
            self._idle.append((origin, connection))
            surplus = self._idle[: -self._most]
            del self._idle[: -self._most]
        for _, oldest in surplus:
            oldest.close()


@cache
def system_trust() -> ssl.SSLContext:
    """Return what the system trusts: read once, because that takes longer than many requests."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _dial(origin: Origin, trust: Callable[[], ssl.SSLContext], *, time_limit: TimeLimit) -> socket.socket:
    is_tls, host, port = origin
    connected = _connected(host, port, time_limit=time_limit)
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if is_tls:
            connected.settimeout(time_limit.left_s(_CONNECT_TIMEOUT_S))
            return trust().wrap_socket(connected, server_hostname=host)
    except OSError:
        connected.close()
        raise
    return connected


def _connected(host: str, port: int, *, time_limit: TimeLimit) -> socket.socket:
    """Connect to the first address of a host that answers."""
    failure = OSError("the host has no address")
    # One by one: `create_connection` gives each of them the whole timeout.
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            return socket.create_connection((str(address[0]), port), timeout=time_limit.left_s(_CONNECT_TIMEOUT_S))
        except OSError as error:
            failure = error
    raise failure
