"""What the endpoints of a chain accept, learnt while they are asked."""

import threading
from collections.abc import Collection
from dataclasses import dataclass

from ctrip.domain.limits import START, Limits, fits, grow, learn, lighten

ANSWERS_BEFORE_MORE = 64
"""After a refusal: how many answers to the full limit it takes before more is tried again."""
REFUSED_S = 30.0
MOST_REFUSED_S = 600.0
"""How long a method that was refused is better asked of others: twice as long with each refusal in a row."""


class Learnt:
    """The limits of one endpoint, and the ways of tracing a block that it refuses. Threads may share it."""

    def __init__(self) -> None:
        self.limits = START
        self.traces = Refusals()
        self._answers_before_more = 0
        self._lock = threading.Lock()

    def adopt(self, limits: Limits) -> None:
        """Start from what was learnt before."""
        with self._lock:
            self.limits = limits

    def refused(self, code: int, text: str, *, asked: Limits) -> bool:
        """Learn from a refusal. Returns whether asking for less may help."""
        with self._lock:
            self._narrow(learn(self.limits, code, text, asked=asked))
            return not fits(asked, self.limits)

    def too_much(self, *, asked: Limits) -> None:
        """Learn from an answer that did not come in time."""
        with self._lock:
            self._narrow(lighten(self.limits, asked=asked))

    def accepted(self, *, asked: Limits) -> None:
        """Learn from an answer: where all that is allowed was asked for, more may be."""
        with self._lock:
            grown = grow(self.limits, asked=asked)
            if grown == self.limits:
                return
            if self._answers_before_more > 0:
                self._answers_before_more -= 1
            else:
                self.limits = grown

    def _narrow(self, limits: Limits) -> None:
        if limits != self.limits:
            self._answers_before_more = ANSWERS_BEFORE_MORE
        self.limits = limits


@dataclass
class _Refused:
    times: int = 0
    until: float = 0.0


class Refusals:
    """The methods that one endpoint refuses, whatever is asked: an older node, a smaller plan, a key that has ended.

    Times are seconds of one clock. Threads may share it.
    """

    def __init__(self) -> None:
        self._by_method: dict[str, _Refused] = {}
        self._lock = threading.Lock()

    def note(self, method: str, *, now: float) -> None:
        """Remember that a method was refused. Refusals of one moment count once."""
        with self._lock:
            refused = self._by_method.setdefault(method, _Refused())
            if now >= refused.until:
                refused.until = now + min(MOST_REFUSED_S, REFUSED_S * 2 ** min(refused.times, 10))
                refused.times += 1

    def forget(self, methods: Collection[str]) -> None:
        """Forget them: they were served."""
        with self._lock:
            for method in self._by_method.keys() & set(methods):
                del self._by_method[method]

    def has_any(self, methods: Collection[str], *, now: float) -> bool:
        """True where one of them was refused of late."""
        with self._lock:
            return any(now < self._by_method[method].until for method in methods if method in self._by_method)

    def __bool__(self) -> bool:
        return bool(self._by_method)
