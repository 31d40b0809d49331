"""How many calls in a second an endpoint is sent: all there are, until it says that they were too many."""

import math

MEMORY_S = 5.0
"""How far back calls count for the rate at which the endpoint had enough."""
LEAST = 1.0
MOST = 2000.0
"""Calls per second: below the one no budget is ever set, and above the other none is needed."""
STEP = 1.0
"""By how many calls per second the budget grows in each second that brings answers."""
LONGEST_WAIT_S = 2.0
"""A batch costs no more than this: reading a step takes several requests, and must end while its lease goes on."""
ONE_EVENT_S = 2.0
"""Refusals within this time are of requests that were under way together: they halve the budget once."""


class Budget:
    """A token bucket whose rate is halved by a refusal and grows by a little with each answer.

    Providers count calls, not requests, so a batch costs as many tokens as it has calls; it may be larger than what is
    left, and those after it wait. Times are seconds of one clock. Not for threads: the endpoint has the lock.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._tokens = 0.0
        self._seen_at = 0.0
        self._lately = 0.0
        self._grown_at = 0.0
        self._halved_at = -math.inf

    def wait_s(self, now: float) -> float:
        """Return how long to wait before the next request."""
        if self.rate is None:
            return 0.0
        self._pass(now)
        return max(0.0, -self._tokens / self.rate)

    def most_at_once(self) -> int | None:
        """Return how many calls a batch may have: those of a second; None where there is no limit.

        A provider that counts calls refuses a larger batch for ever, however long the pauses between them are.
        """
        return None if self.rate is None else max(1, int(self.rate))

    def spend(self, calls: int, *, now: float) -> None:
        """Count a request that is sent now."""
        self._pass(now)
        self._lately += calls
        if self.rate is not None:
            self._tokens = max(self._tokens - calls, -LONGEST_WAIT_S * self.rate)

    def halve(self, now: float) -> None:
        """Learn that the calls of late were too many."""
        self._pass(now)
        if now - self._halved_at < ONE_EVENT_S:
            return
        self._halved_at = self._grown_at = now
        lately = self._lately / MEMORY_S
        self.rate = max(LEAST, (lately if self.rate is None else min(self.rate, lately)) / 2)
        self._tokens = 0.0

    def grow(self, now: float) -> None:
        """Learn that calls were answered."""
        if self.rate is not None:
            self.rate += STEP * min(1.0, now - self._grown_at)
            if self.rate > MOST:
                self.rate = None
        self._grown_at = now

    def _pass(self, now: float) -> None:
        passed = max(0.0, now - self._seen_at)
        self._seen_at = now
        self._lately *= math.exp(-passed / MEMORY_S)
        # A second's worth may be saved up.
        self._tokens = 0.0 if self.rate is None else min(self.rate, self._tokens + passed * self.rate)
