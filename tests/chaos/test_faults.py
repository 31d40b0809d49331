"""The long fault stories: SEEDS=1,2,3 tells these seeds, MINUTES=10 as many as fit into the time."""

import os
import random
import time

import pytest

from tests.chaos.story import Story
from tests.stack import RunningStack

pytestmark = pytest.mark.chaos


def seeds() -> list[int]:
    """The seeds that were asked for, or one that is drawn and printed."""
    named = [int(seed) for seed in os.environ.get("SEEDS", "").split(",") if seed.strip()]
    return named or [random.randrange(10**6)]


def test_fifty_payments_survive_twenty_kills_a_wiped_redis_and_a_silent_node(stack: RunningStack) -> None:
    deadline = time.monotonic() + 60 * float(os.environ.get("MINUTES") or 0)
    told = list(seeds())
    while told:
        story = Story(stack, seed=told.pop(0), payments=50, kills=20)
        story.live((10, Story.flush_redis), (20, Story.kill_redis), (30, Story.freeze_node), (40, Story.flush_redis))
        if not told and time.monotonic() < deadline:
            told = [random.randrange(10**6)]
