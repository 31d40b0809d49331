"""Derivation indexes of deposit addresses: taken from one sequence, a few at a time, and never given out twice."""

import threading
from collections import deque

import sqlalchemy as sa

from ctrip.database.engine import Sessions

AT_ONCE = 20
"""How many a process has in hand: what is left of them when it ends is a gap; without them each create asks twice."""
_TAKE = sa.text("SELECT nextval('deposit_index') FROM generate_series(1, :count)")


class DepositIndexes:
    """Those that one process has taken and not used. Threads may share it."""

    def __init__(self) -> None:
        self._left = deque[int]()
        self._lock = threading.Lock()

    def take(self, sessions: Sessions) -> int:
        """Return an index that nobody else has, or will have. Raises Unavailable."""
        while True:
            try:
                return self._left.popleft()
            except IndexError:
                self._take_more(sessions)

    def _take_more(self, sessions: Sessions) -> None:
        with self._lock:
            # Another thread may have taken some while this one waited for it.
            if not self._left:
                with sessions.at_once() as session:
                    self._left.extend(session.scalars(_TAKE, {"count": AT_ONCE}))

    def forget(self) -> None:
        """Use none of those in hand: they were given out twice.

        The sequence may go back when Postgres crashes, by what it gave to transactions that stored nothing else and so
        did not wait for the disk.
        """
        self._left.clear()

    def give_back(self, index: int) -> None:
        """Keep an index for the next one, where it is certain that nothing was stored with it."""
        self._left.appendleft(index)
