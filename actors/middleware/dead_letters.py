"""Every dead message is told of the moment it dies, with the reason and the exception that Redis does not keep."""

from collections.abc import Callable
from dataclasses import dataclass

from dramatiq.broker import Broker, MessageProxy
from dramatiq.common import q_name
from dramatiq.errors import ActorNotFound
from dramatiq.middleware import Middleware, SkipMessage


@dataclass(frozen=True)
class Death:
    """A message that was rejected just now. `reason` is retries, age, poison, unknown_actor or undecodable."""

    queue: str
    redis_id: str
    reason: str
    exception: BaseException | None


class TellDeaths(Middleware):
    """Calls `tell` for each message that was rejected, whatever the way that led there.

    What `tell` raises is logged by Dramatiq and changes nothing: the message stays in Redis' dead-letter queue, where
    it can be found later.
    """

    def __init__(self, tell: Callable[[Death], None]) -> None:
        self._tell = tell

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        """Tell of a message that Redis has just moved to its dead-letter queue."""
        self._tell(
            Death(
                queue=q_name(message.queue_name),
                redis_id=str(message.options["redis_message_id"]),
                reason=_reason(message),
                exception=message._exception,
            )
        )


def _reason(message: MessageProxy) -> str:
    if "undecodable" in message.options:
        return "undecodable"
    if "starts_without_end" in message.options:
        return "poison"
    if isinstance(message._exception, ActorNotFound):
        return "unknown_actor"
    return "age" if isinstance(message._exception, SkipMessage) else "retries"
