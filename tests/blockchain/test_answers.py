"""What is an answer over HTTP/1.1, and what is none, however it is cut into packets."""

import gzip
import http.client
import io
from socket import socket
from typing import cast

import pytest

from ctrip.blockchain.answers import Answer, CutShort, NoAnswer

BODY = b'{"jsonrpc":"2.0","id":0,"result":"0x1"}'
PACKED = gzip.compress(BODY)
MOST = 1000


class Pieces:
    """What a connection brings, in pieces of `size` at the most, and then its end."""

    def __init__(self, came: bytes, *, size: int = 10**6) -> None:
        self.came = came
        self.size = size

    def receive(self, most: int) -> bytes:
        """Take some."""
        count = min(most, self.size)
        piece, self.came = self.came[:count], self.came[count:]
        return piece


class Plug:
    """The socket that the standard library reads from."""

    def __init__(self, came: bytes) -> None:
        self.came = came

    def makefile(self, _: str) -> io.BytesIO:
        """Open it."""
        return io.BytesIO(self.came)


def said(*lines: str, status: str = "HTTP/1.1 200 OK", body: bytes = BODY) -> bytes:
    return "\r\n".join([status, *lines, "", ""]).encode() + body


def chunked(*chunks: bytes, extension: str = "", trailer: str = "") -> bytes:
    parts = [f"{len(chunk):x}{extension}\r\n".encode() + chunk + b"\r\n" for chunk in chunks]
    return b"".join(parts) + f"0\r\n{trailer}\r\n".encode()


def read(came: bytes, *, size: int = 10**6, buffer: bytearray | None = None, most: int = MOST) -> tuple[int, bytes]:
    answer = Answer(Pieces(came, size=size).receive)
    body = answer.body(bytearray() if buffer is None else buffer, most=most)
    assert body is not None
    return answer.status, bytes(body)


LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
PACKED_LENGTH = ("Content-Encoding: gzip", f"Content-Length: {len(PACKED)}")
WHOLE = {
    "of a known length": said(LENGTH),
    "with names of headers in any case": said(LENGTH.upper()),
    "with no space before a value, and one behind": said(f"content-length:{len(BODY)} "),
    "without a reason": said(LENGTH, status="HTTP/1.1 200"),
    "without anything behind the status": said(LENGTH, status="HTTP/1.1 200 "),
    "empty": said("Content-Length: 0", body=b""),
    "with another status": said(LENGTH, status="HTTP/1.1 503 Service Unavailable"),
    "without a body by its status": said(status="HTTP/1.1 204 No Content", body=b""),
    "in one chunk": said(CHUNKED, body=chunked(BODY)),
    "in small chunks": said(CHUNKED, body=chunked(*(bytes([each]) for each in BODY))),
    "in chunks that have extensions": said(CHUNKED, body=chunked(BODY[:9], BODY[9:], extension=';a="b"')),
    "in chunks before trailers": said(CHUNKED, body=chunked(BODY, trailer="Digest: x\r\nOther: y\r\n")),
    "empty, in chunks": said(CHUNKED, body=chunked()),
    "behind others that are for the time being": (
        said("X: y", status="HTTP/1.1 100 Continue", body=b"")
        + said(status="HTTP/1.1 100 Continue", body=b"")
        + said(LENGTH)
    ),
}
ENDED = {
    "that ends with its connection": said(),
    "of HTTP/1.0": said(status="HTTP/1.0 200 OK"),
}
LAST = {
    "that closes": said(LENGTH, "Connection: Close"),
    "that closes, and more": said(LENGTH, "Connection: foo, close"),
    "of HTTP/1.0 with a length": said(LENGTH, status="HTTP/1.0 200 OK"),
    "with something behind it": said(LENGTH) + b"HTTP/1.1 200 OK\r\n\r\n",
    "in chunks, with something behind it": said(CHUNKED, body=chunked(BODY)) + b"x",
}
UNPACKED = {
    "packed": said(*PACKED_LENGTH, body=PACKED),
    "packed, in chunks": said("Content-Encoding: x-gzip", CHUNKED, body=chunked(PACKED[:7], PACKED[7:])),
    "packed in two": said(
        "Content-Encoding: GZIP", CHUNKED, body=chunked(gzip.compress(BODY[:5]) + gzip.compress(BODY[5:]))
    ),
    "not packed, and says so": said("Content-Encoding: identity", LENGTH),
    "behind early hints": said("Link: </a>", status="HTTP/1.1 103 Early Hints", body=b"") + said(LENGTH),
}


@pytest.mark.parametrize("size", [1, 2, 7, 10**6])
@pytest.mark.parametrize("came", (WHOLE | ENDED | LAST).values(), ids=(WHOLE | ENDED | LAST).keys())
def test_an_answer_is_read_as_the_standard_library_reads_it(came: bytes, size: int) -> None:
    other = http.client.HTTPResponse(cast(socket, Plug(came)), method="POST")
    other.begin()
    body = other.read()
    assert read(came, size=size) == (other.status, body)
    assert body in (BODY, b"")


@pytest.mark.parametrize("size", [1, 10**6])
@pytest.mark.parametrize("came", UNPACKED.values(), ids=UNPACKED.keys())
def test_an_answer_is_read_whatever_it_is_packed_in(came: bytes, size: int) -> None:
    assert read(came, size=size) == (200, BODY)


@pytest.mark.parametrize(
    ("cases", "is_over"),
    [
        (WHOLE | UNPACKED | {"that wants to": said(LENGTH, "Connection: Keep-Alive", status="HTTP/1.0 200 OK")}, True),
        (ENDED | LAST, False),
    ],
)
def test_a_connection_goes_on_where_its_answer_has_a_clear_end_and_both_want_to(
    cases: dict[str, bytes], is_over: bool
) -> None:
    for name, came in cases.items():
        answer = Answer(Pieces(came).receive)
        answer.body(bytearray(), most=MOST)
        assert answer.is_over is is_over, name


@pytest.mark.parametrize("came", (WHOLE | UNPACKED).values(), ids=(WHOLE | UNPACKED).keys())
def test_wherever_an_answer_is_cut_short_it_is_not_taken_for_a_shorter_one(came: bytes) -> None:
    for length in range(len(came)):
        with pytest.raises(CutShort):
            read(came[:length])


def test_an_answer_whose_packed_body_is_cut_short_within_its_length_is_not_taken_for_a_shorter_one() -> None:
    for length in range(len(PACKED)):
        with pytest.raises(CutShort):
            read(said("Content-Encoding: gzip", f"Content-Length: {length}", body=PACKED[:length]))


@pytest.mark.parametrize(
    "came",
    [
        b"220 mail.example ESMTP\r\n\r\n",
        b'{"jsonrpc":"2.0","id":0,"result":"0x1"}\n',
        said(LENGTH, status="HTTP/2 200"),
        said(LENGTH, status="HTTP/1.1 099 Odd"),
        said(LENGTH, status="HTTP/1.1 2000 Odd"),
        said(LENGTH, status="HTTP/1.1 abc Odd"),
        said(LENGTH, "no colon"),
        said(LENGTH, ": no name"),
        said(LENGTH, "Space : before the colon"),
        said(LENGTH, " folded: line"),
        said(LENGTH, "na me: x"),
        said(LENGTH, "n\u00e4me: x"),
        said(LENGTH, "name: \rx"),
        said(LENGTH, "name: \0x"),
        said("Content-Length: -1"),
        said("Content-Length: +5"),
        said("Content-Length:\x1f5"),
        said("Content-Length: five"),
        said("Content-Length: 5, 6"),
        said("Content-Length: " + "9" * 5000),
        said("Content-Length: 5", "Content-Length: 6"),
        said("Content-Length:"),
        said("Transfer-Encoding: gzip, chunked", body=chunked(PACKED)),
        said("Transfer-Encoding: identity", LENGTH),
        said(CHUNKED, body=b"\r\n\r\n"),
        said(CHUNKED, body=b"-1\r\n\r\n"),
        said(CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n"),
        said(CHUNKED, body=b"fffffffffffffffff\r\n"),
        said(CHUNKED, "Content-Length: 5", body=chunked(BODY)),
        said(LENGTH).replace(b"\r\n", b"\n"),
        said(CHUNKED, body=b"4\r\nhello\r\n0\r\n\r\n"),
        said(CHUNKED, body=chunked(BODY).replace(BODY + b"\r\n", BODY + b"\n")),
        said(CHUNKED, body=chunked(BODY).replace(BODY, BODY[:-1])),
        said("Content-Encoding: br", LENGTH),
        said("Content-Encoding: gzip, gzip", f"Content-Length: {len(PACKED)}", body=PACKED),
        said("Content-Encoding: gzip", LENGTH),
        said("Content-Encoding: gzip", f"Content-Length: {len(PACKED)}", body=PACKED[:-6] + b"\0" * 6),
        said("X: " + "x" * 200_000, LENGTH),
        said(*(f"X-{number}: {'x' * 1000}" for number in range(100)), LENGTH),
    ],
    ids=lambda came: came[:70].decode(errors="replace"),
)
def test_what_is_no_answer_is_refused(came: bytes) -> None:
    with pytest.raises(NoAnswer) as refused:
        read(came)
    assert type(refused.value) is NoAnswer


class Packets:
    """What a connection brings, each packet cut where the other side or the network cut it."""

    def __init__(self, *packets: bytes) -> None:
        self.packets = list(packets)

    def receive(self, most: int) -> bytes:
        """Take what is left of the next packet, so many bytes at the most."""
        piece, rest = self.packets[0][:most], self.packets[0][most:]
        self.packets[:1] = [rest] if rest else []
        return piece


LARGE = b"x" * 70 * 1024


@pytest.mark.parametrize("cut", [1, 16, 60])
def test_a_head_that_comes_with_much_of_its_body_is_small_wherever_it_was_cut(cut: int) -> None:
    came = said(f"Content-Length: {len(LARGE)}", "X: " + "x" * 100, body=LARGE)
    answer = Answer(Packets(came[:cut], came[cut:]).receive)
    body = answer.body(bytearray(), most=len(LARGE))
    assert body is not None and bytes(body) == LARGE


@pytest.mark.parametrize(("size", "is_read"), [(2**16, True), (2**16 + 1, False)])
@pytest.mark.parametrize("packet", [1000, 2**15, 10**6])
def test_a_head_may_have_64_kib_and_no_byte_more(size: int, is_read: bool, packet: int) -> None:
    filler = size - len(said(LENGTH, "X: ", body=b""))
    came = said(LENGTH, "X: " + "x" * filler)
    assert len(came) == size + len(BODY)
    pieces = Pieces(came, size=packet)
    if is_read:
        body = Answer(pieces.receive).body(bytearray(), most=MOST)
        assert body is not None and bytes(body) == BODY
        return
    with pytest.raises(NoAnswer) as refused:
        Answer(pieces.receive)
    assert type(refused.value) is NoAnswer
    assert len(pieces.came) == 1 + len(BODY), "no more than that of it was read"


BOMB = gzip.compress(b" " * 10**7)


@pytest.mark.parametrize(
    ("came", "most"),
    [
        (said("Content-Length: 9999999", body=b""), MOST),
        (said("Content-Length: 1001", body=b"x" * 1001), MOST),
        (said(CHUNKED, body=chunked(b"x" * 600, b"x" * 401)), MOST),
        (said(body=b"x" * 1001), MOST),
        (said(*PACKED_LENGTH, body=PACKED), len(PACKED) - 1),
        (said("Content-Encoding: gzip", f"Content-Length: {len(BOMB)}", body=BOMB), 10**7 - 1),
    ],
)
def test_an_answer_that_is_too_large_is_not_read_to_its_end(came: bytes, most: int) -> None:
    answer = Answer(Pieces(came).receive)
    buffer = bytearray()
    assert answer.body(buffer, most=most) is None
    assert len(buffer) <= most + 2**14


def test_an_answer_is_written_into_the_buffer_which_grows_where_it_must_and_keeps_its_size() -> None:
    for size in (0, 1, len(BODY), 5000):
        buffer = bytearray(size)
        assert read(said(LENGTH), buffer=buffer) == (200, BODY)
        assert len(buffer) == max(size, len(BODY))
        assert buffer.startswith(BODY)


def test_a_length_that_is_told_and_not_sent_costs_little_memory() -> None:
    buffer = bytearray()
    with pytest.raises(CutShort):
        read(said(f"Content-Length: {10**9}"), buffer=buffer, most=10**9)
    assert len(buffer) < 10**7
