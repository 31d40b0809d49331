"""Bodies that never come: how long one may take, and how many threads a key may keep waiting.

Granian waits for a body in one of the threads that serve, for as long as its sender likes, and has no limit for that
(https://github.com/emmett-framework/granian/issues/728): four requests that announce a body and send none would stop
the API. The read cannot be interrupted. What ends it is the end of its connection, so that is found and shut.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ctrip.errors import RateLimited
from ctrip.log import get_logger
from ctrip.web.connections import Place, hang_up, unanswered

WITHIN_S = 5.0
"""Seconds that a body may take from its head to its end, 64 KiB at the most."""
_REMEMBERED_S = 60.0
_LOOK_EVERY_S = 0.5
log = get_logger()


@dataclass(frozen=True)
class _Reading:
    since: float
    key_id: str
    place: Place


@dataclass
class Bodies:
    """The bodies that are being read in this process. `watch` ends those that do not come."""

    _reading: dict[int, _Reading] = field(default_factory=dict)
    _stalled_at: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: dict[Place, dict[str, float]] = field(default_factory=dict)
    """The connections that waited for an answer at the last look, and since which look they do."""

    @contextmanager
    def reading(self, *, key_id: str, place: Place) -> Iterator[None]:
        """Around the reading of a body.

        Raises RateLimited where one of this key's did not come within the last minute, and another one is being waited
        for: such a key gets one thread, and not all of them.
        """
        me, now = threading.get_ident(), time.monotonic()
        with self._lock:
            is_known = now - self._stalled_at.get(key_id, -_REMEMBERED_S) < _REMEMBERED_S
            if is_known and any(other.key_id == key_id for other in self._reading.values()):
                raise RateLimited("bodies of this key did not come; for a minute one is read at a time")
            self._reading[me] = _Reading(now, key_id, place)
        try:
            yield
        finally:
            with self._lock:
                del self._reading[me]

    def watch(self) -> None:
        """End the connections whose bodies do not come, from now on, in a thread of its own. Linux alone knows them."""
        if sys.platform == "linux":
            threading.Thread(target=self._watch, name="bodies", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY_S)
            try:
                self._look(time.monotonic())
            except OSError as error:  # no file may be opened any more, or there is no /proc
                log.warning("bodies_not_watched", reason=str(error))

    def _look(self, now: float) -> None:
        with self._lock:
            slow = [each for each in self._reading.values() if now - each.since > _LOOK_EVERY_S]
            overdue = [each for each in slow if now - each.since > WITHIN_S]
            self._stalled_at = {key: at for key, at in self._stalled_at.items() if now - at < _REMEMBERED_S}
            self._stalled_at |= dict.fromkeys((each.key_id for each in overdue), now)
        self._seen = {place: self._waiting(place, now) for place in {each.place for each in slow}}
        for each in overdue:
            log.warning("body_stalled", key_id=each.key_id, peer=each.place.peer)
        for place, how_many in Counter(each.place for each in overdue).items():
            hang_up(place, self._stalled(place, now)[:how_many])

    def _waiting(self, place: Place, now: float) -> dict[str, float]:
        known, found = self._seen.get(place, {}), {}
        for each in unanswered(place):
            since = known.get(each.inode, now)
            # Where something was sent in between, this is another request.
            found[each.inode] = now if each.sent_at > since else since
        return found

    def _stalled(self, place: Place, now: float) -> list[str]:
        """Return the connections from a place that got no answer for so long, the one that is silent for longest first.

        Where all threads wait for bodies, whole requests wait behind them and look like them; those came later. No
        proxy that keeps a body until it is whole lets any of this happen.
        """
        long_ago = now - WITHIN_S + 2 * _LOOK_EVERY_S
        return [inode for inode, since in self._seen[place].items() if since <= long_ago]
