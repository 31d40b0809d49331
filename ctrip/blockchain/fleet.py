"""How the endpoints of a chain stand to each other: whose turn it is, and who lags.

Asked first is, in this order: who does not rest, serves the methods that are needed, may be asked at once, did not fail
last, is not behind the others, is not much slower than another; and among those the first one of the configuration.
"""

import threading
import time
from collections.abc import Collection, Sequence

from ctrip.blockchain.endpoint import Endpoint
from ctrip.blockchain.growth import Told
from ctrip.blockchain.transport import Clock
from ctrip.domain.scanning import Header
from ctrip.errors import ChainError

READING = ("eth_getBlockByNumber", "eth_getLogs", "eth_getTransactionReceipt")
"""What reading blocks takes: an endpoint that refuses one of these does not do."""
BALANCES = ("eth_getBlockByNumber", "eth_getBalance")
"""What looking at balances takes."""
LAG_BLOCKS = 3
LAG_S = 3.0
"""An endpoint is behind where its newest block is more than so many blocks, and so many seconds, before another's."""
LASTING_S = 10.0
"""A lag lasts that was there so long before as well, by two surveys at the least."""
AT_ONCE_S = 2.0
"""Heads that were told within this time can be compared."""
SLOW_S = 1.0
SLOWER = 4.0
"""An endpoint is slow that takes longer than this to tell its head, and so many times longer than another."""
SURVEY_EVERY_S = 15.0
SURVEY_WAIT_S = 1.0
"""How long a survey keeps its caller; endpoints that need longer are remembered when they answer."""
MAX_SURVEYED = 8
STUCK_S = 3.0
STUCK_INTERVALS = 3
"""Heads that did not grow for so long, and for so many times the time between two blocks, call for a survey at once."""


class Fleet:
    """The endpoints of one chain in order of preference, compared with each other. Threads may share it."""

    def __init__(self, endpoints: Sequence[Endpoint], *, clock: Clock) -> None:
        self._endpoints = tuple(endpoints)
        self._clock = clock
        self._lock = threading.Lock()
        self._surveyed_at: float | None = None
        self._behind_with: dict[Endpoint, Told] = {}
        """What an endpoint told when it was found to be behind the others."""
        self._lags_since: dict[Endpoint, float] = {}
        self._best = 0
        self._best_time = self._grown_at = self._interval_s = 0.0

    def ranked(self, endpoints: Collection[Endpoint], *, needs: Collection[str]) -> list[Endpoint]:
        """Return endpoints, the best one first for work that needs these methods."""
        self._compare()
        return sorted(endpoints, key=lambda endpoint: self._rank(endpoint, needs))

    def _rank(self, endpoint: Endpoint, needs: Collection[str]) -> tuple[bool, bool, float, bool, bool, bool, int]:
        return (
            endpoint.is_away,
            endpoint.refuses(needs),
            endpoint.wait_s(),
            endpoint.is_suspect,
            self._is_behind(endpoint),
            self._is_slow(endpoint),
            self._endpoints.index(endpoint),
        )

    def _compare(self) -> None:
        """Find out who is behind, and stays so until it tells again: what others tell later says nothing of it."""
        with self._lock:
            for endpoint in self._endpoints:
                mine = endpoint.head
                if mine is not None and not self._is_behind(endpoint) and self._lags(endpoint, mine):
                    self._behind_with[endpoint] = mine

    def _is_behind(self, endpoint: Endpoint) -> bool:
        return endpoint.head is not None and endpoint.head is self._behind_with.get(endpoint)

    def _lags(self, endpoint: Endpoint, mine: Told) -> bool:
        """True where it told its head no earlier than most others, two at the least, a much newer block.

        One alone may have made up its block, so the word of one does only where this one's own head stands still, or
        where nobody else tells of any and the lag lasts.
        """
        others = [other.head for other in self._endpoints if other is not endpoint and not other.is_resting]
        told = [other for other in others if other is not None]
        ahead = sum(_is_ahead(other, mine) for other in told)
        if ahead == 0:
            # Not to be behind what others told much earlier or later says nothing.
            if not told or any(abs(other.told_at - mine.asked_at) <= AT_ONCE_S for other in told):
                self._lags_since.pop(endpoint, None)
            return False
        has_lasted_s = mine.told_at - self._lags_since.setdefault(endpoint, mine.told_at)
        is_stuck = mine.told_at - mine.grown_at > self._stuck_after_s
        return is_stuck or (2 * ahead > len(told) and (len(told) > 1 or has_lasted_s >= LASTING_S))

    def _is_slow(self, endpoint: Endpoint) -> bool:
        mine = endpoint.latency_s
        others = (other.latency_s for other in self._endpoints if not other.is_resting)
        return mine is not None and mine > max(SLOW_S, SLOWER * min((o for o in others if o is not None), default=mine))

    def survey(self) -> None:
        """Ask all endpoints for their heads at once, where that is due; it is to be called between any two steps.

        It is due every SURVEY_EVERY_S, or earlier where the heads stand still. Waits SURVEY_WAIT_S at the most, and
        raises nothing: what an endpoint answers later, or that it does not, is known from then on. How each of them
        does is shown in metrics.
        """
        if not self._begins():
            return
        if len(self._endpoints) > 1:
            self._ask_all()
        # Here alone, so that whoever shows how an endpoint does goes on looking at it.
        best = self._newest()
        for endpoint in self._endpoints:
            endpoint.show(best=0 if best is None else best.number, needs=READING)

    def _ask_all(self) -> None:
        asked = [endpoint for endpoint in self._endpoints if not endpoint.is_away and endpoint.wait_s() <= 0]
        threads = [
            threading.Thread(target=self._look_at, args=(endpoint,), name="survey", daemon=True)
            for endpoint in asked[:MAX_SURVEYED]
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + SURVEY_WAIT_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _newest(self) -> Header | None:
        told = [endpoint.head.header for endpoint in self._endpoints if endpoint.head is not None]
        return max(told, key=lambda header: header.number, default=None)

    def _begins(self) -> bool:
        best, now = self._newest(), self._clock()
        with self._lock:
            if best is not None and best.number > self._best:
                self._note_growth(best, now=now)
            is_stuck = now - self._grown_at > self._stuck_after_s
            every_s = self._stuck_after_s if is_stuck else SURVEY_EVERY_S
            if self._surveyed_at is not None and now - self._surveyed_at < every_s:
                return False
            self._surveyed_at = now
        return True

    @property
    def _stuck_after_s(self) -> float:
        return max(STUCK_S, STUCK_INTERVALS * self._interval_s)

    def _note_growth(self, best: Header, *, now: float) -> None:
        time_s = best.time.timestamp()
        self._interval_s = (time_s - self._best_time) / (best.number - self._best) if self._best else 0.0
        self._best, self._best_time, self._grown_at = best.number, time_s, now

    def _look_at(self, endpoint: Endpoint) -> None:
        started = self._clock()
        try:
            endpoint.newest_with([])
        except ChainError:
            endpoint.latency_s = None
        else:
            endpoint.latency_s = self._clock() - started
        self._compare()


def _is_ahead(other: Told, mine: Told) -> bool:
    """True where another's head is much newer although it was told no later."""
    return (
        other.header.number - mine.header.number > LAG_BLOCKS
        and (other.header.time - mine.header.time).total_seconds() > LAG_S
        and mine.asked_at + AT_ONCE_S >= other.told_at
    )
