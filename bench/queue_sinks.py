"""Webhook receivers on loopback, as many as wanted: those that answer at once, and those that never do."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class Sinks:
    """`quick` and `mute` are their URLs; `arrived` tells each webhook-id that came, and when (time.time())."""

    quick: list[str] = field(default_factory=list)
    mute: list[str] = field(default_factory=list)
    arrived: list[tuple[str, float]] = field(default_factory=list)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            pairs = (line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            headers = {name.lower(): value for name, value in pairs}
            await reader.readexactly(int(headers["content-length"]))
            self.arrived.append((headers["webhook-id"], time.time()))
            writer.write(_ANSWER)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            pass
        finally:
            writer.close()


@contextmanager
def sinks(*, quick: int, mute: int) -> Iterator[Sinks]:
    """Serve them, each on a port of its own and so of another origin, from one thread."""
    made, loop, is_up = Sinks(), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        for urls, count, answer in ((made.quick, quick, made.take), (made.mute, mute, made.hold)):
            for _ in range(count):
                server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=256)
                urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook")
        is_up.set()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    if not is_up.wait(10):
        raise SystemExit("the sinks did not come up")
    yield made
    loop.call_soon_threadsafe(loop.stop)
