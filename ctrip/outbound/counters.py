"""Counters that all processes share on Redis. While it is away, each counts for itself: nobody is refused for that."""

import time

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

    def count(self, name: str, *, kept_s: int) -> int:
        """Count one more under a name, which is forgotten `kept_s` seconds after its first one. Returns how many."""
        if time.monotonic() >= self._asked_again_at:
            try:
                return self._shared.incr(name, kept_s)
            except StorageError as error:
                self._asked_again_at = time.monotonic() + _AWAY_S
                log.warning("counters_not_shared", reason=type(error.storage_error).__name__)
        return self._own.incr(name, kept_s)

    def close(self) -> None:
        """Close the connections."""
        self._shared.storage.close()
