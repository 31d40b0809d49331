"""Web servers that misbehave, on loopback: each is one function over an accepted connection."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Behaviour = Callable[[socket.socket], None]
DRIP_S = 0.02
_never = threading.Event()


@dataclass
class Peer:
    """A listening server: where it is, and each request as it came, head and body."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"


@contextmanager
def peer(behave: Behaviour, *, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """Serve each connection by `behave` in a thread of its own, after reading the request where it comes in clear."""
    listener = socket.create_server(("127.0.0.1", 0))
    here = Peer(listener.getsockname()[1])
    if tls is not None:
        tls.sni_callback = lambda _sock, name, _context: here.server_names.append(name)

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(20)
            sock = connection if tls is None else tls.wrap_socket(connection, server_side=True)
            with sock:
                here.requests.append(read_request(sock))
                behave(sock)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=[connection], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield here
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextmanager
def mute_peer() -> Iterator[Peer]:
    """A server that takes connections and never says a word, not even of TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Peer(listener.getsockname()[1])


def read_request(sock: socket.socket) -> bytes:
    """Read a request whole: with the body that its Content-Length tells of."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += _some(sock)
    head, _, body = request.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    while len(body) < length:
        body += _some(sock)
    return head + b"\r\n\r\n" + body


def answers(status: int, *headers: str, body: bytes = b"", keeps_open: bool = False) -> Behaviour:
    """Answer at once; `keeps_open` leaves the connection to the client to close."""

    def behave(sock: socket.socket) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
        sock.sendall("\r\n".join(lines).encode())
        sock.sendall(body)
        if keeps_open:
            silence(sock)

    return behave


def says(*parts: bytes, then: Behaviour | None = None) -> Behaviour:
    """Send these bytes as they are."""

    def behave(sock: socket.socket) -> None:
        for part in parts:
            sock.sendall(part)
        if then is not None:
            then(sock)

    return behave


def drips(part: bytes) -> Behaviour:
    """Send the bytes over and over, one at a time with a pause after each, until the client hangs up."""

    def behave(sock: socket.socket) -> None:
        while True:
            for byte in part:
                sock.sendall(bytes([byte]))
                _never.wait(DRIP_S)

    return behave


def floods(part: bytes) -> Behaviour:
    """Send the bytes over and over as fast as they are taken."""

    def behave(sock: socket.socket) -> None:
        while True:
            sock.sendall(part)

    return behave


def silence(sock: socket.socket) -> None:
    """Say nothing until the client hangs up."""
    while sock.recv(4096):
        pass


def _some(sock: socket.socket) -> bytes:
    part = sock.recv(65_536)
    if not part:
        raise ConnectionResetError("the client hung up")
    return part
