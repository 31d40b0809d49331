"""Loops and effects under everything that a queue can suffer, within two minutes: SEEDS=1,2,3 tells these seeds."""

import random
import time

import pytest

from tests.chaos.queue_faults import Fault, kill, redis_away, send_all_five_fold
from tests.chaos.story import Story
from tests.chaos.test_faults import seeds
from tests.chaos.watch import LoopWatch
from tests.stack import RunningStack

pytestmark = pytest.mark.chaos
FAULTS: tuple[Fault, ...] = (
    send_all_five_fold,
    kill("worker.listener"),
    kill("worker.sweeper"),
    kill("worker.webhook"),
    kill("scheduler"),
    kill("valkey"),
    Story.flush_redis,
    redis_away(8),
    send_all_five_fold,
)
ROUNDS = 2
PAYMENTS = 60
_CLAIMS = "SELECT event_id, fence - attempts FROM webhook_deliveries WHERE event_id = ANY(%s)"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", seeds())
def test_no_loop_runs_twice_at_once_none_dies_and_every_effect_happens_once(stack: RunningStack, seed: int) -> None:
    dice = random.Random(seed)
    order = [fault for _ in range(ROUNDS) for fault in dice.sample(FAULTS, len(FAULTS))]
    before = sorted(dice.sample(range(1, PAYMENTS), len(order)))
    story, began = Story(stack, seed=seed, payments=PAYMENTS, kills=0), time.monotonic()
    with LoopWatch(stack) as watch:
        story.live(*zip(before, order, strict=True))
        print(f"seed {seed}: {len(order)} faults and their repair took {time.monotonic() - began:.0f} s")  # noqa: T201
        watch.check()
        # A POST whose worker was killed before it could note it is made again, under the same webhook-id: a claim more.
        unended = dict(watch.ask(_CLAIMS, list(story.posts)))
        assert {event_id: count for event_id, count in story.posts.items() if count > 1 + unended[event_id]} == {}
