"""A message that kills its worker stops after three starts."""

import threading
from contextlib import suppress
from typing import Any

import redis
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

STARTS = 3
_KEPT_S = 72 * 3600
_LONGEST_TURN_S = 300


class PoisonGuard(Middleware):
    """Dramatiq keeps no count of deliveries: a message that kills its process is delivered again for ever.

    Each kill takes the whole worker master down. Here each start is counted before the actor runs and the count is
    dropped when the run has ended, however it ended; a message that was started STARTS times without an end fails.

    Whatever ran beside a message that kills was started without an end as well. So a message that comes again is a
    suspect, and a process runs one suspect at a time: the next kill is counted for the one that ran alone, and those
    that wait for their turn are not counted as started. Several processes under one master have a suspect each.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._of_this_thread = threading.local()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Count a start, a suspect's when it is its turn. Raises SkipMessage where there were too many."""
        key, client = _key(broker, message), _client(broker)
        try:
            if client.set(key, 1, nx=True, ex=_KEPT_S):
                return
            # The suspect before it runs under the time limit of its actor; this wait ends whatever becomes of that.
            self._of_this_thread.has_turn = self._turn.acquire(timeout=_LONGEST_TURN_S)
            with client.pipeline(transaction=False) as pipe:
                pipe.incr(key)
                pipe.expire(key, _KEPT_S)
                starts = pipe.execute()[0]
        except redis.RedisError:
            # Without Redis there is no count, and the message is at hand: it may run.
            return
        if starts > STARTS:
            message.options["starts_without_end"] = starts - 1
            message.fail()
            raise SkipMessage(f"poison: {starts - 1} starts without an end")

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Forget the starts: this one has ended."""
        self.after_skip_message(broker, message)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Forget the starts: a dead letter that is replayed begins anew."""
        with suppress(redis.RedisError):
            _client(broker).delete(_key(broker, message))

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Let the next suspect run: this one is over and done with, and a kill cannot bring it back."""
        if getattr(self._of_this_thread, "has_turn", False):
            self._of_this_thread.has_turn = False
            self._turn.release()

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Let the next suspect run."""
        self.after_ack(broker, message)


def _client(broker: Broker) -> redis.Redis:
    client: redis.Redis = broker.client  # type: ignore[attr-defined]
    return client


def _key(broker: Broker, message: MessageProxy) -> str:
    return f"{broker.namespace}:__starts__.{message.message_id}"  # type: ignore[attr-defined]
