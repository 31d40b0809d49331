"""What the endpoints of a chain accept, learnt while they are asked."""

import threading

from ctrip.domain.limits import START, Limits, fits, grow, learn, lighten

PATIENCE = 64
"""After a refusal: how many answers to the full limit it takes before more is tried again."""


class Learnt:
    """The limits of one endpoint, or of all that share a host. Threads may share it."""

    def __init__(self) -> None:
        self.limits = START
        self._patience = 0
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
            if self._patience > 0:
                self._patience -= 1
            else:
                self.limits = grown

    def _narrow(self, limits: Limits) -> None:
        if limits != self.limits:
            self._patience = PATIENCE
        self.limits = limits
