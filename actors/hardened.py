"""Dramatiq's Redis broker, with the faults closed that lose, strand or double messages; a class for each.

The set needs Dramatiq and redis-py alone: this file, `consumers.py`, `messages.py`, `queues.py` and `middleware/`. What
it does not close: a delayed message that is due is enqueued and then acknowledged in two commands, and a crash between
them doubles it (dramatiq issue 431). Nor can any queue promise that a run which was cut off had no effect. Messages may
come twice; let them carry the id of a row, and the row decide whether there is anything to do.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import redis
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import q_name
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.message import Message
from dramatiq.middleware import Middleware
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from actors.consumers import HardenedConsumer
from actors.messages import read_message
from actors.queues import content_key, taken_key

HEARTBEAT_TIMEOUT_MS = 30_000
"""A worker that was silent for this long is dead, and what it held is put back."""
HUNT_EVERY_S = 1.0
_DEAD_ARE_KEPT_MS = 10 * 365 * 24 * 3600 * 1000
_BATCH = 500


class TellOneError(RedisBroker):
    """Answers every failure of Redis with the one error that Dramatiq's threads recover from.

    As it stands, its consumer thread ends for good where Redis times out, or goes away while a delayed message is
    promoted: neither raises what the thread's own recovery catches (dramatiq issue 894).
    """

    def _dispatch(self, command: str) -> Callable[..., Any]:
        dispatch = super()._dispatch(command)  # type: ignore[no-untyped-call]

        def guarded(queue_name: str, *args: Any) -> Any:
            try:
                return dispatch(queue_name, *args)
            except redis.RedisError as error:
                raise _closed(error) from error

        return guarded


class HuntByClock(RedisBroker):
    """Looks for dead workers every second, so that what one held runs again soon after it was declared dead.

    Dramatiq draws lots for it at each command: with one idle worker process it can take a quarter of an hour.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        # A hunt is in the queue of the command that it rides on. Each queue's consumer has a thread of its own.
        self._of_this_consumer = threading.local()

    def _should_do_maintenance(self, command: str) -> int:
        now = time.monotonic()
        if command != "fetch" or now < getattr(self._of_this_consumer, "next_hunt", 0.0):
            return 0
        self._of_this_consumer.next_hunt = now + HUNT_EVERY_S
        return 1


class PutBackForgotten(RedisBroker):
    """Puts back what Redis lists as taken by this live worker while nobody here has it: it would never run.

    On a connection error Dramatiq's worker empties its memory of delayed messages (dramatiq issue 527); where a
    consumer fell over a message, or the answer to its fetch was lost, those fetched with it are forgotten as well. A
    new consumer is where this shows: it begins with empty hands but for what was handed out and still runs.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.in_hand: defaultdict[str, set[str]] = defaultdict(set)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Build a consumer, after putting back what the one before it has forgotten."""
        if queue_name.endswith(".DQ"):
            # Delayed messages are held by the consumer's thread, which has just dropped or put back all of them.
            self.in_hand[queue_name].clear()
        forgotten = sorted(self._taken(queue_name) - self.in_hand[queue_name])
        for batch in _batches(forgotten):
            self.do_requeue(queue_name, *batch)
        if forgotten:
            self.logger.warning("Put %d forgotten messages of %r back.", len(forgotten), queue_name)
        return super().consume(queue_name, prefetch, timeout)

    def _taken(self, queue_name: str) -> set[str]:
        key = taken_key(self.namespace, broker_id=self.broker_id, queue=queue_name)
        try:
            return {_text(redis_id) for redis_id in self.client.smembers(key)}
        except redis.RedisError as error:
            raise _closed(error) from error


class BuryUnreadable(RedisBroker):
    """Makes a dead letter of a message that cannot be read, as soon as it is fetched.

    Dramatiq's consumer dies of it and forgets those that it had fetched with it: they stay taken by a live worker.
    """

    def do_fetch(self, queue_name: str, count: int) -> list[bytes]:
        """Fetch up to `count` messages; those that are returned can be read."""
        readable = []
        for content in self._dispatch("fetch")(queue_name, count):  # type: ignore[no-untyped-call]
            error = None if content is None else _unreadable(content, queue_name)
            if error is None:
                readable.append(content)
            else:
                self._bury(queue_name, content, error)
        return readable

    def _bury(self, queue_name: str, content: bytes, error: DecodeError) -> None:
        redis_id = self._id_of(queue_name, content)
        if redis_id is None:
            return
        self.logger.error("Message %r on queue %r cannot be read; it is a dead letter.", redis_id, queue_name)
        options = {"redis_message_id": redis_id, "undecodable": True}
        message = MessageProxy(Message(q_name(queue_name), "", (), {}, options, message_id=redis_id))
        message.fail()
        message.stuff_exception(error)
        self.emit_before("nack", message)
        self.do_nack(queue_name, redis_id)
        self.emit_after("nack", message)

    def _id_of(self, queue_name: str, content: bytes) -> str | None:
        """Find a message by what it contains: a fetch does not tell ids, and this one's own cannot be read."""
        taken = taken_key(self.namespace, broker_id=self.broker_id, queue=queue_name)
        try:
            for batch in _batches(sorted(self.client.smembers(taken))):
                contents = self.client.hmget(content_key(self.namespace, queue=queue_name), batch)
                for redis_id, found in zip(batch, contents, strict=True):
                    if found == content:
                        return _text(redis_id)
        except redis.RedisError as error:
            raise _closed(error) from error
        return None


class HardenedBroker(TellOneError, HuntByClock, PutBackForgotten, BuryUnreadable):
    """All of them, and a broker that may be told late where Redis is."""

    def __init__(self, *, namespace: str, middleware: list[Middleware]) -> None:
        super().__init__(
            namespace=namespace,
            middleware=middleware,
            heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
            # Dramatiq drops dead letters after a week and tells nobody. Who records them elsewhere drops them there.
            dead_message_ttl=_DEAD_ARE_KEPT_MS,
        )

    @property
    def consumer_class(self) -> type[HardenedConsumer]:
        """What `consume` builds."""
        return HardenedConsumer

    def connect(self, redis_url: str) -> None:
        """Use this Redis from now on. Actors are declared when their modules are imported, before settings are read."""
        self.client = make_client(redis_url)
        self.scripts = {name: self.client.register_script(script.script) for name, script in self.scripts.items()}


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


def _unreadable(content: bytes, queue_name: str) -> DecodeError | None:
    """Say why Dramatiq's threads would fall over a message; None where they would not."""
    try:
        message = read_message(content)
    except DecodeError as error:
        return error
    is_whole = (
        message.queue_name == queue_name
        and isinstance(message.options, dict)
        and isinstance(message.options.get("redis_message_id"), str)
        and isinstance(message.message_id, str)
        and isinstance(message.actor_name, str)
        and isinstance(message.kwargs, dict)
    )
    return None if is_whole else DecodeError("It is not what Dramatiq writes.", content, None)  # type: ignore[no-untyped-call]


def _batches(redis_ids: list[Any]) -> Iterable[list[Any]]:
    return (redis_ids[start : start + _BATCH] for start in range(0, len(redis_ids), _BATCH))


def _text(redis_id: bytes | str) -> str:
    return redis_id.decode() if isinstance(redis_id, bytes) else redis_id


def _closed(error: redis.RedisError) -> ConnectionClosed:
    return ConnectionClosed(str(error))  # type: ignore[no-untyped-call]
