"""The end of a request to somebody, by a clock."""

import math
import time
from collections.abc import Callable


class Overdue(TimeoutError):
    """No time is left for the next step: what came before it took all that the request may take."""


class TimeLimit:
    """Begins with its making. A socket's own timeout is no such thing: it begins anew with every byte."""

    def __init__(self, timeout_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.ends_at = clock() + timeout_s

    @property
    def is_over(self) -> bool:
        """True once nothing is left."""
        return self._clock() >= self.ends_at

    def left_s(self, most_s: float = math.inf) -> float:
        """Return for how long the next step may wait, `most_s` at the most. Raises Overdue where nothing is left."""
        left_s = self.ends_at - self._clock()
        if left_s <= 0:
            raise Overdue
        return min(most_s, left_s)
