"""New heads over WebSocket: they only wake whoever reads, so one that is lost costs a poll's time and nothing else.

    connect -> subscribe -> numbers ... -> silence, no pong, an error: say so once, wait longer each time, connect again

A URL may hold a provider's key: its host alone is shown.
"""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

import msgspec
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from ctrip.blockchain.forms import WrongForm, decoded
from ctrip.blockchain.transport import Fault
from ctrip.errors import ChainError, NodeRefused, NodeUnavailable
from ctrip.log import get_logger

MAX_MESSAGE_BYTES = 2**20
"""A head has a few kilobytes; a longer message ends the connection."""
_OPEN_TIMEOUT_S = 10.0
_MAX_DRAINED_MESSAGES = 100
"""How many messages are read at the most before the last of them is told: a node may send them without end."""
_STOP_CHECK_S = 0.5
"""How soon a stop is noticed."""
log = get_logger()


@dataclass(frozen=True)
class Patience:
    """How long a connection may be of no use. Seconds.

    A ping goes out each `ping_s`, and a pong is due after as long again: a half-open socket is found by that. A node
    that is connected but tells no head for `silent_s` has lost the subscription, as far as anybody can tell.
    """

    silent_s: float
    ping_s: float = 10.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0


class _HeadJson(msgspec.Struct):
    number: str


class _EventJson(msgspec.Struct):
    subscription: str
    result: _HeadJson


class _MessageJson(msgspec.Struct):
    """A head, or the answer to the subscription."""

    params: _EventJson | None = None
    result: str | None = None
    error: Fault | None = None


_MESSAGE = msgspec.json.Decoder(_MessageJson)
_SUBSCRIBE = msgspec.json.encode(
    {"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}
).decode()


class HeadStream:
    """The heads that one URL tells of, for as long as anybody listens. For one thread."""

    def __init__(self, url: str, *, label: str, chain: str, patience: Patience) -> None:
        self.label = label
        self.chain = chain
        self.patience = patience
        self._url = url
        self.tell: Callable[[float], None] = lambda _: None
        """Is called with 1 where a subscription begins, and with 0 where it ends."""
        self._is_lost = self._is_told_unreadable = False
        self._wait_s = patience.first_wait_s

    def follow(self, stopping: threading.Event) -> Iterator[int]:
        """Yield the number of each new head until `stopping` is set; of those that wait already, the last one alone.

        Connects again for ever, with waits that double up to a limit and vary, so that many do not come back at once.
        """
        while not stopping.is_set():
            try:
                yield from self._listen(stopping)
            except (OSError, WebSocketException, EOFError, ChainError) as error:
                if not stopping.is_set():
                    self._lose(error)
                stopping.wait(self._wait_s * (0.5 + random.random() / 2))  # noqa: S311 (nobody need be surprised)
                self._wait_s = min(self.patience.longest_wait_s, 2 * self._wait_s)

    def _listen(self, stopping: threading.Event) -> Iterator[int]:
        """Subscribe, and yield heads until that ends. Raises what the connection raises, ChainError."""
        with connect(
            self._url,
            open_timeout=_OPEN_TIMEOUT_S,
            ping_interval=self.patience.ping_s,
            ping_timeout=self.patience.ping_s,
            close_timeout=1,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            proxy=None,
        ) as socket:
            try:
                socket.send(_SUBSCRIBE)
                yield from self._heads(socket, stopping)
            finally:
                self.tell(0)

    def _heads(self, socket: ClientConnection, stopping: threading.Event) -> Iterator[int]:
        heard_at, is_subscribed = monotonic(), False
        while not stopping.is_set():
            if monotonic() - heard_at > self.patience.silent_s:
                raise NodeUnavailable(f"it is silent for {self.patience.silent_s:.0f} s")
            message = self._newest(socket)
            if message is None:
                continue
            if not is_subscribed:
                is_subscribed = True
                self._find()
            number = None if message.params is None else _number(message.params.result.number)
            if number is not None:
                heard_at = monotonic()
                self._wait_s = self.patience.first_wait_s
                yield number

    def _newest(self, socket: ClientConnection) -> _MessageJson | None:
        """Return the last head of those that are there, or the next message; None where none comes soon.

        What came right before the connection ended is told first: the next call finds that it has ended.
        Raises NodeRefused, ConnectionClosed.
        """
        newest: _MessageJson | None = None
        wait_s = _STOP_CHECK_S
        try:
            for _ in range(_MAX_DRAINED_MESSAGES):
                message = self._read(socket.recv(timeout=wait_s))
                wait_s = 0
                if message is not None and (message.params is not None or newest is None):
                    newest = message
        except TimeoutError:
            pass
        except ConnectionClosed:
            if newest is None:
                raise
        return newest

    def _read(self, text: str | bytes) -> _MessageJson | None:
        """Decode a message; None where it is of no known form. Raises NodeRefused where it is a refusal."""
        try:
            message = decoded(_MESSAGE, text)
        except WrongForm:
            if not self._is_told_unreadable:
                log.info("head_unreadable", chain=self.chain, endpoint=self.label, length=len(text))
            self._is_told_unreadable = True
            return None
        if message.error is not None:
            code, words = message.error.code, message.error.text
            raise NodeRefused("it has no heads to tell", rpc_code=code, rpc_message=words)
        return message

    def _find(self) -> None:
        self.tell(1)
        if self._is_lost:
            log.info("heads_are_back", chain=self.chain, endpoint=self.label)
        self._is_lost = False

    def _lose(self, error: Exception) -> None:
        if not self._is_lost:
            # Other errors' texts may hold the URL.
            reason = error.detail if isinstance(error, ChainError) else type(error).__name__
            log.info("heads_lost", chain=self.chain, endpoint=self.label, reason=reason)
        self._is_lost = True


def _number(quantity: str) -> int | None:
    try:
        return int(quantity, 16)
    except ValueError:
        return None
