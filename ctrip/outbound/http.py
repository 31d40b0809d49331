"""The guarded POST: to the address that was checked, within a wall-clock limit, whatever the other side does.

    read the URL │ resolve the name, once │ check every address │ dial one of them │ TLS for the name │ POST │ status

It is built on http.client, which by itself follows no redirect, asks no proxy, reads no environment, keeps no cookie
and decodes no content: an answer of any size costs the kilobytes that are read of it.
"""

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import certifi

from ctrip.errors import DeliveryFailed, DestinationRefused
from ctrip.outbound.deadlines import Deadline
from ctrip.outbound.destinations import Address, Destination, Network, check_addresses, read_address, read_destination

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_RESPONSE_BYTES = 1024
MAX_ANSWER_BYTES = 65_536
MAX_ADDRESSES_TRIED = 4
MAX_RESOLVING = 32
CONNECT_TIMEOUT_S = 5.0

Resolve = Callable[[str, int], Sequence[str]]
"""(host, port) -> addresses as text. Raises OSError where there are none."""

Connect = Callable[[str, int, float], socket.socket]
"""(address, port, timeout in seconds) -> a connected socket. Raises OSError."""

_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "the destination took too long"),
    (socket.gaierror, "the host's name could not be resolved"),
    (ssl.SSLCertVerificationError, "the certificate is expired, for another name or from an unknown authority"),
    (ssl.SSLError, "TLS could not be agreed on"),
    (ConnectionRefusedError, "the connection was refused"),
    (ConnectionError, "the connection was closed before an answer came"),
    (http.client.HTTPException, "the answer was no HTTP"),
)
"""What merchants read of an exception. Its own words could carry anything, a NUL or our network's names included."""


@dataclass(frozen=True)
class Answer:
    """An answer, whatever its status. `response` is the first 1 KiB of the body as text without NUL.

    `retry_after_s` is what a `Retry-After` asks for, in seconds or as a date against the answer's own `Date`.
    """

    status_code: int
    response: str
    duration_ms: int
    retry_after_s: int | None


def system_resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver for a host's addresses, each once, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def dial(address: str, port: int, timeout_s: float) -> socket.socket:
    """Connect to an address, which is never a name."""
    sock = socket.create_connection((address, port), timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Poster:
    """Posts to URLs that merchants name. `allow` are the networks that the operator has opened, also for http.

    `timeout_s` bounds an attempt from the name to the last byte read. Safe to share between threads.
    """

    def __init__(
        self,
        *,
        allow: tuple[Network, ...] = (),
        timeout_s: float = 15.0,
        resolve: Resolve = system_resolve,
        connect: Connect = dial,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._allow = allow
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._connect = connect
        self._trust = trust
        # The system's resolver cannot be stopped: a slow name keeps its thread after the attempt was given up.
        self._resolvers = threading.BoundedSemaphore(MAX_RESOLVING)

    def check(self, url: str) -> None:
        """Raise DestinationRefused for a URL that could never be dialled. Names are not resolved: that is `post`'s."""
        destination = read_destination(url)
        if destination.literal is not None:
            check_addresses(destination, [destination.literal], allow=self._allow)
        elif not destination.is_tls and not self._allow:
            raise DestinationRefused("the URL's scheme is not https")

    def post(self, url: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST once and return the answer, be it a redirect or an error.

        Raises DestinationRefused where the URL leads where it may not, DeliveryFailed where no status line came.
        """
        destination = read_destination(url)
        deadline = Deadline(self._timeout_s)
        try:
            addresses = self._addresses(destination, deadline)
            check_addresses(destination, addresses, allow=self._allow)
            with (
                closing(self._dial(addresses, destination.port, deadline=deadline)) as plain,
                deadline.shuts(plain),
                closing(self._secured(plain, destination)) as sock,
            ):
                return _exchange(sock, destination, body=body, headers=headers, deadline=deadline)
        except (OSError, http.client.HTTPException) as error:
            words = next((words for kind, words in _WORDS if isinstance(error, kind)), "the host cannot be reached")
            raise DeliveryFailed(_WORDS[0][1] if deadline.is_over else words) from error

    def _addresses(self, destination: Destination, deadline: Deadline) -> list[Address]:
        """Resolve the name in a thread of its own, because the system's resolver has no deadline."""
        if destination.literal is not None:
            return [destination.literal]
        if not self._resolvers.acquire(timeout=deadline.left_s()):
            raise TimeoutError("all resolver threads are waiting for an answer")
        answers: SimpleQueue[Sequence[str] | OSError] = SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._resolve(destination.host, destination.port))
            except OSError as error:
                answers.put(error)
            finally:
                self._resolvers.release()

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        try:
            answer = answers.get(timeout=deadline.left_s())
        except Empty:
            raise TimeoutError("the name was not resolved in time") from None
        if isinstance(answer, OSError):
            raise answer
        return [read_address(text) for text in answer]

    def _dial(self, addresses: Sequence[Address], port: int, *, deadline: Deadline) -> socket.socket:
        """Connect to the first address that answers."""
        failure: OSError | None = None
        for address in addresses[:MAX_ADDRESSES_TRIED]:
            try:
                sock = self._connect(str(address), port, min(deadline.left_s(), CONNECT_TIMEOUT_S))
            except OSError as error:
                failure = error
            else:
                sock.settimeout(deadline.left_s())
                return sock
        raise failure or OSError("no address")

    def _secured(self, sock: socket.socket, destination: Destination) -> socket.socket:
        """Agree on TLS where the URL says https. The certificate must be the host's, not the address's."""
        if not destination.is_tls:
            return sock
        return self._trusted.wrap_socket(sock, server_hostname=destination.host)

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        # The system's authorities may know a company's own; certifi's are there where a slim image has none.
        if self._trust is not None:
            return self._trust
        trusted = ssl.create_default_context()
        trusted.load_verify_locations(certifi.where())
        return trusted


class _Capped(io.RawIOBase):
    """A stream that ends after its first 64 KiB: http.client reads all there is where a chunk's size is negative."""

    def __init__(self, stream: io.RawIOBase) -> None:
        super().__init__()
        self._stream = stream
        self._left = MAX_ANSWER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        if not self._left:
            return 0
        count = self._stream.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _StatusFirst(http.client.HTTPResponse):
    """An answer that stands from its status line on: headers that never end, or make no sense, do not take it back."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Capped(self.fp.detach()))

    def begin(self) -> None:
        try:
            super().begin()
        except (OSError, http.client.HTTPException):
            if not isinstance(self.status, int):
                raise
            self.headers = self.msg = http.client.HTTPMessage()
            self.length, self.chunked, self.will_close = 0, False, True


def _exchange(
    sock: socket.socket, destination: Destination, *, body: bytes, headers: Mapping[str, str], deadline: Deadline
) -> Answer:
    connection = http.client.HTTPConnection(destination.host, destination.port)
    connection.auto_open = 0  # it never dials by itself
    connection.default_port = 443 if destination.is_tls else 80
    connection.response_class = _StatusFirst
    connection.sock = sock
    connection.request("POST", destination.target, body=body, headers={**headers, "Connection": "close"})
    with connection.getresponse() as response:
        opening = _opening(response).decode(errors="replace").replace("\x00", "\ufffd")
        return Answer(response.status, opening, deadline.spent_ms(), _retry_after_s(response.headers))


def _opening(response: http.client.HTTPResponse) -> bytes:
    """Return the first 1 KiB of the body, or what came of it before the connection broke."""
    opening = bytearray()
    with suppress(OSError, ValueError, http.client.HTTPException):
        while len(opening) < MAX_RESPONSE_BYTES:
            # One byte at a time: a longer read that the deadline breaks would lose what a drip had brought.
            byte = response.read(1)
            if not byte:
                break
            opening += byte
    return bytes(opening)


def _retry_after_s(headers: http.client.HTTPMessage) -> int | None:
    asked = str(headers.get("Retry-After", "")).strip()
    if asked.isascii() and asked.isdigit():
        return int(asked[:9])
    try:
        wait = parsedate_to_datetime(asked) - parsedate_to_datetime(str(headers.get("Date", "")))
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0, int(wait.total_seconds()))
