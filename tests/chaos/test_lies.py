"""Two nodes that fail and lie, kills and reorgs, seed after seed: SEEDS=1,2 tells these, MINUTES=10 ends after that.

Without SEEDS they are 200 that follow on a number which is drawn and printed.
"""

import os
import random
import time
from itertools import islice

import pytest

from tests.chaos.lies import tell
from tests.chaos.town import Town

pytestmark = pytest.mark.chaos
SECONDS = 8.0
STORIES = 200


def _seeds() -> list[int]:
    named = [int(seed) for seed in os.environ.get("SEEDS", "").split(",") if seed.strip()]
    first = random.randrange(10**6)
    return named or list(range(first, first + STORIES))


@pytest.mark.timeout(0)
def test_every_deposit_is_credited_once_whatever_the_nodes_say(town: Town) -> None:
    minutes = float(os.environ.get("MINUTES") or 0)
    began, group, told, slowest = time.monotonic(), town.group("group"), 0, 0.0
    seeds = iter(_seeds())
    try:
        town.settle(group)
        while together := list(islice(seeds, len(town.streets))):
            print(f"seeds {together}", flush=True)  # noqa: T201
            stories = tell(town, group, together, seconds=SECONDS)
            told += len(stories)
            slowest = max(slowest, *(story.healed_after_s for story in stories))
            if minutes and time.monotonic() - began > 60 * minutes:
                break
    finally:
        group.kill()
    took_s = time.monotonic() - began
    print(f"{told} seeds in {took_s:.0f} s, the slowest healed after {slowest:.1f} s")  # noqa: T201
