"""Keep-alive clients that create payments, each with a key of its own: as fast as they can, or at a rate.

At a rate, a request takes from the moment when it was due, whatever kept its client: no slow answer hides another one.
"""

import json
import socket
import sys
import threading
import time
from statistics import quantiles
from urllib.parse import urlsplit
from uuid import uuid4

_BODY = '{"chain":"anvil","amount":"0.015","order_id":"bench-%s","metadata":{"cart":"3 books"}}'
_READY_WITHIN_S = 60.0


class Client:
    """One connection that is kept."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"

    def create(self) -> int:
        """Create one payment; return the status of the answer."""
        key = uuid4().hex
        return self.send("POST /api/v1/payments", _BODY % key, idempotency_key=key)[0]

    def send(self, line: str, body: str = "", *, idempotency_key: str = "") -> tuple[int, bytes, bytes]:
        """Send a request, such as `GET /livez`; return the status, head and body of the answer. Raises OSError."""
        once = f"Idempotency-Key: {idempotency_key}\r\n" if idempotency_key else ""
        head = f"{line} HTTP/1.1\r\n{self._head}{once}Content-Length: {len(body)}\r\n\r\n"
        self._socket.sendall((head + body).encode())
        told = b""
        while b"\r\n\r\n" not in told:
            told += self._more()
        head_told, _, rest = told.partition(b"\r\n\r\n")
        length = int(head_told.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(rest) < length:
            rest += self._more()
        return int(told[9:12]), head_told, rest

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _more(self) -> bytes:
        more = self._socket.recv(65536)
        if not more:
            raise ConnectionResetError("the server closed the connection")
        return more


def main() -> None:
    url, key, clients, seconds, rate, wait = sys.argv[1:7]
    if wait:
        _wait(url, key)
    told = _load(url, key, clients=int(clients), seconds=float(seconds), rate=float(rate))
    print(json.dumps(told))


def _wait(url: str, key: str) -> None:
    """Wait until the server creates payments."""
    deadline, pause = time.monotonic() + _READY_WITHIN_S, threading.Event()
    while time.monotonic() < deadline:
        try:
            if Client(url, key).create() == 201:
                return
        except OSError:
            pass
        pause.wait(0.1)
    raise SystemExit(f"{url} created no payment within {_READY_WITHIN_S:.0f} s")


def _load(url: str, key: str, *, clients: int, seconds: float, rate: float) -> dict[str, object]:
    took: list[float] = []
    wrong: list[int] = []
    began = time.perf_counter()

    def work(number: int) -> None:
        client, turn = Client(url, key), number
        while (due := began + turn / rate if rate else time.perf_counter()) < began + seconds:
            turn += clients
            if (early_s := due - time.perf_counter()) > 0:
                time.sleep(early_s)
            status = client.create()
            took.append(time.perf_counter() - due)
            if status != 201:
                wrong.append(status)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_s = time.perf_counter() - began
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(took)} creates failed, first with {wrong[0]}")
    percent = [round(1000 * value, 1) for value in quantiles(took, n=100)]
    rates = {"per_s": round(len(took) / elapsed_s, 1), "asked_per_s": rate}
    return {"count": len(took), **rates, "p50_ms": percent[49], "p99_ms": percent[98]}


if __name__ == "__main__":
    main()
