"""A hundred requests a second for ten minutes, open loop, through two processes of the API, with all else at work.

The whole stack runs on a dev chain: listener, sweeper, webhooks to an endpoint that hears of everything, scheduler,
and somebody who scrapes the metrics. A payment is really paid every two seconds, and every fourth of the others
expires. `MINUTES=1` makes it shorter. Prints a table and, last, one line of JSON.

Promised are p99 <= 50 ms from the moment when a request was due, no error, and flat memory: from the middle to the end
no process of ours grows by more than a twentieth, or by 4 MB where that is more.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from bench.costs import cpu_s
from bench.smoke import resident_mb, running_stack, tree
from tests.shop import Shop
from tests.sink import Sink
from tests.waiting import wait_until

RATE = 100.0
WARM_UP_S = 10.0
PAY_EVERY_S, SCRAPE_EVERY_S = 2.0, 15.0
MOST_P99_MS, MOST_GROWTH, MOST_GROWTH_MB = 50.0, 0.05, 4.0
SETTLED_WITHIN_S = 120
_SETTINGS = {"API_PROCESSES": "2", "MAX_OPEN_PAYMENTS": "1000000"}
_PARTS = ("postgres", "valkey", "anvil")


def main() -> None:
    seconds = 60 * float(os.environ.get("MINUTES") or 10)
    os.environ |= _SETTINGS
    with (
        tempfile.TemporaryDirectory(prefix="ctrip-load-") as folder,
        running_stack(Path(folder)) as stack,
        Sink() as sink,
    ):
        subscribe(stack, sink.url)
        send(stack, seconds=WARM_UP_S)
        with paying(stack) as paid, scraping(stack):
            seen = Watch(stack, seconds)
            told = send(stack, seconds=seconds)
            seen.take()
        unsettled = wait_settled(stack, paid)
        webhooks = len(sink.received)
    report(told, seen, paid=len(paid), unsettled=unsettled, webhooks=webhooks)


class Watch:
    """Memory at the beginning, in the middle and in the end, and the CPU in between, of every process."""

    def __init__(self, stack: dict[str, Any], seconds: float) -> None:
        self._pids: dict[str, int] = stack["pids"] | stack["parts"]
        self.rss_mb: list[dict[str, float]] = []
        self._began, self._cpu_s, self._machine = time.monotonic(), self._costs(), _machine()
        self.take()
        self._middle = threading.Timer(seconds / 2, self.take)
        self._middle.daemon = True
        self._middle.start()

    def take(self) -> None:
        """Look at the memory, of each process that of the largest one below its master, and at the CPU since then."""
        self.rss_mb.append({name: max(map(resident_mb, tree(pid))) for name, pid in self._pids.items()})
        passed_s, now = max(time.monotonic() - self._began, 0.001), self._costs()
        self.cpu_percent = {name: round(100 * (now[name] - self._cpu_s[name]) / passed_s, 1) for name in self._pids}
        idle, every = (later - first for later, first in zip(_machine(), self._machine, strict=True))
        self.busy_percent = round(100 * (1 - idle / max(every, 1)), 1)

    def growing(self) -> list[str]:
        """The processes of ours whose memory is not flat."""
        _, middle, end = self.rss_mb
        ours = [name for name in middle if name not in _PARTS]
        return [name for name in ours if end[name] - middle[name] > max(MOST_GROWTH * middle[name], MOST_GROWTH_MB)]

    def _costs(self) -> dict[str, float]:
        return {name: cpu_s(pid) for name, pid in self._pids.items()}


def _machine() -> tuple[int, int]:
    """Return the ticks in which the machine's cores were idle, and all of them (proc(5), /proc/stat)."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def subscribe(stack: dict[str, Any], url: str) -> None:
    """Let an endpoint hear of every event."""
    answer = requests.post(
        f"{stack['api']}/api/v1/webhook_endpoints",
        json={"url": url, "events": ["*"]},
        headers={"Authorization": f"Bearer {stack['api_key']}"},
        timeout=10,
    )
    if answer.status_code != 201:
        raise SystemExit(answer.text)


def send(stack: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    """Send the requests from a process of their own; return what it tells."""
    arguments = [",".join(stack["apis"]), stack["api_key"], stack["chain"], str(RATE), str(seconds)]
    command = [sys.executable, "-m", "bench.load_clients", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr[-4000:])
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextmanager
def paying(stack: dict[str, Any]) -> Iterator[list[str]]:
    """Ask for payments and pay them, one after the other; yield the ids of those that are paid."""
    paid: list[str] = []
    shop = Shop(stack)

    def pay() -> None:
        payment = shop.ask("0.01")
        shop.pay(payment)
        paid.append(payment["id"])

    with _every(PAY_EVERY_S, pay):
        yield paid


@contextmanager
def scraping(stack: dict[str, Any]) -> Iterator[None]:
    """Read every page of metrics, as Prometheus does."""
    pages = sorted(set(stack["metrics"].values()))

    def scrape() -> None:
        for page in pages:
            requests.get(page, timeout=10).raise_for_status()

    with _every(SCRAPE_EVERY_S, scrape):
        yield


@contextmanager
def _every(seconds: float, act: Any) -> Iterator[None]:
    over, failed = threading.Event(), list[Exception]()

    def go_on() -> None:
        try:
            while not over.wait(seconds):
                act()
        except (requests.RequestException, AssertionError) as error:
            failed.append(error)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failed:
        raise SystemExit(f"beside the load, something failed: {failed[0]}")


def wait_settled(stack: dict[str, Any], paid: list[str]) -> list[str]:
    """Wait until all that was paid is settled; return what is not."""
    shop = Shop(stack)

    def unsettled() -> list[str]:
        return [each for each in paid if shop.payment(each)["status"] != "settled"]

    deadline = time.monotonic() + SETTLED_WITHIN_S
    wait_until(lambda: time.monotonic() > deadline or not unsettled(), within_s=SETTLED_WITHIN_S + 60, every_s=1)
    return unsettled()


def report(told: dict[str, Any], seen: Watch, *, paid: int, unsettled: list[str], webhooks: int) -> None:
    beside = {"sent late by": told["late"], "/livez, beside": told["probes"]}
    for name, of in {"all requests": told["all"], **told["kinds"], **beside}.items():
        print(f"{name:<16}{of['count']:>8}   p50 {of['p50']:>7} ms   p99 {of['p99']:>7} ms   max {of['max']:>7} ms")
    print(f"\n{'':<18}{'MB at first':>12}{'half-way':>10}{'at last':>10}{'CPU, % of a core':>18}")
    first, middle, last = seen.rss_mb
    for name, cpu_percent in seen.cpu_percent.items():
        print(f"{name:<18}{first[name]:>12}{middle[name]:>10}{last[name]:>10}{cpu_percent:>18}")
    print(f"\nthe machine's cores were busy for {seen.busy_percent} % of the time, whoever it was")
    print(f"paid {paid}, not settled in the end {len(unsettled)}; {webhooks} webhooks came")
    for took_ms, kind, at_s, served_ms in told["slowest"]:
        print(f"  {took_ms:>8} ms  {kind:<8} at {at_s:>6} s; the API says that it took {served_ms} ms", file=sys.stderr)
    for wrong in told["wrong"]:
        print(f"  {wrong}", file=sys.stderr)
    growing, p99_ms, errors = seen.growing(), told["all"]["p99"], told["errors"] + len(unsettled)
    is_kept = p99_ms <= MOST_P99_MS and errors == 0 and not growing
    print(f"{'kept' if is_kept else 'NOT KEPT'}: p99 <= {MOST_P99_MS:.0f} ms, no error, flat memory{_told(growing)}")
    figures = {
        "p50_ms": told["all"]["p50"],
        "p99_ms": p99_ms,
        "max_ms": told["all"]["max"],
        "late_p99_ms": told["late"]["p99"],
        "livez_p99_ms": told["probes"]["p99"],
        "busy_percent": seen.busy_percent,
        "errors": errors,
        "requests": told["requests"],
        "rss_mb": {name: [each[name] for each in seen.rss_mb] for name in first},
        "cpu_percent": seen.cpu_percent,
        "is_kept": is_kept,
    }
    print(json.dumps(figures))


def _told(growing: list[str]) -> str:
    return f" ({', '.join(growing)} grew)" if growing else ""


if __name__ == "__main__":
    main()
