"""Dramatiq's Redis broker, with the faults closed that lose or strand messages when Redis goes away for a while."""

from collections.abc import Callable
from typing import Any

import redis
from dramatiq.broker import Consumer
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Middleware
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from actors.queues import taken_key

HEARTBEAT_TIMEOUT_MS = 30_000
"""A worker that was silent for this long is dead, and what it held is put back."""
MAINTENANCE_CHANCE = 50_000
"""In a million commands: how many look for dead workers. An idle consumer that polls ten times a second looks every
two seconds; at Dramatiq's default of 1,000 it can take a quarter of an hour."""
_REQUEUE_BATCH = 500


class HardenedBroker(RedisBroker):
    """A RedisBroker that is told late where Redis is, and whose consumers survive an outage with what they held."""

    def __init__(self, *, namespace: str, middleware: list[Middleware]) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            namespace=namespace,
            middleware=middleware,
            heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
            maintenance_chance=MAINTENANCE_CHANCE,
        )

    def connect(self, redis_url: str) -> None:
        """Use this Redis from now on. Actors are declared when their modules are imported, before settings are read."""
        self.client = make_client(redis_url)
        self.scripts = {name: self.client.register_script(script.script) for name, script in self.scripts.items()}

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Build a consumer, after putting back the delayed messages that the one before it has forgotten.

        On a connection error Dramatiq's worker empties its memory of delayed messages, while Redis lists them as taken
        by this live worker: nobody would ever run them (dramatiq issue 527). A new consumer's memory is empty, so
        whatever is listed as taken from its delay queue is such an orphan.
        """
        if queue_name.endswith(".DQ"):
            self._put_back(queue_name)
        return super().consume(queue_name, prefetch, timeout)

    def _put_back(self, queue_name: str) -> None:
        key = taken_key(self.namespace, broker_id=self.broker_id, queue=queue_name)
        try:
            orphans = sorted(self.client.smembers(key))
        except redis.RedisError as error:
            raise _closed(error) from error
        for start in range(0, len(orphans), _REQUEUE_BATCH):
            self.do_requeue(queue_name, *orphans[start : start + _REQUEUE_BATCH])
        if orphans:
            self.logger.warning("Put %d delayed messages of %r back.", len(orphans), queue_name)

    def _dispatch(self, command: str) -> Callable[..., Any]:
        """Return a command that answers every failure of Redis with the one error that consumers recover from.

        As it stands, Dramatiq's consumer thread ends for good where Redis times out, or goes away while a delayed
        message is promoted: neither raises what the thread's own recovery catches (dramatiq issue 894).
        """
        dispatch = super()._dispatch(command)  # type: ignore[no-untyped-call]

        def guarded(queue_name: str, *args: Any) -> Any:
            try:
                return dispatch(queue_name, *args)
            except redis.RedisError as error:
                raise _closed(error) from error

        return guarded


def make_client(redis_url: str) -> redis.Redis:
    """Build a client that gives up on a Redis that is away within 1 s, and on one that hangs after 2 s.

    By itself redis-py tries for 4.35 s a call, and sends what timed out again: an enqueue might happen twice.
    """
    return redis.Redis.from_url(
        redis_url,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 3, supported_errors=(redis.ConnectionError,)),
        socket_connect_timeout=1,
        socket_timeout=2,
    )


def _closed(error: redis.RedisError) -> ConnectionClosed:
    return ConnectionClosed(str(error))  # type: ignore[no-untyped-call]
