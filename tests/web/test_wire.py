"""What no client library would send, over real sockets to the API as it is run: each request ends, none in a 5xx."""

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from ctrip.context import Context
from tests.api import Api
from tests.waiting import wait_until
from tests.web.granian import answers, api_environment, serving

pytestmark = pytest.mark.infra

GOOD = {"chain": "anvil", "amount": "1"}
PATH = "/api/v1/payments"
WITHIN_S = 20
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Wire:
    """The API's port and a merchant's key."""

    port: int
    key: str

    def head(self, *more: str, method: str = "POST", path: str = PATH) -> bytes:
        lines = (f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {self.key}", *more, "", "")
        return "\r\n".join(lines).encode("latin-1")

    def send(self, *parts: bytes) -> bytes:
        """Send parts one after the other, as far as they are taken, and return the first of what is answered."""
        with self.connect() as connection:
            try:
                for part in parts:
                    connection.sendall(part)
            except ConnectionError:
                pass  # it answered and hung up before it had everything, which is what it should do with much
            return received(connection)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN_S)


def received(connection: socket.socket) -> bytes:
    """What is answered until the head and the body that it announces are there, or the connection is closed."""
    got = b""
    while not _is_whole(got):
        try:
            more = connection.recv(65_536)
        except ConnectionError:
            break
        if not more:
            break
        got += more
    return got


def _is_whole(got: bytes) -> bool:
    head, found, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return bool(found) and (length is None or len(body) >= int(length[1]))


def status(answer: bytes) -> int | None:
    """The status of an answer; None where the connection was closed without one."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else None


def code(answer: bytes) -> tuple[int | None, str]:
    """Status and code of a problem."""
    return status(answer), json.loads(answer.partition(b"\r\n\r\n")[2])["code"]


@pytest.fixture
def wire(postgres_url: str, tmp_path: Path, shop: Api, api_ctx: Context) -> Iterator[Wire]:
    with serving(api_environment(postgres_url, tmp_path)) as (_, url):
        assert shop.key is not None
        yield Wire(int(url.rpartition(":")[2]), shop.key)
        assert answers(url), "it lives"


def json_head(wire: Wire, *more: str) -> bytes:
    return wire.head("Content-Type: application/json", *more)


def test_bodies_that_are_too_much_or_cannot_be_read_are_refused(wire: Wire, shop: Api) -> None:
    good = json.dumps(GOOD).encode()
    packed = gzip.compress(b" " * 10 * MEBIBYTE + good)
    deep = b"[" * 30_000 + b"]" * 30_000
    tried: list[tuple[str, bytes, bytes, tuple[int, str]]] = [
        # what, headers besides, body, answer
        ("10 MiB", b"", b" " * 10 * MEBIBYTE, (413, "payload_too_large")),
        ("100,000 levels", b"", b"[" * 100_000, (413, "payload_too_large")),
        ("30,000 levels", b"", deep, (400, "malformed_request")),
        ("a key twice", b"", b'{"chain":"anvil","amount":"1","amount":"2"}', (400, "malformed_request")),
        ("a byte order mark", b"", b"\xef\xbb\xbf" + good, (400, "malformed_request")),
        ("NUL", b"", good + b"\x00", (400, "malformed_request")),
        ("a lone surrogate", b"", b'{"chain":"anvil","amount":"1","order_id":"\\ud800"}', (422, "invalid_value")),
        ("gzip", b"Content-Encoding: gzip\r\n", packed, (415, "unsupported_media_type")),
        (
            "another charset",
            b"Content-Type: application/json; charset=utf-16\r\n",
            good,
            (415, "unsupported_media_type"),
        ),
        (
            "a form",
            b"Content-Type: application/x-www-form-urlencoded\r\n",
            b"chain=anvil",
            (415, "unsupported_media_type"),
        ),
        (
            "parts of a form",
            b"Content-Type: multipart/form-data; boundary=x\r\n",
            b"--x--",
            (415, "unsupported_media_type"),
        ),
        ("no type", b"Content-Type:\r\n", good, (415, "unsupported_media_type")),
    ]
    for what, headers, body, expected in tried:
        json_type = b"" if b"Content-Type" in headers else b"Content-Type: application/json\r\n"
        head = wire.head()[:-2] + headers + json_type
        declared = wire.send(head + f"Content-Length: {len(body)}\r\n\r\n".encode(), body)
        assert code(declared) == expected, what
        chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in split(body, 16_384)]
        chunked = wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n")
        assert code(chunked) == expected, f"{what}, chunked"
    assert shop.get(PATH).json["data"] == []


def split(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def test_a_body_that_breaks_off_is_not_acted_on(wire: Wire, shop: Api) -> None:
    body = json.dumps(GOOD).encode()
    with wire.connect() as connection:
        connection.sendall(json_head(wire, f"Content-Length: {len(body) + 1}") + body)
        connection.shutdown(socket.SHUT_WR)
        received(connection)
    assert status(wire.send(wire.head(method="GET"))) == 200
    assert shop.get(PATH).json["data"] == []


def test_an_id_that_cannot_be_is_404(wire: Wire) -> None:
    for path in ("%00", "'%20OR%201=1%20--", "..%2f..%2fetc%2fpasswd", "../../../etc/passwd", "%ff", "%", "x" * 9_000):
        assert code(wire.send(wire.head(method="GET", path=f"{PATH}/{path}")))[0] == 404, path


def test_heads_that_are_too_much_or_broken_end_with_the_connection_or_a_4xx(wire: Wire) -> None:
    good = json.dumps(GOOD).encode()
    length = f"Content-Length: {len(good)}"
    tried = {
        "1,000 headers": wire.head(*(f"X-{n}: 1" for n in range(1_000)), method="GET"),
        "a header of 1 MiB": wire.head("X-Long: " + "x" * MEBIBYTE, method="GET"),
        "1 MiB of headers": wire.head(*(f"X-{n}: {'x' * 10_000}" for n in range(100)), method="GET"),
        "a path of 1 MiB": wire.head(method="GET", path=PATH + "?order_id=" + "x" * MEBIBYTE),
        "two lengths": json_head(wire, length, "Content-Length: 2") + good,
        "a length and chunks": json_head(wire, length, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        "a negative length": json_head(wire, "Content-Length: -1") + good,
        "an endless length": json_head(wire, "Content-Length: " + "9" * 30) + good,
        "a length in words": json_head(wire, "Content-Length: ten") + good,
        "a broken chunk": json_head(wire, "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
        "an endless chunk": json_head(wire, "Transfer-Encoding: chunked") + b"f" * 30 + b"\r\n{}\r\n0\r\n\r\n",
        "another transfer coding": json_head(wire, "Transfer-Encoding: gzip") + good,
        "a folded header": json_head(wire, length, "X-Fold: a\r\n b") + good,
        "a header with NUL": json_head(wire, length, "X-Nul: \x00") + good,
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        "another version": b"GET / HTTP/9.9\r\n\r\n",
        "no host": b"GET /livez HTTP/1.1\r\n\r\n",
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 100,
    }
    ended = {what: status(wire.send(request)) for what, request in tried.items()}
    wrong = {what: found for what, found in ended.items() if found is not None and not 200 <= found < 500}
    assert not wrong, ended
    for what in ("two lengths", "a negative length", "a length in words", "a broken chunk", "another transfer coding"):
        assert (ended[what] or 400) >= 400, f"{what}: {ended[what]}"


def test_of_two_headers_that_a_proxy_takes_for_one_neither_names_a_key(wire: Wire) -> None:
    assert status(wire.send(wire.head(f"Authorization: Bearer {wire.key}", method="GET"))) == 401
    assert status(wire.send(wire.head("Authorization: Bearer sk_x_y", method="GET"))) == 401


STALLED = 12
"""Connections: three times as many as the API has threads."""


def test_bodies_that_never_come_stop_the_api_for_seconds_and_not_for_ever(wire: Wire) -> None:
    with ExitStack() as stack:
        stalled = [stack.enter_context(wire.connect()) for _ in range(STALLED)]
        for connection in stalled:
            connection.sendall(json_head(wire, "Content-Length: 50") + b"{")
        idle = stack.enter_context(wire.connect())
        assert status(wire.send(wire.head(method="GET"))) == 200, "within the time that sockets here wait"
        # One was cut off and is remembered: the others do not get all threads again.
        answered = [received(connection) for connection in stalled]
        refused = [code(answer) for answer in answered if answer]
        assert 0 < len(refused) < STALLED and set(refused) == {(429, "rate_limited")}, answered
        idle.sendall(wire.head(method="GET"))
        assert status(received(idle)) == 200, "who sends nothing keeps nobody waiting, and is not hung up on"


def test_a_body_that_comes_drop_by_drop_is_cut_off_too(wire: Wire) -> None:
    with wire.connect() as connection, wire.connect() as busy, ThreadPoolExecutor(1) as threads:
        connection.sendall(json_head(wire, "Content-Length: 60000") + b"{")
        answer = threads.submit(received, connection)
        is_over = threading.Event()

        def drip() -> bool:
            busy.sendall(wire.head(method="GET"))
            assert status(received(busy)) == 200, "whose requests are answered is not hung up on"
            try:
                connection.sendall(b" ")
            except ConnectionError:
                is_over.set()
            return is_over.is_set() or answer.done()

        wait_until(drip, within_s=WITHIN_S, what="the connection is cut off")
        assert answer.result(WITHIN_S) == b""
    assert status(wire.send(json_head(wire, "Content-Length: 28") + b'{"chain":"anvil","amount":1}')) == 422


def test_a_slow_body_that_comes_in_time_is_read(wire: Wire) -> None:
    body = json.dumps(GOOD).encode()
    with wire.connect() as connection:
        connection.sendall(json_head(wire, f"Content-Length: {len(body)}"))
        for byte in body:
            connection.sendall(bytes([byte]))
        assert status(received(connection)) == 201
