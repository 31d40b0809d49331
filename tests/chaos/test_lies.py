"""Two nodes that fail and lie, kills and reorgs, seed after seed: SEEDS=1,2 tells these, MINUTES=10 ends after that.

Without SEEDS they are 200 that follow on a number which is drawn and printed.
"""

import os
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from redis import Redis

from ctrip.database.engine import Sessions
from tests.chaos.lies import tell
from tests.chaos.town import Town, build_town

pytestmark = pytest.mark.chaos
STREETS = 4
SECONDS = 8.0
STORIES = 200


@pytest.fixture
def town(
    sessions: Sessions, redis_client: Redis, postgres_url: str, redis_url: str, anvil_binary: Path, tmp_path: Path
) -> Iterator[Town]:
    with build_town(
        STREETS, anvil=anvil_binary, database_url=postgres_url, redis_url=redis_url, folder=tmp_path
    ) as town:
        yield town


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
        while together := list(islice(seeds, STREETS)):
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
