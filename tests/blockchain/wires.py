"""A server that answers each request with the bytes a test gives it, whatever HTTP says of them."""

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ctrip.blockchain.transport import Call, Clock, Reply, exchange
from tests.blockchain.nodes import KEY

LABEL = "node.example#2"
CALLS: list[Call] = [("eth_chainId", [])]

Behaviour = Callable[[socket.socket], None]
"""What is done with a connection that brought a request."""


@dataclass
class Wire:
    """Where it listens, each request as it came, and how many connections were made."""

    port: int
    scheme: str
    answers: list[bytes | Behaviour]
    """The next one is the first; the last one stays."""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        """A URL that leads here, with a key in it."""
        return f"{self.scheme}://localhost:{self.port}/v2/{KEY}"

    def next_answer(self) -> bytes | Behaviour:
        """Take it."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def wired(*answers: bytes | Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """Serve each connection in a thread of its own, until its client or a behaviour closes it."""
    listener = socket.create_server(("127.0.0.1", 0))
    wire = Wire(listener.getsockname()[1], "http" if tls is None else "https", list(answers))

    def serve(accepted: socket.socket) -> None:
        with accepted, suppress(OSError):
            accepted.settimeout(20)
            with accepted if tls is None else tls.wrap_socket(accepted, server_side=True) as connection:
                while request := _request(connection):
                    wire.requests.append(request)
                    answer = wire.next_answer()
                    if isinstance(answer, bytes):
                        connection.sendall(answer)
                    else:
                        answer(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                wire.connections += 1
                threading.Thread(target=serve, args=[accepted], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield wire
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def asked(url: str, calls: list[Call] = CALLS, *, clock: Clock = time.monotonic, free: int = 1) -> list[Reply]:
    """What a URL answers, where so many answers may arrive at once."""
    return exchange(url, calls, label=LABEL, arriving=threading.Semaphore(free), clock=clock)


def said(body: bytes, *lines: str, status: int = 200) -> bytes:
    """An answer of a known length."""
    return "\r\n".join([f"HTTP/1.1 {status} Yes", *lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def hang_up(connection: socket.socket) -> None:
    """Close the connection."""
    connection.shutdown(socket.SHUT_RDWR)


def be_silent(connection: socket.socket) -> None:
    """Say nothing until the client has had enough."""
    select.select([connection], [], [], 20)


def say_and_hang_up(answer: bytes) -> Behaviour:
    """Say something, and close the connection."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(answer)
        hang_up(connection)

    return behave


def _request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        came = connection.recv(2**16)
        if not came:
            return b""
        request += came
    head, _, body = request.partition(b"\r\n\r\n")
    length = int(head.lower().rpartition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(2**16)
    return head + b"\r\n\r\n" + body
