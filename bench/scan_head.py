"""What a head costs: CPU and requests for each block that arrives alone, and the CPU of six chains at once.

`python -m bench.scan_head ours NODE CHAIN_ID` and `… six CHAIN_ID…` are the listener's process. Beside them stand what
Postgres uses for the six chains, and what the same heads cost two others: `plain` is the scanner of web3.py, `bare` a
program that asks our two requests and builds Python's objects of the answers, and nothing else.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson
import urllib3
import yaml

from bench.costs import peak_mb
from bench.scan_blocks import FIRST_BLOCK, SyntheticChain
from bench.scan_bodies import LISTED
from bench.scan_node import Node
from bench.scan_ours import read_block
from bench.scan_plain import plain
from bench.scan_world import Place, World, chain_row, run, start_chains
from ctrip.bootstrap import bootstrap
from ctrip.services.scanning import scan_chain
from ctrip.settings import Role

PAID, ALONE, ADDRESSES = 3, 4, 3_000
BLOCKS, WARM = 60, 10
"""The first blocks make connections and fill caches, which a worker does once in its life."""
POLL_S = 0.1
SECONDS = 40
_SIX = {
    101: ("ethereum", 12),
    102: ("base", 2),
    103: ("optimism", 2),
    104: ("polygon", 2),
    105: ("bsc", 0.75),
    106: ("arbitrum", 0.25),
}
"""The seconds between two blocks of each chain."""
_QUIET = (ALONE, *_SIX)
_ROWS = {PAID: ("paid", POLL_S), ALONE: ("alone", POLL_S)} | {
    chain_id: (name, 1) for chain_id, (name, _) in _SIX.items()
}


def measure_heads(world: World) -> dict[str, float]:
    """Take all measures, on a database of their own."""
    place = Place(world, chain_id=PAID, count=ADDRESSES)
    quiet = [SyntheticChain(chain_id, world.bodies, payees=0) for chain_id in _QUIET]
    start_chains(place.engine, quiet)
    for chain_id in _QUIET:
        world.node.begin(chain_id, payees=0)
    environment = _environment(world, place)
    with_hits = _one("ours", world, PAID, environment)
    place.check(FIRST_BLOCK + 1, FIRST_BLOCK + BLOCKS)
    without = _one("ours", world, ALONE, environment)
    others = {what: _one(what, world, ALONE, environment)["cpu_ms"] for what in ("bare", "plain")}
    return {
        **{f"head_{name}": value for name, value in without.items()},
        **{f"head_{what}_cpu_ms": cpu_ms for what, cpu_ms in others.items()},
        **{f"head_3_hits_{name}": value for name, value in with_hits.items()},
        **_six(world, environment),
    }


def _environment(world: World, place: Place) -> dict[str, str]:
    rows = [
        chain_row(name, chain_id, world.node.url(chain_id), poll_s=poll_s) for chain_id, (name, poll_s) in _ROWS.items()
    ]
    file = world.folder / "heads.yaml"
    file.write_text(yaml.safe_dump({"chains": rows}))
    return world.environment(place.url, file)


def _one(what: str, world: World, chain_id: int, environment: dict[str, str]) -> dict[str, float]:
    """Let blocks arrive one by one."""
    told = run("bench.scan_head", what, world.node.port, chain_id, environment=environment)
    blocks = BLOCKS - WARM
    return {
        "cpu_ms": round(1000 * told["cpu_s"] / blocks, 2),
        "requests": round(told["requests"] / blocks, 2),
        "calls": round(told["calls"] / blocks, 2),
    }


def _six(world: World, environment: dict[str, str]) -> dict[str, float]:
    """Let six chains grow at their own pace, of blocks that pay nobody."""
    for chain_id, (_, every_s) in _SIX.items():
        world.node.set_head(chain_id, FIRST_BLOCK, every_s=every_s)
    used = world.postgres_cpu_s()
    told = run("bench.scan_head", "six", *_SIX, environment=environment)
    return {
        "six_chains_cpu_percent": round(100 * told["cpu_s"] / told["seconds"], 2),
        "six_chains_postgres_percent": round(100 * (world.postgres_cpu_s() - used) / told["seconds"], 2),
        "six_chains_blocks_per_s": round(told["blocks"] / told["seconds"], 2),
        "six_chains_rss_mb": told["rss_mb"],
    }


# --- the listener's process -----------------------------------------------------------------------------------------


def main() -> None:
    what, *arguments = sys.argv[1:]
    told = _growing(*map(int, arguments)) if what == "six" else _arriving(what, *map(int, arguments))
    print(json.dumps(told))


def _arriving(what: str, port: int, chain_id: int) -> dict[str, Any]:
    node, cpu_s = Node(port), 0.0
    read = {"ours": _ours, "bare": _bare, "plain": _plain}[what](node.url(chain_id), chain_id)
    for number in range(FIRST_BLOCK + 1, FIRST_BLOCK + 1 + BLOCKS):
        if number == FIRST_BLOCK + 1 + WARM:
            cpu_s = 0.0
            node.asked(chain_id)
        node.set_head(chain_id, number)
        cpu_s += read(number)
    asked = node.asked(chain_id)
    return {"cpu_s": cpu_s, "requests": asked.requests, "calls": asked.calls}


def _ours(_: str, chain_id: int) -> Callable[[int], float]:
    """Return what reads a head by the listener's loop, and says how many seconds of CPU it took."""
    ctx = bootstrap(Role.LISTENER)

    def read(number: int) -> float:
        cpu_s = 0.0
        while read_block(ctx, chain_id) < number:
            began = time.process_time()
            tick = scan_chain(ctx, chain_id)
            cpu_s += time.process_time() - began
            time.sleep(tick.again_in.total_seconds() if tick.again_in else 0.01)
        return cpu_s

    return read


def _plain(url: str, _: int) -> Callable[[int], float]:
    return _paced(lambda number: plain(url, [number], set()))


def _bare(url: str, _: int) -> Callable[[int], float]:
    pool = urllib3.PoolManager()

    def results(*calls: tuple[str, list[object]]) -> list[Any]:
        asked = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(calls)
        ]
        answer = pool.request("POST", url, body=orjson.dumps(asked), headers={"Content-Type": "application/json"})
        return [reply["result"] for reply in orjson.loads(answer.data)]

    def read(number: int) -> None:
        latest, block = ("eth_getBlockByNumber", ["latest", False]), ("eth_getBlockByNumber", [hex(number), True])
        block_hash = results(latest, block)[1]["hash"]
        results(("eth_getLogs", [{"blockHash": block_hash, "address": list(LISTED)}]))

    return _paced(read)


def _paced(read: Callable[[int], object]) -> Callable[[int], float]:
    """Rest before each head as long as our loop does: a program that was idle has cold caches."""

    def timed(number: int) -> float:
        time.sleep(POLL_S)
        began = time.process_time()
        read(number)
        return time.process_time() - began

    return timed


def _growing(*chain_ids: int) -> dict[str, Any]:
    ctx = bootstrap(Role.LISTENER)
    over, at_head = threading.Event(), threading.Semaphore(0)

    def listen(chain_id: int) -> None:
        is_new = True
        while not over.is_set():
            tick = scan_chain(ctx, chain_id)
            if is_new and tick.again_in:
                at_head.release()
                is_new = False
            over.wait(tick.again_in.total_seconds() if tick.again_in is not None else 0.01)

    threads = [threading.Thread(target=listen, args=(chain_id,)) for chain_id in chain_ids]
    for thread in threads:
        thread.start()
    for _ in threads:
        at_head.acquire()
    time.sleep(2)  # each has read some heads: there are connections and full caches now
    before = sum(read_block(ctx, chain_id) for chain_id in chain_ids)
    began, cpu = time.perf_counter(), time.process_time()
    time.sleep(SECONDS)
    cpu_s, elapsed_s = time.process_time() - cpu, time.perf_counter() - began
    blocks = sum(read_block(ctx, chain_id) for chain_id in chain_ids) - before
    over.set()
    for thread in threads:
        thread.join()
    return {"cpu_s": cpu_s, "seconds": elapsed_s, "blocks": blocks, "rss_mb": peak_mb()}


if __name__ == "__main__":
    main()
