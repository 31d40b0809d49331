"""Waiting on a condition with a deadline: the only way a test may wait."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], *, within_s: float, every_s: float = 0.05, what: str | Callable[[], str] = ""
) -> T:
    """Return the first truthy answer of `condition`; fail with `what` was waited for where none came in `within_s`."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            missed = what() if callable(what) else what or condition
            raise AssertionError(f"not within {within_s} s: {missed}; last answer: {answer!r}")
        pause.wait(every_s)
