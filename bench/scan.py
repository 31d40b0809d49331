"""The scanner end to end against the plain per-block one of web3.py, and against the limit; then what a head costs.

Both read the same synthetic node, whose blocks are of mainnet's size, in turns of this one run, so that the machine's
other work hits both. What is found is compared row by row with what was planted. Prints a table and, last, one line of
JSON.
"""

import json
import statistics
from dataclasses import dataclass, field
from typing import Any

from bench.scan_blocks import FIRST_BLOCK
from bench.scan_head import measure_heads
from bench.scan_world import Place, World, run, running_world
from bench.storing import measure as measure_storing

ROUNDS = 3
PAYS_EVERY = 16
"""One block in so many pays us, three times: 94 payments a second, where 500 blocks are read in one."""
FEW, MANY = 1_000, 1_000_000
LATENCY_MS = 50
OURS, PLAIN, PLAIN_LATE, LIMIT = 4_000, 60, 30, 300
"""How many blocks each reads in a round. The plain one is given fewer: it takes no longer by the end than it begins."""


@dataclass
class Case:
    """One line of the table: addresses and latency, and what each round measured in blocks per second."""

    place: Place
    latency_ms: int
    ours: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    rss_mb: float = 0.0
    plain_rss_mb: float = 0.0

    @property
    def ratio(self) -> float:
        """How many times the plain scanner ours is: the median of the rounds."""
        return round(statistics.median(ours / plain for ours, plain in zip(self.ours, self.plain, strict=True)), 1)


def main() -> None:
    print("Postgres, a million addresses, then the rounds: about ten minutes.", flush=True)
    with running_world() as world:
        few = Place(world, chain_id=1, count=FEW, pays_every=PAYS_EVERY)
        many = Place(world, chain_id=2, count=MANY, pays_every=PAYS_EVERY)
        cases = [Case(place, latency_ms) for latency_ms in (0, LATENCY_MS) for place in (few, many)]
        limits: list[float] = []
        for number in range(1, ROUNDS + 1):
            for case in cases:
                _measure(world, case)
            limits.append(_limit(world, few))
            told = ", ".join(f"{case.ours[-1]:.0f} : {case.plain[-1]:.1f}" for case in cases)
            print(f"round {number} of {ROUNDS}, blocks per second, ours : plain: {told}", flush=True)
        heads = measure_heads(world)
    storing = measure_storing()
    limit = round(statistics.median(limits), 1)
    _print(cases, limit)
    print()
    for name, value in {**heads, **storing}.items():
        print(f"{name:<44}{value:>12}")
    few_now, many_now, few_late, many_late = cases
    report = {
        "ratio_1k": few_now.ratio,
        "ratio_1m": many_now.ratio,
        "ratio_1k_50ms": few_late.ratio,
        "ratio_1m_50ms": many_late.ratio,
        "blocks_per_s_1m": round(statistics.median(many_now.ours), 1),
        "rss_mb_1k": max(few_now.rss_mb, few_late.rss_mb),
        "rss_mb_1m": max(many_now.rss_mb, many_late.rss_mb),
        "limit_blocks_per_s": limit,
        **heads,
        **storing,
    }
    print(json.dumps(report))


def _measure(world: World, case: Case) -> None:
    """Let the plain scanner and ours read, one after the other."""
    place, latency_ms = case.place, case.latency_ms
    plain = _plain(world, place, blocks=PLAIN_LATE if latency_ms else PLAIN, latency_ms=latency_ms)
    case.plain.append(plain["blocks_per_s"])
    case.plain_rss_mb = max(case.plain_rss_mb, plain["rss_mb"])
    ours = place.scan(OURS, latency_ms=latency_ms)
    case.ours.append(OURS / ours["seconds"])
    case.rss_mb = max(case.rss_mb, ours["rss_mb"])


def _plain(world: World, place: Place, *, blocks: int, latency_ms: int) -> dict[str, Any]:
    world.node.set_head(place.chain_id, FIRST_BLOCK + max(blocks, place.read_block - FIRST_BLOCK))
    url = world.node.url(place.chain_id, latency_ms=latency_ms)
    told = run("bench.scan_plain", "plain", url, FIRST_BLOCK + 1, FIRST_BLOCK + blocks, place.count)
    planted = {
        (paid.block_number, paid.tx_hash.hex(), paid.log_index, paid.recipient.hex(), paid.amount)
        for number in range(FIRST_BLOCK + 1, FIRST_BLOCK + blocks + 1)
        for paid in place.chain.paid(number)
    }
    if {tuple(row) for row in told["found"]} != planted or len(told["found"]) != len(planted):
        raise SystemExit("the plain scanner found other payments than were planted")
    return {**told, "blocks_per_s": blocks / told["seconds"]}


def _limit(world: World, place: Place) -> float:
    told = run("bench.scan_plain", "limit", world.node.url(place.chain_id), FIRST_BLOCK + 1, FIRST_BLOCK + LIMIT, 0)
    return float(LIMIT / told["seconds"])


def _print(cases: list[Case], limit: float) -> None:
    heads = ("addresses", "latency", "plain", "ours", "ratio", "of limit", "MB plain", "MB ours")
    print("".join(f"{head:>10}" for head in heads))
    for case in cases:
        plain, ours = statistics.median(case.plain), statistics.median(case.ours)
        print(
            f"{case.place.count:>10,}{case.latency_ms:>7} ms{plain:>10.1f}{ours:>10.1f}{case.ratio:>10}"
            f"{ours / limit:>10.2f}{case.plain_rss_mb:>10.0f}{case.rss_mb:>10.0f}"
        )
    print(f"blocks per second, MB; medians of {ROUNDS} rounds. The limit: the same bytes and orjson.loads, {limit}")


if __name__ == "__main__":
    main()
