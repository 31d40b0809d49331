"""When an endpoint may be asked, and for how many calls at once: what its rate limits allow.

limited     it is left alone for as long as it says, and asked for less from then on
answered    the budget grows
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ctrip.blockchain.budget import Budget
from ctrip.blockchain.transport import RAW, TIMEOUT_S, Clock, Form, RateLimited

PAUSE_S = 1.0
MOST_GUESSED_S = 30.0
"""How long an endpoint that limits the rate is left alone where it does not say: twice as long each time in a row."""
MOST_ALONE_S = 120.0
"""How long at the most where it does say, and there is no other endpoint to ask."""
MOST_S = 3600.0
"""How long where there is one."""
SHORT_S = 2.0
"""A pause that is waited for by whoever would have to begin again elsewhere."""
MOST_IN_A_ROW = 3
"""How often a request that the rate limits refuse is sent again by whoever would have to begin again elsewhere."""
CALLS_EACH = 2.5
"""How many calls in a second each of several threads must have."""
MOMENT_S = 0.001


@dataclass(frozen=True)
class Manner:
    """How an endpoint is asked, and in which form it answers. `keep_lease` is called after each request, and may raise.

    `is_bound`: nobody else is asked instead, so a short pause of its rate limits is waited for.
    """

    keep_lease: Callable[[], None] = lambda: None
    is_bound: bool = False
    form: Form = RAW


PLAIN = Manner()


class Turns:
    """The rate limits of one endpoint, of which `label` may be shown. Threads may share it."""

    def __init__(self, label: str, *, clock: Clock, pause: Callable[[float], None]) -> None:
        self._label = label
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._budget = Budget()
        self._pauses = 0
        self._barred_until = self._unwelcome_until = 0.0

    @property
    def is_unwelcome(self) -> bool:
        """True while the endpoint asked to be left alone for long: another one is to be asked, where there is one."""
        return self._clock() < self._unwelcome_until

    def wait_s(self) -> float:
        """Return how long the endpoint cannot be asked."""
        with self._lock:
            return max(0.0, self._wait_s(self._clock()))

    def most_at_once(self, most: int) -> int:
        """Return how many calls a batch may have, `most` at the most."""
        with self._lock:
            allowed = self._budget.most_at_once()
        return most if allowed is None else min(most, allowed)

    def at_once(self, most: int) -> int:
        """Return how many threads may ask at once: each of them must get on, or none comes to its end."""
        with self._lock:
            rate = self._budget.rate
        return most if rate is None else max(1, min(most, int(rate / CALLS_EACH)))

    def wait(self, calls: int) -> None:
        """Wait until a request may go out, and count its calls.

        Raises RateLimited where that is longer than a request may take.
        """
        deadline = self._clock() + TIMEOUT_S
        while True:
            with self._lock:
                now = self._clock()
                wait_s = self._wait_s(now)
                if wait_s <= MOMENT_S:
                    self._budget.spend(calls, now=now)
                    return
            if now + wait_s > deadline:
                raise RateLimited(f"{self._label} is left alone for {wait_s:.0f} s: it limits the rate", wait_s=wait_s)
            self._pause(wait_s)

    def limited(self, told_s: float | None) -> tuple[float, float | None]:
        """Leave the endpoint alone for as long as it told, and send less from then on.

        Returns for how many seconds, and how many calls per second it may have afterwards.
        """
        with self._lock:
            now = self._clock()
            wait_s = (
                min(MOST_GUESSED_S, PAUSE_S * 2 ** min(self._pauses, 10)) if told_s is None else min(MOST_S, told_s)
            )
            if now >= self._barred_until:
                self._pauses += 1
            self._budget.halve(now)
            self._barred_until = max(self._barred_until, now + min(MOST_ALONE_S, wait_s))
            if wait_s > MOST_ALONE_S:
                self._unwelcome_until = max(self._unwelcome_until, now + wait_s)
            return wait_s, self._budget.rate

    def answered(self) -> None:
        """Learn that it answered."""
        with self._lock:
            self._pauses = 0
            self._budget.grow(self._clock())

    def _wait_s(self, now: float) -> float:
        return max(self._barred_until - now, self._budget.wait_s(now))
