"""Counters that all processes share on Redis. While it is away, each counts for itself: nobody is refused for that."""

import threading
import time
from collections import deque

from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from ctrip.log import get_logger

_TIMEOUT_S = 0.1
"""Whoever counts keeps a client waiting: Redis is beside us, or it is away."""
_AWAY_S = 5.0
"""How long Redis is not asked again after it did not answer."""
_MOST_NAMES = 10_000
_PREFIX = "ctrip:counters"
log = get_logger()


class Counters:
    """Threads may share it. A wiped Redis begins at nought."""

    def __init__(self, redis_url: str) -> None:
        pool = ConnectionPool.from_url(
            redis_url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
        # The address says nothing beside a pool, but that it is no cluster.
        self._shared = RedisStorage("redis://", connection_pool=pool, wrap_exceptions=True, key_prefix=_PREFIX)
        self._own = MemoryStorage()
        self._asked_again_at = 0.0
        self._taken: dict[str, deque[int]] = {}
        """Of each name the numbers that were taken and not told yet."""
        self._lock = threading.Lock()

    def count(self, name: str, *, kept_s: int, at_once: int = 1) -> int:
        """Count one more under a name, which is forgotten `kept_s` seconds after its first one. Returns how many.

        So many are taken `at_once`, and told one after the other without asking Redis. No two processes tell the same
        number, and what one of them has left the others count as told.
        """
        if at_once == 1:
            return self._more(name, 1, kept_s=kept_s)
        with self._lock:
            numbers = self._taken.pop(name, None)
            # At the end again: whoever was not heard of for the longest is forgotten first.
            self._taken[name] = numbers = deque[int]() if numbers is None else numbers
            if len(self._taken) > _MOST_NAMES:
                del self._taken[next(iter(self._taken))]
        try:
            return numbers.popleft()
        except IndexError:
            last = self._more(name, at_once, kept_s=kept_s)
            numbers.extend(range(last - at_once + 2, last + 1))
            return last - at_once + 1

    def _more(self, name: str, count: int, *, kept_s: int) -> int:
        if time.monotonic() >= self._asked_again_at:
            try:
                return self._shared.incr(name, kept_s, amount=count)
            except StorageError as error:
                self._asked_again_at = time.monotonic() + _AWAY_S
                log.warning("counters_not_shared", reason=type(error.storage_error).__name__)
        return self._own.incr(name, kept_s, amount=count)

    def close(self) -> None:
        """Close the connections."""
        self._shared.storage.close()
