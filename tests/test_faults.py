"""A short seed of each fault story; `make test-chaos` tells the long ones."""

import pytest

from tests.chaos.queue_faults import kill, redis_away, send_all_five_fold
from tests.chaos.story import Story
from tests.chaos.watch import LoopWatch
from tests.stack import RunningStack

pytestmark = pytest.mark.infra


def test_workers_killed_at_random_points_lose_and_double_nothing(stack: RunningStack) -> None:
    Story(stack, seed=1, payments=10, kills=4).live()


def test_a_redis_that_is_wiped_and_killed_and_a_node_that_falls_silent_lose_nothing(stack: RunningStack) -> None:
    faults = (Story.flush_redis, Story.kill_redis, Story.freeze_node)
    Story(stack, seed=2, payments=8, kills=0).live(*zip((2, 4, 6), faults, strict=True))


@pytest.mark.chaos  # its whole form is tests/chaos/test_queues.py
def test_five_fold_messages_and_a_redis_that_goes_away_double_no_run_and_no_webhook(stack: RunningStack) -> None:
    story = Story(stack, seed=4, payments=6, kills=0)
    with LoopWatch(stack) as watch:
        story.live(
            (1, send_all_five_fold),
            (2, kill("scheduler")),
            (3, Story.flush_redis),
            (4, redis_away(3)),
            (5, send_all_five_fold),
        )
        watch.check()
    assert set(story.posts.values()) == {1}
