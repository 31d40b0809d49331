"""How fast and how heavy the whole stack is: creates per second, block to `detected` and to the webhook, memory.

Starts its own stack in a temporary folder, measures from outside as a client would, prints a table and, last, one line
of JSON. Block times are taken when the node first shows the block, so what is measured is cTrip's part alone.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import requests

from tests.shop import Shop
from tests.sink import Sink
from tests.waiting import wait_until

CLIENTS = 8
CREATE_FOR_S = 10.0
SAMPLES = 40
LOAD_PAYMENTS = 1000


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ctrip-bench-") as folder, running_stack(Path(folder)) as stack:
        shop = Shop(stack)
        idle = memory_mb(stack)
        detect, webhook = latencies(shop, stack)
        created, elapsed_s = create_payments(stack)
        while created < LOAD_PAYMENTS:
            more, _ = create_payments(stack)
            created += more
        loaded = memory_mb(stack)
    report = {
        "creates_per_s": round(created / elapsed_s if elapsed_s else 0, 1),
        "detect_p50_s": quantile(detect, 50),
        "detect_p95_s": quantile(detect, 95),
        "webhook_p50_s": quantile(webhook, 50),
        "webhook_p95_s": quantile(webhook, 95),
        "rss_mb": loaded,
    }
    print(f"{'payments created per second':<32}{report['creates_per_s']:>10}   {CLIENTS} keep-alive clients")
    print(f"{'block to `detected`, s':<32}{report['detect_p50_s']:>10}   p95 {report['detect_p95_s']}")
    print(f"{'block to the webhook, s':<32}{report['webhook_p50_s']:>10}   p95 {report['webhook_p95_s']}")
    for name in loaded:
        print(f"{'memory of ' + name + ', MB':<32}{loaded[name]:>10}   idle {idle[name]}")
    print(json.dumps(report))


@contextmanager
def running_stack(folder: Path) -> Iterator[dict[str, Any]]:
    """Run the local stack without its demo; yield stack.json."""
    environment = {**os.environ, "DATA_DIR": str(folder), "NO_DEMO": "1", "LOG_LEVEL": "WARNING"}
    with (folder / "stack.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "ctrip.local"], env=environment, stdout=log, stderr=log)
        try:
            file = folder / "stack.json"
            wait_until(lambda: file.exists() or process.poll() is not None, within_s=180, what="the stack is up")
            if process.poll() is not None:
                raise SystemExit((folder / "stack.log").read_text())
            yield json.loads(file.read_text())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def create_payments(stack: dict[str, Any]) -> tuple[int, float]:
    """Create payments from CLIENTS threads for CREATE_FOR_S; return how many, and in how many seconds."""
    url, deadline = f"{stack['api']}/api/v1/payments", time.monotonic() + CREATE_FOR_S

    def client(number: int) -> int:
        created = 0
        with requests.Session() as http:
            http.headers["Authorization"] = f"Bearer {stack['api_key']}"
            while time.monotonic() < deadline:
                body = {"chain": stack["chain"], "amount": "0.1", "order_id": f"bench-{number}-{created}"}
                answer = http.post(url, json=body, timeout=30)
                if answer.status_code != 201:
                    raise SystemExit(f"a create failed: {answer.status_code} {answer.text}")
                created += 1
        return created

    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        created = sum(pool.map(client, range(CLIENTS)))
    return created, time.monotonic() - began


def latencies(shop: Shop, stack: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Pay SAMPLES payments one by one; return the seconds from block to `detected` and from block to its webhook."""
    arrived: dict[str, float] = {}

    def note(received: Any) -> int:
        event = received.event
        if event["type"] == "payment.detected":
            arrived.setdefault(event["data"]["payment"]["id"], time.time())
        return 200

    with Sink(answer=note) as sink, block_times(shop) as seen:
        asked = []
        for _ in range(SAMPLES):
            payment = shop.ask("0.01", webhook_url=sink.url)
            shop.pay(payment)
            asked.append(payment["id"])
            wait_until(partial(arrived.get, payment["id"]), within_s=60, every_s=0.2, what="the webhook")
        detected = detection_times(stack, asked)
        blocks = {
            payment_id: seen[shop.get(f"/payments/{payment_id}/transfers")["data"][0]["block_number"]]
            for payment_id in asked
        }
    return (
        [detected[payment_id] - blocks[payment_id] for payment_id in asked],
        [arrived[payment_id] - blocks[payment_id] for payment_id in asked],
    )


@contextmanager
def block_times(shop: Shop) -> Iterator[dict[int, float]]:
    """Note when the node first shows each block, to 10 ms."""
    seen: dict[int, float] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen.setdefault(int(shop.rpc("eth_blockNumber"), 16), time.time())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def detection_times(stack: dict[str, Any], payment_ids: list[str]) -> dict[str, float]:
    """Return when `detected` was stored, by Postgres's clock, which is this machine's."""
    url = stack["database_url"].replace("postgresql+psycopg2://", "postgresql://")
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT payment_id, extract(epoch FROM created_at)::float8 FROM events"
            " WHERE type = 'payment.detected' AND payment_id = ANY(%s)",
            (payment_ids,),
        )
        return dict(cursor.fetchall())


def memory_mb(stack: dict[str, Any]) -> dict[str, float]:
    """Return the largest resident memory of one process in each process's tree, in MB."""
    return {name: max(map(resident_mb, tree(pid))) for name, pid in stack["pids"].items()}


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(descendant for child in children for descendant in tree(int(child)))]


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


def quantile(values: list[float], percent: int) -> float:
    """Return a percentile, to the millisecond."""
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 3)


if __name__ == "__main__":
    main()
