"""Payments created per second through the whole API, against Postgres alone running the same statement, and FastAPI.

pgbench, the API with one process and with two, and a FastAPI + asyncpg application that does the same work take turns
in this one run, with the same 16 keep-alive clients. Then the latency at half of what the API can do, and what a create
costs, layer by layer, and how long a payment and a page of them take among a million (`bench.lists`, also by itself).
Prints tables and, last, one line of JSON.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from bench import lists
from bench.api_world import World, running_world
from bench.costs import cpu_s

ROUNDS, ROUND_S, HALF_S = 3, 4.0, 10.0


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
        pages = lists.measure(world)
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
        **pages,
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


if __name__ == "__main__":
    main()
