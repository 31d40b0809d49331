"""Stories of deposits told side by side, one on each street of a town, while the group that reads them is killed."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ctrip.services.audit import audit
from tests.chaos.deposits import HEALED_WITHIN_S, Deposits
from tests.chaos.town import Group, Town
from tests.conftest import MERCHANT_ID
from tests.waiting import wait_until

_BETWEEN_KILLS_S = 2.0
"""A group that was killed gets so long to come up: it must get a word in."""


def tell(town: Town, group: Group, seeds: Sequence[int], *, seconds: float) -> list[Deposits]:
    """Tell a story for each seed, all at once, and judge them. Fails with the script of each seed that went wrong."""
    stories = [
        Deposits(town, street, seed, seconds, MERCHANT_ID) for street, seed in zip(town.streets, seeds, strict=False)
    ]
    with ThreadPoolExecutor(len(stories)) as pool:
        running = [pool.submit(story.live) for story in stories]
        _keep_and_kill(group, running, kills_at=sorted(at for story in stories for at in story.kills_at))
    failed = [_judged(story, ended) for story, ended in zip(stories, running, strict=True)]
    assert not any(failed), "\n\n".join(filter(None, failed))
    violations = audit(town.ctx)
    assert violations == [], "\n\n".join([str(violations), *(story.script() for story in stories)])
    return stories


def _keep_and_kill(group: Group, running: Sequence[Future[None]], *, kills_at: list[float]) -> None:
    began, killed_at = time.monotonic(), 0.0

    def are_over() -> bool:
        nonlocal killed_at
        at = time.monotonic() - began
        if kills_at and at >= kills_at[0]:
            del kills_at[0]
            if at - killed_at >= _BETWEEN_KILLS_S:
                group.kill("worker")
                killed_at = at
        group.keep()
        return all(future.done() for future in running)

    wait_until(are_over, within_s=10 * HEALED_WITHIN_S, every_s=0.05, what="the stories end")


def _judged(story: Deposits, ended: Future[None]) -> str:
    """What went wrong with a story, empty where nothing did."""
    error = ended.exception()
    wrong = [f"{type(error).__name__}: {error}"] if error is not None else []
    wrong += _said(story.false_credits)
    return "" if not wrong else "\n".join([*wrong, story.script()])


def _said(judge: Callable[[], list[str]]) -> list[str]:
    return [f"FALSE CREDIT: {sentence}" for sentence in judge()]
