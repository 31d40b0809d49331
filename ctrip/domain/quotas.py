"""How many requests a caller may send: so many in each window of time, counted from the hour."""

from dataclasses import dataclass
from enum import StrEnum

_MOST_AT_ONCE = 1000


class QuotaOf(StrEnum):
    """Whose requests a quota counts."""

    KEY = "key"
    ADDRESS = "address"


@dataclass(frozen=True)
class Quota:
    """`most` requests in each window of `window_s` seconds."""

    most: int
    window_s: int

    @property
    def at_once(self) -> int:
        """How many a process takes of it at once: a hundredth, which is as exact as it need be."""
        return min(_MOST_AT_ONCE, max(1, self.most // 100))


@dataclass(frozen=True)
class Spent:
    """How a caller stands after a request, which is one of the `count` of this window; it ends in `ends_in_s`."""

    of: QuotaOf
    quota: Quota
    count: int
    ends_in_s: int

    @property
    def is_over(self) -> bool:
        """True where that request was one too many."""
        return self.count > self.quota.most

    @property
    def left(self) -> int:
        """How many more this window has."""
        return max(0, self.quota.most - self.count)


def window_of(now_s: float, quota: Quota) -> tuple[int, int]:
    """Return the number of the window at a moment (seconds of the Unix epoch), and in how many seconds it ends.

    Windows are the same for everybody who counts, so one of them can be named, and its end be told without asking.
    """
    number, into_s = divmod(int(now_s), quota.window_s)
    return number, quota.window_s - into_s
