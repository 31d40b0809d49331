import itertools
import select
import socket
import threading
from dataclasses import replace
from typing import Any

import pytest

from ctrip.blockchain.endpoint import MAX_ARRIVING_ANSWERS, Endpoint
from ctrip.blockchain.transport import TIMEOUT_S, Call, Crowded, RateLimited, TooSlow, exchange
from ctrip.errors import NodeUnavailable
from tests.blockchain.nodes import KEY, Clock, Node, pool_of, serving
from tests.blockchain.wires import CALLS, LABEL, Behaviour, asked, be_silent, hang_up, said, say_and_hang_up, wired
from tests.factories import CHAIN_ID, make_chain

LONG = 300_000
BEYOND_BUFFERS = 2**23
"""Bytes that are not sent before somebody receives the first of them."""
BODY = b'{"jsonrpc":"2.0","id":0,"result":"0x1"}'


def looks() -> Any:
    """A clock that goes on whenever somebody looks at it: time is over when more than once something came."""
    return itertools.count(0.0, 2.5).__next__


def test_an_answer_that_is_still_looked_into_is_not_overwritten_by_the_next() -> None:
    with serving(Node()) as chain:
        (url,) = chain.rpc_urls
        kept = [asked(url, [("echo", [letter * LONG])])[0] for letter in "abc"]
        assert [bytes(reply.result) for reply in kept] == [f'"{letter * LONG}"'.encode() for letter in "abc"]


def test_an_answer_may_be_shorter_or_longer_than_the_one_before() -> None:
    with serving(Node()) as chain:
        (url,) = chain.rpc_urls
        for length in (LONG, 1, 2 * LONG, 70_000, 0):
            assert bytes(asked(url, [("echo", ["a" * length])])[0].result) == f'"{"a" * length}"'.encode()


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
        asked(wire.url)
    assert failed.value.detail.startswith(f"{LABEL} ")
    assert KEY not in failed.value.detail
    assert type(failed.value) is NodeUnavailable
    assert len(wire.requests) == 1


def test_who_cannot_be_reached_says_no_more_than_where() -> None:
    with wired(hang_up) as wire:
        pass
    with pytest.raises(NodeUnavailable) as failed:
        asked(wire.url)
    assert failed.value.detail == f"{LABEL} did not answer: ConnectionRefusedError"


def drip(head: bytes, drop: bytes) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(100):
            connection.sendall(drop)
        be_silent(connection)

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
        asked(wire.url, clock=looks())


def test_a_pause_is_understood_although_its_answer_is_cut_short_or_never_ends() -> None:
    limited = said(BODY, "Retry-After: 7", status=429)
    for answer in (limited, say_and_hang_up(limited[:-1]), drip(limited[:-1].replace(b"39", b"60000"), b"x")):
        with wired(answer) as wire, pytest.raises(RateLimited) as told:
            asked(wire.url, clock=looks())
        assert told.value.wait_s == 7


def test_an_error_that_was_read_whole_costs_no_connection() -> None:
    fault = b'{"jsonrpc":"2.0","id":0,"error":{"code":-32000,"message":"nonce too low"}}'
    with wired(said(fault, status=400), said(b"x" * 100_000, status=500), said(BODY)) as wire:
        (reply,) = asked(wire.url)
        assert reply.error is not None
        with pytest.raises(NodeUnavailable, match="answered HTTP 500"):
            asked(wire.url)
        assert wire.connections == 1
        assert asked(wire.url)[0].error is None
        assert wire.connections == 2, "of the long one only the beginning was read"


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with wired(said(BODY)) as wire, wired(hang_up) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert bytes(asked(wire.url)[0].result) == b'"0x1"'
        assert not proxy.requests


# --- how long it may take -------------------------------------------------------------------------------------------


class Late:
    """A clock that stands still until a node lets it go on, to a hundredth of a second before the request must end."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def before(self, behaviour: Behaviour) -> Behaviour:
        """Go on, and then do as a node does."""

        def behave(connection: socket.socket) -> None:
            self.now = TIMEOUT_S - 0.01
            behaviour(connection)

        return behave


WHOLE = said(BODY)


@pytest.mark.parametrize("begun", [0, 20, len(WHOLE) - 1], ids=["all of it", "the rest of its head", "its last byte"])
def test_an_answer_is_awaited_no_longer_than_the_request_may_take(begun: int) -> None:
    clock = itertools.chain([0.0], itertools.repeat(TIMEOUT_S - 0.05)).__next__

    def answer_late(connection: socket.socket) -> None:
        connection.sendall(WHOLE[:begun])
        select.select([connection], [], [], 2)  # until the client has had enough
        connection.sendall(WHOLE[begun:])

    with wired(answer_late) as wire, pytest.raises(TooSlow):
        asked(wire.url, clock=clock)


def test_the_turn_to_be_received_is_awaited_no_longer_than_the_request_may_take() -> None:
    clock = Late()
    answer = clock.before(lambda connection: connection.sendall(WHOLE))
    with wired(answer) as wire, pytest.raises(Crowded, match="others of its answers took all the time"):
        asked(wire.url, clock=clock, free=0)


class OwnTime(Clock):
    """A clock that goes on for the thread that made it, and stands still for all others."""

    def __init__(self) -> None:
        super().__init__()
        self._began_at, self._owner = self.now, threading.get_ident()

    def __call__(self) -> float:
        return super().__call__() if threading.get_ident() == self._owner else self._began_at


def test_who_waits_for_answers_that_we_receive_slowly_is_not_blamed() -> None:
    clock, received, released = OwnTime(), threading.Semaphore(0), threading.Event()

    def begin(connection: socket.socket) -> None:
        connection.sendall(said(b" " * BEYOND_BUFFERS + BODY)[:-1])
        received.release()
        released.wait(20)
        hang_up(connection)

    def answer(connection: socket.socket) -> None:
        clock.now += TIMEOUT_S - 0.01
        connection.sendall(whole)

    whole = said(b'[{"jsonrpc":"2.0","id":0,"result":"0x1"},{"jsonrpc":"2.0","id":1,"result":"0x1"}]')
    chain_id = said(b'{"jsonrpc":"2.0","id":0,"result":"%b"}' % hex(CHAIN_ID).encode())
    answers: list[bytes | Behaviour] = [chain_id, said(BODY), *[begin] * MAX_ARRIVING_ANSWERS, answer]
    with wired(*answers) as wire:
        (endpoint,) = pool_of(replace(make_chain(), rpc_urls=(wire.url,)), clock).endpoints
        endpoint.ask(CALLS)
        threads = [threading.Thread(target=_is_answered, args=[endpoint]) for _ in range(MAX_ARRIVING_ANSWERS)]
        for thread in threads:
            thread.start()
        assert all(received.acquire(timeout=20) for _ in threads), "each of them is being received"
        with pytest.raises(Crowded):
            endpoint.ask(CALLS * 2)
        assert (endpoint.is_failing, endpoint.is_suspect) == (False, False)
        assert endpoint.learnt.limits.batch > 2
        released.set()
        for thread in threads:
            thread.join()


def _is_answered(endpoint: Endpoint) -> bool:
    try:
        return bool(endpoint.ask(CALLS))
    except NodeUnavailable:
        return False


def test_a_turn_is_given_back_whatever_becomes_of_the_answer() -> None:
    turns = threading.Semaphore(1)
    with wired(say_and_hang_up(WHOLE[:-1]), said(b"nonsense"), said(BODY)) as wire:
        for _ in range(2):
            with pytest.raises(NodeUnavailable):
                exchange(wire.url, CALLS, label=LABEL, arriving=turns)
        assert exchange(wire.url, CALLS, label=LABEL, arriving=turns)[0].error is None


def test_a_request_that_is_taken_slowly_is_not_sent_to_its_end() -> None:
    clock, taken = Late(), 0
    long: list[Call] = [("echo", ["x" * 50_000_000])]

    def take_slowly() -> None:
        nonlocal taken
        accepted, _ = listener.accept()
        with accepted:
            while came := accepted.recv(2**16):
                taken += len(came)
                clock.now += 0.5

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=take_slowly)
        thread.start()
        with pytest.raises(TooSlow, match="did not answer whole in time: Overdue"):
            asked(f"http://127.0.0.1:{listener.getsockname()[1]}", long, clock=clock)
        thread.join()
    assert taken < 25_000_000
