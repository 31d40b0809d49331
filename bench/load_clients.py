"""A merchant's requests at a steady rate, whatever becomes of them: each takes from the moment when it was due.

So a stall delays all that fell due meanwhile, and is seen as often as it would have been. A thread takes the next
request that is due as soon as it is free: one slow answer keeps no other waiting while there are threads.
"""

import json
import sys
import threading
import time
from collections import defaultdict, deque
from itertools import count
from random import Random
from statistics import quantiles
from typing import Any

from bench.api_clients import Client

THREADS = 32
_MIX = {"create": 40, "get": 40, "list": 12, "find": 3, "replay": 5}
"""Of a hundred requests. `find` looks for one order; `replay` sends a create once more, as after a lost answer."""
_SOON, _LATER = 120, 1800
"""Seconds until a payment expires. Every fourth one does so within the run."""
_SLOWEST = 12
_PROBES_PER_S = 5.0


class Load:
    """What the threads share."""

    def __init__(self, urls: list[str], key: str, chain: str, *, rate: float, seconds: float) -> None:
        self._urls, self._key, self._chain = urls, key, chain
        self._rate, self._seconds = rate, seconds
        kinds = [kind for kind, share in _MIX.items() for _ in range(share)]
        self._kinds = Random(1).sample(kinds, len(kinds))
        self._turns, self._name = count(), f"load-{time.time_ns()}"
        self._made: deque[tuple[str, str]] = deque(maxlen=2_000)
        """Orders and payments that were made lately."""
        self.took_ms: defaultdict[str, list[float]] = defaultdict(list)
        self.late_ms: list[float] = []
        """How late a thread that waited for its request to be due sent it: that is this machine's, and not theirs."""
        self.probes_ms: list[float] = []
        """What a request takes that does nothing, sent beside the others: the part of the machine and of the server."""
        self.slowest: list[tuple[float, str, float, str]] = []
        self.wrong: list[str] = []

    def run(self) -> None:
        """Send every request, and wait until the last one is answered."""
        self._began = time.perf_counter()
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(THREADS)]
        threads.append(threading.Thread(target=self._probe))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, number: int) -> None:
        url, dice = self._urls[number % len(self._urls)], Random(number)
        client = Client(url, self._key)
        while (turn := next(self._turns)) < self._rate * self._seconds:
            due = self._began + turn / self._rate
            if (early_s := due - time.perf_counter()) > 0:
                time.sleep(early_s)
                self.late_ms.append(1000 * (time.perf_counter() - due))
            kind = self._kinds[turn % len(self._kinds)] if self._made else "create"
            try:
                self._send(client, kind, turn, due, dice)
            except OSError as error:
                self.wrong.append(f"{kind}: {error}")
                client = Client(url, self._key)
        client.close()

    def _probe(self) -> None:
        client = Client(self._urls[0], self._key)
        for turn in range(int(_PROBES_PER_S * self._seconds)):
            due = self._began + turn / _PROBES_PER_S
            time.sleep(max(due - time.perf_counter(), 0))
            client.send("GET /livez")
            self.probes_ms.append(1000 * (time.perf_counter() - due))
        client.close()

    def _send(self, client: Client, kind: str, turn: int, due: float, dice: Random) -> None:
        order, payment_id = dice.choice(self._made) if self._made else ("", "")
        if kind == "create":
            order = f"{self._name}-{turn}"
        line, wanted = {
            "get": (f"GET /api/v1/payments/{payment_id}", 200),
            "list": ("GET /api/v1/payments?limit=20", 200),
            "find": (f"GET /api/v1/payments?order_id={order}", 200),
        }.get(kind, ("POST /api/v1/payments", 201))
        body = self._body(order) if wanted == 201 else ""
        status, head, told = client.send(line, body, idempotency_key=order if body else "")
        took_ms = 1000 * (time.perf_counter() - due)
        self.took_ms[kind].append(took_ms)
        if status != wanted:
            self.wrong.append(f"{kind}: {status} {told[:200]!r}")
        elif kind == "create":
            self._made.append((order, json.loads(told)["id"]))
        self._note_slow(took_ms, kind, due - self._began, head)

    def _body(self, order: str) -> str:
        expires_in = _SOON if order.endswith(("0", "4", "8")) else _LATER
        asked: dict[str, Any] = {"chain": self._chain, "amount": "0.015", "order_id": order, "expires_in": expires_in}
        return json.dumps(asked | {"metadata": {"cart": "3 books"}})

    def _note_slow(self, took_ms: float, kind: str, at_s: float, head: bytes) -> None:
        """Remember the slowest, and how long the API itself says that it took for them."""
        if len(self.slowest) < _SLOWEST or took_ms > self.slowest[-1][0]:
            served = head.lower().partition(b"total;dur=")[2].split(b"\r\n")[0].decode()
            slowest = [*self.slowest, (took_ms, kind, at_s, served)]
            self.slowest = sorted(slowest, reverse=True)[:_SLOWEST]


def main() -> None:
    urls, key, chain, rate, seconds = sys.argv[1:6]
    load = Load(urls.split(","), key, chain, rate=float(rate), seconds=float(seconds))
    load.run()
    everything = [each for of_kind in load.took_ms.values() for each in of_kind]
    told = {
        "requests": len(everything),
        "errors": len(load.wrong),
        "wrong": load.wrong[:10],
        "all": summary(everything),
        "kinds": {kind: summary(load.took_ms[kind]) for kind in _MIX if load.took_ms[kind]},
        "late": summary(load.late_ms),
        "probes": summary(load.probes_ms),
        "slowest": [[round(took, 1), kind, round(at, 1), served] for took, kind, at, served in load.slowest],
    }
    print(json.dumps(told))


def summary(values_ms: list[float]) -> dict[str, float]:
    """Return how many there are, their median, their 99th percentile and the largest one."""
    percent = quantiles(values_ms, n=100, method="inclusive") if len(values_ms) > 1 else [*values_ms] * 100
    figures = {"p50": percent[49], "p99": percent[98], "max": max(values_ms)} if values_ms else {}
    return {"count": len(values_ms)} | {name: round(value, 1) for name, value in figures.items()}


if __name__ == "__main__":
    main()
