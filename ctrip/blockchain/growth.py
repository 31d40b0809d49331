"""Since when an endpoint has told of a head so new: what it made up of late, it has not told of for long."""

from collections import deque
from dataclasses import dataclass

from ctrip.domain.forks import MOST_PATIENCE
from ctrip.domain.scanning import Header

EVERY_S = 5.0
"""Moments that are nearer to each other are not told apart."""
_MOST_MOMENTS = int(MOST_PATIENCE.total_seconds() / EVERY_S) + 2
"""So many are remembered: a block of before them has been told of for longer than anybody waits."""
FORGOTTEN_S = 60.0
"""A head that it does not come back to for so long was none."""


@dataclass(frozen=True)
class Told:
    """The newest block that an endpoint told of: it was asked, and had answered, at these moments of the clock.

    At `grown_at` it was the first time that it told of one so new.
    """

    header: Header
    asked_at: float
    told_at: float
    grown_at: float


class Growth:
    """Its heads and the moments when they were told, in seconds of one clock."""

    def __init__(self) -> None:
        self.grown_at = 0.0
        """When it first told of one so new as the newest: an endpoint that goes back and forth does not grow."""
        self._newest = -1
        self._newest_at = 0.0
        self._reached = deque[tuple[int, float]](maxlen=_MOST_MOMENTS)
        """Numbers, and since when it has told of no head below them: both rise."""

    def note(self, number: int, *, at: float) -> None:
        """Note that it told of a head now."""
        self._note_newest(number, at=at)
        since, is_below = at, False
        while self._reached and self._reached[-1][0] >= number:
            since, is_below = self._reached.pop()[1], True
        if is_below or not self._reached or at - self._reached[-1][1] >= EVERY_S:
            self._reached.append((number, since))

    def told_for_s(self, number: int, *, now: float) -> float:
        """Return for how long it has told of a head at this number or beyond; 0 where that is not known."""
        return next((now - since for reached, since in self._reached if reached >= number), 0.0)

    def _note_newest(self, number: int, *, at: float) -> None:
        is_forgotten = at - self._newest_at > FORGOTTEN_S
        if number > self._newest or (is_forgotten and number < self._newest):
            self._newest, self.grown_at = number, at
        if number == self._newest:
            self._newest_at = at
