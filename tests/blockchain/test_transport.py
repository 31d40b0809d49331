import itertools
import socket
from typing import Any

import pytest

from ctrip.blockchain.transport import RateLimited, TooSlow, exchange
from ctrip.errors import NodeUnavailable
from tests.blockchain.nodes import KEY, Node, serving
from tests.blockchain.wires import Behaviour, hang_up, said, say_and_hang_up, wired

LONG = 300_000
BODY = b'{"jsonrpc":"2.0","id":0,"result":"0x1"}'
CALLS: list[tuple[str, list[object]]] = [("eth_chainId", [])]


def looks() -> Any:
    """A clock that goes on by five seconds whenever somebody looks at it."""
    return itertools.count(0.0, 5.0).__next__


def test_an_answer_that_is_still_looked_into_is_not_overwritten_by_the_next() -> None:
    with serving(Node()) as chain:
        (url,) = chain.rpc_urls
        kept = [exchange(url, [("echo", [letter * LONG])])[0] for letter in "abc"]
        assert [bytes(reply.result) for reply in kept] == [f'"{letter * LONG}"'.encode() for letter in "abc"]


def test_an_answer_may_be_shorter_or_longer_than_the_one_before() -> None:
    with serving(Node()) as chain:
        (url,) = chain.rpc_urls
        for length in (LONG, 1, 2 * LONG, 70_000, 0):
            assert bytes(exchange(url, [("echo", ["a" * length])])[0].result) == f'"{"a" * length}"'.encode()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (hang_up, "CutShort"),
        (say_and_hang_up(b"HTTP/1.1 200 OK\r\nContent-"), "CutShort"),
        (say_and_hang_up(said(BODY)[:-1]), "CutShort"),
        (say_and_hang_up(said(BODY, status=500)[:-1]), "answered HTTP 500"),
        (b"220 mail.example ESMTP\r\n", "NoAnswer"),
        (b"HTTP/1.1 two hundred\r\n\r\n", "NoAnswer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10**5, "NoAnswer"),
        (said(BODY, "Content-Encoding: br"), "NoAnswer"),
        (said(b""), "no JSON-RPC"),
        (said(b"", "Location: http://127.0.0.1:1/", status=302), "answered HTTP 302"),
    ],
)
def test_what_is_no_answer_says_why_and_not_what_was_asked(answer: bytes | Behaviour, why: str) -> None:
    with wired(answer) as wire, pytest.raises(NodeUnavailable, match=why) as failed:
        exchange(wire.url, CALLS)
    assert failed.value.detail.startswith(f"localhost:{wire.port} ")
    assert KEY not in failed.value.detail
    assert type(failed.value) is NodeUnavailable
    assert len(wire.requests) == 1


def test_who_cannot_be_reached_says_no_more_than_where() -> None:
    with wired(hang_up) as wire:
        pass
    with pytest.raises(NodeUnavailable) as failed:
        exchange(wire.url, CALLS)
    assert failed.value.detail == f"localhost:{wire.port} did not answer: ConnectionRefusedError"


def drip(head: bytes, drop: bytes) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(drop)

    return behave


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 60000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    ],
)
def test_an_answer_that_never_ends_is_given_up_in_time_whatever_part_of_it_drips(head: bytes, drop: bytes) -> None:
    with wired(drip(head, drop)) as wire, pytest.raises(TooSlow, match="did not answer whole in time: Overdue"):
        exchange(wire.url, CALLS, clock=looks())


def test_a_pause_is_understood_although_its_answer_is_cut_short_or_never_ends() -> None:
    limited = said(BODY, "Retry-After: 7", status=429)
    for answer in (limited, say_and_hang_up(limited[:-1]), drip(limited[:-1].replace(b"39", b"60000"), b"x")):
        with wired(answer) as wire, pytest.raises(RateLimited) as told:
            exchange(wire.url, CALLS, clock=looks())
        assert told.value.wait_s == 7


def test_an_error_that_was_read_whole_costs_no_connection() -> None:
    fault = b'{"jsonrpc":"2.0","id":0,"error":{"code":-32000,"message":"nonce too low"}}'
    with wired(said(fault, status=400), said(b"x" * 100_000, status=500), said(BODY)) as wire:
        (reply,) = exchange(wire.url, CALLS)
        assert reply.error is not None
        with pytest.raises(NodeUnavailable, match="answered HTTP 500"):
            exchange(wire.url, CALLS)
        assert wire.connections == 1
        assert exchange(wire.url, CALLS)[0].error is None
        assert wire.connections == 2, "of the long one only the beginning was read"


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with wired(said(BODY)) as wire, wired(hang_up) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert bytes(exchange(wire.url, CALLS)[0].result) == b'"0x1"'
        assert not proxy.requests
