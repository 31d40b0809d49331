"""Derivation indexes of deposit addresses: taken from one sequence, a few at a time, and never given out twice."""

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

    def take(self, sessions: Sessions) -> int:
        """Return an index that nobody else has, or will have. Raises Unavailable."""
        while True:
            try:
                return self._left.popleft()
            except IndexError:
                with sessions.at_once() as session:
                    self._left.extend(session.scalars(_TAKE, {"count": AT_ONCE}))

    def give_back(self, index: int) -> None:
        """Keep an index for the next one, where it is certain that nothing was stored with it."""
        self._left.appendleft(index)
