"""A message that kills its worker stops after three starts."""

from typing import Any

import redis
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

STARTS = 3
_KEPT_S = 72 * 3600


class PoisonGuard(Middleware):
    """Dramatiq keeps no count of deliveries: a message that kills its process is delivered again for ever.

    Each kill takes the whole worker master down. Here each start is counted before the actor runs and the count is
    dropped when the run has ended, however it ended; a message that was started STARTS times without an end fails.
    """

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Count a start. Raises SkipMessage where there were too many."""
        key = _key(broker, message)
        try:
            with _client(broker).pipeline() as pipe:
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
        try:
            _client(broker).delete(_key(broker, message))
        except redis.RedisError:
            return


def _client(broker: Broker) -> redis.Redis:
    client: redis.Redis = broker.client  # type: ignore[attr-defined]
    return client


def _key(broker: Broker, message: MessageProxy) -> str:
    return f"{broker.namespace}:__starts__.{message.message_id}"  # type: ignore[attr-defined]
