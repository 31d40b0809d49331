"""New heads over WebSocket, from a real server on loopback that behaves badly."""

import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from ctrip.blockchain.heads import MAX_MESSAGE_BYTES, HeadStream, Patience
from ctrip.blockchain.transport import label_of
from tests.devchain import DevChain
from tests.waiting import wait_until

KEY = "s3cret-key"
QUICK = Patience(silent_s=30, ping_s=0.3, first_wait_s=0.01, longest_wait_s=0.05)


def head(number: int | str) -> str:
    result = {"number": hex(number) if isinstance(number, int) else number, "hash": "0x00", "gasLimit": "0x1"}
    params = {"subscription": "0x9", "result": result}
    return json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params})


def subscribe(connection: ServerConnection) -> None:
    asked = json.loads(connection.recv())
    assert (asked["method"], asked["params"]) == ("eth_subscribe", ["newHeads"])
    connection.send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": "0x9"}))


class Listener:
    """A thread that follows a stream."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.heads: list[int] = []
        self.states: list[float] = []
        self._stopping = threading.Event()
        self._stream = HeadStream(url, label=label_of(url), chain="anvil", patience=patience)
        self._stream.tell = self.states.append
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def hears(self, *numbers: int) -> None:
        wait_until(lambda: self.heads[-len(numbers) :] == list(numbers), within_s=20, what=f"{self.heads}")

    @property
    def wait_s(self) -> float:
        return self._stream._wait_s

    def _run(self) -> None:
        for number in self._stream.follow(self._stopping):
            self.heads.append(number)


@contextmanager
def listening(
    behave: Callable[[ServerConnection, int], None], patience: Patience = QUICK
) -> Iterator[tuple[Listener, list[ServerConnection]]]:
    """Listen to a server that treats each connection like this; it is told how many came before."""
    connections: list[ServerConnection] = []

    def handle(connection: ServerConnection) -> None:
        connections.append(connection)
        behave(connection, len(connections) - 1)

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        running = threading.Thread(target=server.serve_forever)
        running.start()
        port = server.socket.getsockname()[1]
        try:
            with Listener(f"ws://127.0.0.1:{port}/v3/{KEY}", patience) as listener:
                yield listener, connections
        finally:
            server.shutdown()
            running.join(10)


def stay(connection: ServerConnection) -> None:
    """Wait until the other side hangs up."""
    for _ in connection:
        pass


def test_each_head_is_told_and_after_a_drop_the_next_one_over_a_new_connection() -> None:
    def behave(connection: ServerConnection, before: int) -> None:
        subscribe(connection)
        connection.send(head(100 + before))
        if before == 2:
            stay(connection)

    with capture_logs() as logs, listening(behave) as (listener, connections):
        listener.hears(100, 101, 102)
        assert len(connections) == 3
        assert listener.states == [1, 0, 1, 0, 1]
    assert listener.states[-1] == 0
    said = [line["event"] for line in logs]
    assert said == ["heads_lost", "heads_are_back"] * 2
    assert KEY not in str(logs)


def test_of_many_heads_that_wait_the_last_is_told() -> None:
    told = threading.Event()

    def behave(connection: ServerConnection, _: int) -> None:
        subscribe(connection)
        for number in range(1, 2001):
            connection.send(head(number))
        told.set()
        stay(connection)

    with listening(behave) as (listener, _):
        listener.hears(2000)
        assert listener.heads == sorted(listener.heads)
        assert len(listener.heads) < 2000


class Waiting:
    """A socket in which these messages wait."""

    def __init__(self, there: Iterable[str]) -> None:
        self._there = iter(there)
        self.waited_s: list[float] = []

    def recv(self, timeout: float) -> str:
        self.waited_s.append(timeout)
        for message in self._there:
            return message
        raise TimeoutError


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("there", "told"),
    [
        ([head(1), head(2)], 2),
        ([head(7), "{}"], 7),
        (["{}", head(7), "nonsense"], 7),
        (map(head, count(1)), 100),
    ],
    ids=["two heads", "a head before something else", "a head between others", "heads without end"],
)
def test_of_what_waits_the_last_head_is_told(there: Iterable[str], told: int) -> None:
    stream = HeadStream("ws://node.example", label="node.example", chain="anvil", patience=QUICK)
    waiting = Waiting(there)
    newest = stream._newest(waiting)  # type: ignore[arg-type]
    assert newest is not None and newest.params is not None
    assert newest.params.result.number == hex(told)
    assert set(waiting.waited_s[1:]) == {0}, "it is told at once"


@pytest.mark.parametrize(
    "message",
    [
        "nonsense",
        "[]",
        '{"params": 7}',
        '{"params": {"subscription": "0x9", "result": {"number": 7}}}',
        b"\xff\xfe",
        b'{"params": {"subscription": "\xff", "result": {"number": "0x9"}}}',
        head("nonsense"),
        '{"more": ' + "[" * 100_000,
        "{}",
    ],
)
def test_a_message_that_is_no_head_is_skipped(message: str | bytes) -> None:
    def behave(connection: ServerConnection, _: int) -> None:
        subscribe(connection)
        for _ in range(3):
            connection.send(message)
        connection.send(head(7))
        stay(connection)

    with capture_logs() as logs, listening(behave) as (listener, connections):
        listener.hears(7)
        assert len(connections) == 1
    assert len(logs) <= 1, "it says so once"


def silent(connection: ServerConnection) -> None:
    subscribe(connection)
    stay(connection)


def chattering(connection: ServerConnection) -> None:
    """It has much to say, and no head."""
    subscribe(connection)
    with suppress(ConnectionClosed):
        while True:
            connection.send("{}")


def oversized(connection: ServerConnection) -> None:
    subscribe(connection)
    connection.send("x" * (MAX_MESSAGE_BYTES + 1))
    stay(connection)


def refusing(connection: ServerConnection) -> None:
    connection.recv()
    error = {"code": -32601, "message": f"no such method, see https://node/{KEY}"}
    connection.send(json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}))
    stay(connection)


def hanging_up(connection: ServerConnection) -> None:
    connection.socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("fault", [silent, chattering, oversized, refusing, hanging_up])
def test_a_connection_that_is_of_no_use_is_made_anew(fault: Callable[[ServerConnection], None]) -> None:
    def behave(connection: ServerConnection, before: int) -> None:
        if before == 0:
            return fault(connection)
        subscribe(connection)
        connection.send(head(9))
        stay(connection)
        return None

    patience = Patience(silent_s=0.2, ping_s=5, first_wait_s=0.01) if fault in (silent, chattering) else QUICK
    with capture_logs() as logs, listening(behave, patience) as (listener, connections):
        listener.hears(9)
        assert len(connections) >= 2
    assert KEY not in str(logs)


def test_a_half_open_socket_is_found_by_its_missing_pongs() -> None:
    """The server's thread is held, so that nothing is read from the socket: no pong, and no goodbye either."""
    held = threading.Event()

    def behave(connection: ServerConnection, before: int) -> None:
        subscribe(connection)
        connection.send(head(before))
        if before == 0:
            with connection.protocol_mutex:  # whoever would answer the ping waits for this
                held.wait(20)
        stay(connection)

    with listening(behave) as (listener, connections):
        listener.hears(0, 1)
        held.set()
        assert len(connections) == 2


def test_the_waits_grow_up_to_a_limit_and_begin_anew_with_the_next_head() -> None:
    told = threading.Event()

    def behave(connection: ServerConnection, before: int) -> None:
        if before < 6:
            return hanging_up(connection)
        subscribe(connection)
        told.wait(20)
        connection.send(head(9))
        return stay(connection)

    with listening(behave) as (listener, connections):
        wait_until(lambda: len(connections) == 7, within_s=20)
        assert listener.wait_s == QUICK.longest_wait_s
        told.set()
        listener.hears(9)
        assert listener.wait_s == QUICK.first_wait_s


def test_where_nobody_listens_it_is_said_once_and_a_stop_ends_the_wait() -> None:
    with socket.socket() as taken, capture_logs() as logs:
        taken.bind(("127.0.0.1", 0))  # bound, and never listening: each connection is refused
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}/{KEY}"
        patience = Patience(silent_s=1, first_wait_s=0.01, longest_wait_s=3600)
        with Listener(url, patience) as listener:
            wait_until(lambda: listener.wait_s > 0.1, within_s=20)
        assert [(line["event"], line["reason"]) for line in logs] == [("heads_lost", "ConnectionRefusedError")]
        assert not listener.heads
        with Listener(url, Patience(silent_s=1, first_wait_s=3600)):
            wait_until(lambda: len(logs) == 2, within_s=20)  # it waits for an hour now


@pytest.mark.infra
def test_a_real_nodes_heads_are_heard(anvil: DevChain) -> None:
    url = anvil.url.replace("http://", "ws://")
    with Listener(url, Patience(silent_s=60)) as listener:
        wait_until(lambda: listener.states == [1], within_s=20)
        number = anvil.mine()
        listener.hears(number)
