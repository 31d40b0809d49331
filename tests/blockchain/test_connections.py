"""Connections to nodes: which of them are used again, and what goes over them."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ctrip.blockchain.answers import CutShort
from ctrip.blockchain.connections import Connection, ConnectionPool, target_of
from ctrip.errors import ChainError
from ctrip.time_limits import Overdue, TimeLimit
from tests.blockchain.wires import Wire, asked, be_silent, hang_up, said, say_and_hang_up, wired
from tests.certificates import self_signed
from tests.waiting import wait_until

BODY = b'{"jsonrpc":"2.0","id":0,"result":"0x1"}'
ANSWER = said(BODY)
TRUST = ssl.create_default_context()


def untrusting() -> ssl.SSLContext:
    raise AssertionError("http needs no trust")


def connections(*, most: int = 8, read_timeout_s: float = 20.0) -> ConnectionPool:
    return ConnectionPool(most=most, trust=untrusting, read_timeout_s=read_timeout_s)


def soon() -> TimeLimit:
    return TimeLimit(20)


def ask(pool: ConnectionPool, wire: Wire) -> bytes:
    """Ask once and read the answer."""
    with pool.lend(target_of(wire.url), time_limit=soon()) as connection:
        return heard(connection, wire)


def heard(connection: Connection, wire: Wire) -> bytes:
    answer = connection.ask(target_of(wire.url).head, b"{}", time_limit=soon())
    body = answer.body(bytearray(), most=1000)
    assert body is not None
    return bytes(body)


# --- which are used again -------------------------------------------------------------------------------------------


def test_a_connection_is_used_again_and_again() -> None:
    pool = connections()
    with wired(ANSWER) as wire:
        assert [ask(pool, wire) for _ in range(5)] == [BODY] * 5
        assert (wire.connections, len(wire.requests)) == (1, 5)


def test_a_connection_that_was_closed_while_nobody_used_it_is_noticed_and_replaced() -> None:
    pool = connections()
    with wired(say_and_hang_up(ANSWER), ANSWER) as wire:
        assert ask(pool, wire) == BODY
        (_, kept), = pool._idle  # fmt: skip
        wait_until(lambda: kept.is_dropped, within_s=5, every_s=0.001)
        assert ask(pool, wire) == BODY
        assert (wire.connections, len(wire.requests)) == (2, 2)
        assert kept._socket.fileno() == -1, "it is closed"


@pytest.mark.parametrize(
    "unfinished",
    [
        said(BODY, "Connection: close"),
        said(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"),
        ANSWER + b"more",
        said(b"x" * 10**6),
    ],
)
def test_a_connection_is_closed_whose_answer_was_not_read_whole_or_is_the_last(unfinished: bytes) -> None:
    pool = connections()
    with wired(unfinished, ANSWER) as wire:
        with pool.lend(target_of(wire.url), time_limit=soon()) as first:
            first.ask(b"POST / HTTP/1.1\r\nContent-Length: ", b"{}", time_limit=soon()).body(bytearray(), most=1000)
        assert first._socket.fileno() == -1
        assert ask(pool, wire) == BODY
        assert wire.connections == 2


def test_a_connection_is_closed_whose_request_failed_in_between() -> None:
    pool = connections()
    with wired(ANSWER) as wire:
        with pytest.raises(KeyError), pool.lend(target_of(wire.url), time_limit=soon()) as first:
            first.ask(b"POST / HTTP/1.1\r\nContent-Length: ", b"{}", time_limit=soon())
            raise KeyError
        with pytest.raises(KeyError), pool.lend(target_of(wire.url), time_limit=soon()) as second:
            heard(second, wire)
            first.close()
            raise KeyError
        assert ask(pool, wire) == BODY
        assert wire.connections == 2, "what failed after the answer was read whole says nothing of the connection"


def test_a_connection_is_closed_whose_answer_did_not_come_in_time_or_it_would_answer_the_next_question() -> None:
    pool = connections(read_timeout_s=0.05)
    with wired(ANSWER, be_silent, said(b"the next")) as wire:
        ask(pool, wire)
        with pytest.raises(TimeoutError):
            ask(pool, wire)
        assert ask(pool, wire) == b"the next"
        assert wire.connections == 2


def test_nothing_is_sent_a_second_time() -> None:
    pool = connections()
    with wired(ANSWER, hang_up, ANSWER) as wire:
        ask(pool, wire)
        with pytest.raises((CutShort, ConnectionError)):
            ask(pool, wire)
        assert len(wire.requests) == 2


def test_so_many_are_kept_and_the_one_used_last_is_used_first() -> None:
    pool = connections(most=2)
    with wired(ANSWER) as wire, wired(ANSWER) as other:
        with ExitStack() as stack:
            lent = [stack.enter_context(pool.lend(target_of(wire.url), time_limit=soon())) for _ in range(4)]
            for each in lent:
                heard(each, wire)
        # They are given back in the order opposite to that in which they were lent.
        assert [each._socket.fileno() == -1 for each in lent] == [False, False, True, True]
        for _ in range(3):
            with pool.lend(target_of(wire.url), time_limit=soon()) as again:
                assert again is lent[0]
                heard(again, wire)
        assert ask(pool, other) == BODY
        assert lent[1]._socket.fileno() == -1, "the one that was not used for the longest time makes room"
        assert (wire.connections, other.connections) == (4, 1)
        assert len(pool._idle) == 2


def test_threads_share_them_and_each_gets_its_own_answer() -> None:
    pool, wrong = connections(most=8), []

    def work(wire: Wire, told: bytes) -> None:
        for _ in range(50):
            if ask(pool, wire) != told:
                wrong.append(told)

    with wired(said(b"one")) as one, wired(said(b"two")) as two:
        threads = [threading.Thread(target=work, args=each) for each in [(one, b"one"), (two, b"two")] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert max(one.connections, two.connections) <= 4, "as many as asked at once"
        assert len(one.requests) == len(two.requests) == 200


def test_silence_has_a_limit() -> None:
    pool = connections(read_timeout_s=0.01)
    with wired(be_silent) as wire, pytest.raises(TimeoutError):
        ask(pool, wire)


@pytest.mark.parametrize(("left_s", "waits_s"), [(1.5, 1.5), (8.0, 2.0)])
@pytest.mark.parametrize("is_tls", [False, True], ids=["connecting", "the handshake of TLS"])
def test_connecting_waits_no_longer_than_is_left(
    certificate: Path, left_s: float, waits_s: float, is_tls: bool
) -> None:
    pool = ConnectionPool(most=2, trust=lambda: ssl.create_default_context(cafile=str(certificate)))
    with (
        wired_by_tls(certificate) if is_tls else wired(ANSWER) as wire,
        pool.lend(target_of(wire.url), time_limit=TimeLimit(left_s, clock=lambda: 7.0)) as connection,
    ):
        assert connection._socket.gettimeout() == waits_s


def test_who_is_out_of_time_connects_to_none_of_the_addresses() -> None:
    clock = iter([0.0, 8.0, 8.0, 8.0]).__next__
    with wired(ANSWER) as wire:
        with pytest.raises(Overdue), connections().lend(target_of(wire.url), time_limit=TimeLimit(8, clock=clock)):
            pass
        assert wire.connections == 0


def test_who_does_not_listen_is_not_reached() -> None:
    with wired(ANSWER) as wire:
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(connections(), wire)


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed("localhost", tmp_path_factory.mktemp("tls"))


@contextmanager
def wired_by_tls(certificate: Path) -> Iterator[Wire]:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate)
    with wired(ANSWER, tls=served) as wire:
        yield wire


def test_a_connection_over_tls_is_used_again_and_again(certificate: Path) -> None:
    pool = ConnectionPool(most=2, trust=lambda: ssl.create_default_context(cafile=str(certificate)))
    with wired_by_tls(certificate) as wire:
        assert [ask(pool, wire) for _ in range(3)] == [BODY] * 3
        assert wire.connections == 1


def test_a_certificate_that_nobody_vouches_for_or_of_another_host_is_refused(certificate: Path) -> None:
    trusting = ConnectionPool(most=2, trust=lambda: ssl.create_default_context(cafile=str(certificate)))
    with wired_by_tls(certificate) as wire:
        with pytest.raises(ChainError, match="did not answer: SSLCertVerificationError") as failed:
            asked(wire.url)
        assert "/v2/" not in str(failed.value)
        with (
            pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"),
            trusting.lend(target_of(wire.url.replace("localhost", "127.0.0.1")), time_limit=soon()),
        ):
            pass
        assert not wire.requests


# --- what goes over them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin", "line", "host", "more"),
    [
        ("http://node.example", (False, "node.example", 80), "/", "node.example", []),
        ("https://node.example/v2/K", (True, "node.example", 443), "/v2/K", "node.example", []),
        ("http://Node.example:8545/", (False, "node.example", 8545), "/", "Node.example:8545", []),
        ("https://node.example?key=a%2Fb&x=y", (True, "node.example", 443), "/?key=a%2Fb&x=y", "node.example", []),
        ('http://node.example/a b/é?q="#part', (False, "node.example", 80), "/a%20b/%C3%A9?q=%22", "node.example", []),
        ("http://[::1]:8545/k", (False, "::1", 8545), "/k", "[::1]:8545", []),
        ("https://[2001:db8::1]", (True, "2001:db8::1", 443), "/", "[2001:db8::1]", []),
        ("https://bücher.example", (True, "xn--bcher-kva.example", 443), "/", "xn--bcher-kva.example", []),
        (
            "https://us%40er:p%3Ass@node.example:1/k",
            (True, "node.example", 1),
            "/k",
            "node.example:1",
            ["Authorization: Basic dXNAZXI6cDpzcw=="],
        ),
        ("http://user@node:1", (False, "node", 1), "/", "node:1", ["Authorization: Basic dXNlcjo="]),
    ],
)
def test_a_url_says_where_to_connect_and_what_to_ask_for(
    url: str, origin: tuple[bool, str, int], line: str, host: str, more: list[str]
) -> None:
    target = target_of(url)
    lines = target.head.decode().split("\r\n")
    assert target.origin == origin
    assert lines[:2] == [f"POST {line} HTTP/1.1", f"Host: {host}"]
    assert f"Accept-Encoding: {'gzip' if origin[0] else 'identity'}" in lines
    assert [each for each in lines if each.startswith("Authorization")] == more
    assert lines[-1] == "Content-Length: "


@pytest.mark.parametrize(
    "url",
    [
        "",
        "node.example:8545",
        "http://",
        "http://:80",
        "ftp://node.example",
        "http://node.example:99999",
        "http://[::1",
        "http://[nonsense]",
        "http://node.example:port",
        f"http://{'x' * 64}.example",
    ],
)
def test_what_leads_nowhere_says_so_and_not_what_it_is(url: str) -> None:
    with pytest.raises(OSError, match=r"^this is no URL of a node$"):
        target_of(url)
    with pytest.raises(ChainError, match=r"did not answer: OSError$"):
        asked(f"{url}/v2/s3cret")


def test_what_is_shown_of_a_target_holds_no_key() -> None:
    shown = repr(target_of("https://user:word@node.example:8545/v2/s3cret?key=s3cret"))
    assert "(True, 'node.example', 8545)" in shown
    assert not any(secret in shown for secret in ("s3cret", "user", "word", "dXNlcjp3b3Jk"))


def test_a_request_goes_out_with_its_length_and_its_body() -> None:
    with wired(ANSWER) as wire:
        ask(connections(), wire)
        (request,) = wire.requests
        assert request.endswith(b"\r\nContent-Length: 2\r\n\r\n{}")
        assert request.startswith(f"POST /v2/s3cret-key HTTP/1.1\r\nHost: localhost:{wire.port}\r\n".encode())


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
def test_a_long_request_arrives_whole(certificate: Path, is_tls: bool) -> None:
    body = bytes(range(256)) * 20_000
    pool = ConnectionPool(most=2, trust=lambda: ssl.create_default_context(cafile=str(certificate)))
    with wired_by_tls(certificate) if is_tls else wired(ANSWER) as wire:
        target = target_of(wire.url)
        with pool.lend(target, time_limit=soon()) as connection:
            assert connection.ask(target.head, body, time_limit=soon()).status == 200
        (request,) = wire.requests
        assert request.partition(b"\r\n\r\n")[2] == body
