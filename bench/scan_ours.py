"""cTrip's scanner in a process of its own, as the listener's worker runs it: the loop's runs, one after the other.

`python -m bench.scan_ours CHAIN_ID HEAD` reads the chain to block HEAD and prints one line of JSON.
"""

import json
import sys
import time

from bench.costs import peak_mb
from ctrip.bootstrap import bootstrap
from ctrip.context import Context
from ctrip.database import cursors
from ctrip.services.scanning import scan_chain
from ctrip.settings import Role

WITHIN_S = 120


def read_to(ctx: Context, chain_id: int, head: int) -> int:
    """Run the listener's loop until block `head` is read. Returns how many runs it took."""
    runs, until = 0, time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        tick = scan_chain(ctx, chain_id)
        runs += 1
        if tick.again_in is None:
            raise SystemExit(f"the loop of chain {chain_id} is not due, or another is at it")
        if tick.again_in:
            if read_block(ctx, chain_id) >= head:
                return runs
            time.sleep(tick.again_in.total_seconds())
    raise SystemExit(f"block {head} was not read within {WITHIN_S} s")


def read_block(ctx: Context, chain_id: int) -> int:
    """Return how far the chain was read."""
    with ctx.sessions.begin() as session:
        cursor = cursors.find(session, chain_id)
    return 0 if cursor is None else cursor.read_block


def main() -> None:
    chain_id, head = map(int, sys.argv[1:])
    ctx = bootstrap(Role.LISTENER)
    idle_mb = peak_mb()
    began, cpu = time.perf_counter(), time.process_time()
    runs = read_to(ctx, chain_id, head)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "rss_mb": peak_mb(), "idle_mb": idle_mb, "runs": runs}))


if __name__ == "__main__":
    main()
