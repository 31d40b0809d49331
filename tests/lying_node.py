"""A node before the dev chain that fails and lies by a script, and the scripts, drawn from a seed to be replayed."""

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any
from urllib.parse import urlsplit

from tests.node_faults import RESET, Answer, Fault, Silent, Surroundings, Upstream
from tests.node_lies import FAULTS

_RESETTING = struct.pack("ii", 1, 0)
_MEMORY = 400


@dataclass(frozen=True)
class Window:
    """A time in which a node has a fault, in seconds since the script began."""

    begins: float
    ends: float
    fault: type[Fault]
    seed: int

    def __str__(self) -> str:
        return f"{self.begins:.2f}-{self.ends:.2f} {self.fault.__name__}"


Script = tuple[Window, ...]


def draw_scripts(dice: Random, *, seconds: float, faults: Sequence[type[Fault]] = FAULTS) -> tuple[Script, Script]:
    """Draw what two nodes before one chain do within `seconds`. They never lie at the same time."""
    first = tuple(_windows(dice, seconds, faults, beside=()))
    return first, tuple(_windows(dice, seconds, faults, beside=first))


def _windows(dice: Random, seconds: float, faults: Sequence[type[Fault]], *, beside: Script) -> Iterator[Window]:
    at, is_silenced = dice.uniform(0, seconds / 6), False
    while at < seconds * 0.9:
        ends = min(seconds, at + dice.uniform(seconds / 10, seconds / 3))
        lied = any(other.fault.is_lie and other.begins < ends and at < other.ends for other in beside)
        # A silence is longer than any client waits, so one in a script is enough.
        fit = [f for f in faults if not (f.is_lie and lied) and not (f is Silent and is_silenced)]
        fault = dice.choice(fit)
        is_silenced |= fault is Silent
        yield Window(at, ends, fault, dice.randrange(2**32))
        at = ends + dice.uniform(0, seconds / 8)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault of ours."""


class LyingNode:
    """One endpoint. It is honest until it follows a script. `on_ask` hears of each request's body."""

    def __init__(self, chain_url: str) -> None:
        self.upstream = Upstream(chain_url)
        self.told: deque[str] = deque(maxlen=_MEMORY)
        self.on_ask: Callable[[bytes], None] = lambda _: None
        self._lock = threading.Lock()
        self._honest = Fault(Surroundings(self.upstream, Random(0)))
        self._around = self._honest.around
        self._script: Script = ()
        self._began = 0.0
        self._now: tuple[Window, Fault] | None = None
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def follow(self, script: Script, *, targets: Sequence[tuple[bytes, bytes, int]]) -> None:
        """Begin a script now. Forged payments are for `targets`."""
        with self._lock:
            self._script, self._began, self._now = script, time.monotonic(), None
            self._around = Surroundings(self.upstream, Random(0), targets)
            self.told.clear()

    def heal(self) -> None:
        """Be honest from now on."""
        with self._lock:
            self._script, self._now = (), None
            self._around.healed.set()

    def close(self) -> None:
        self.heal()
        self._server.shutdown()
        self._server.server_close()

    def respond(self, body: bytes) -> Answer:
        """Answer a request as the script says."""
        fault = self._fault()
        self.on_ask(body)
        if fault is not self._honest:
            self._tell(fault, body)
        return fault.answer(body)

    def _fault(self) -> Fault:
        with self._lock:
            at = time.monotonic() - self._began
            window = next((window for window in self._script if window.begins <= at < window.ends), None)
            if window is None:
                self._now = None
                return self._honest
            if self._now is None or self._now[0] != window:
                around = Surroundings(self.upstream, Random(window.seed), self._around.targets, self._around.healed)
                self._now = (window, window.fault(around))
            return self._now[1]

    def _tell(self, fault: Fault, body: bytes) -> None:
        with suppress(ValueError):
            asked = json.loads(body)
            methods = [call["method"] for call in (asked if isinstance(asked, list) else [asked])]
            at = time.monotonic() - self._began
            self.told.append(f"{at:.2f} {type(fault).__name__} {len(methods)} {methods[0]}")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:
                answer = node.respond(self.rfile.read(int(self.headers["Content-Length"])))
                if answer is RESET:
                    self._reset()
                    return
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[: answer.cut_to])
                if answer.cut_to is not None:
                    self.wfile.flush()
                    self._reset()

            def _reset(self) -> None:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETTING)

            def log_message(self, format: str, *args: object) -> None:
                """Keep requests out of the output."""

        return Handler


class Relay:
    """A port that leads to another place, for as long as both sides like."""

    def __init__(self, target_url: str, *, host: str = "127.0.0.1") -> None:
        place = urlsplit(target_url)
        self._target = (place.hostname or "127.0.0.1", place.port or 80)
        self._server = socket.create_server((host, 0))
        self.place = f"{host}:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        try:
            target = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        upwards, downwards = (
            threading.Thread(target=_pump, args=pair, daemon=True) for pair in ((client, target), (target, client))
        )
        upwards.start()
        downwards.start()
        self._until_over(upwards, downwards, target)
        for side in (client, target):
            _end(side, socket.SHUT_RDWR)
        for side in (client, target):
            side.close()

    def _until_over(self, upwards: threading.Thread, downwards: threading.Thread, target: socket.socket) -> None:
        """Return when the connection is to end."""
        downwards.join()


class DroppingSocket(Relay):
    """A WebSocket before the dev chain's, whose connections end within `every` seconds of their beginning, or hang.

    A hung one stays open and says nothing: to whoever reads it, it looks like a chain without blocks.
    """

    def __init__(self, chain_url: str, *, every: tuple[float, float]) -> None:
        self._every = every
        self._dice: Random | None = None
        super().__init__(chain_url)
        self.url = f"ws://{self.place}"

    def follow(self, dice: Random) -> None:
        """Drop connections that are made from now on."""
        self._dice = dice

    def heal(self) -> None:
        """Drop no more; those that hang end soon."""
        self._dice = None

    def _until_over(self, upwards: threading.Thread, downwards: threading.Thread, target: socket.socket) -> None:
        dice = self._dice
        downwards.join(None if dice is None else dice.uniform(*self._every))
        if dice is not None and dice.random() < 0.3:
            # The far side goes, and the client is not told.
            _end(target, socket.SHUT_RD)
            upwards.join(3 * self._every[1])


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        source.settimeout(None)
        while chunk := source.recv(2**16):
            sink.sendall(chunk)


def _end(side: socket.socket, how: int) -> None:
    with suppress(OSError):
        side.shutdown(how)
