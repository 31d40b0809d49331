"""Dramatiq's Redis consumer, with what it needs to stay alive while it is full and to know what it holds."""

from collections.abc import Iterable
from typing import Any

from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import _RedisConsumer

from actors.messages import read_message


class BeatWhenFull(_RedisConsumer):
    """A consumer that has taken all it may sends no command, and commands are the only heartbeat.

    A healthy worker whose consumers are all full would be declared dead, and what it runs would run a second time
    beside it. Here a full consumer asks for no message at each poll, which is a command too.
    """

    def __next__(self) -> MessageProxy | None:
        if not self.message_cache and self.outstanding_message_count >= self.prefetch:
            self.broker.do_fetch(self.queue_name, 0)
        return _next(super())


class KnowTaken(_RedisConsumer):
    """Notes in the broker's `in_hand` which messages of its queue this process holds: those that it handed out.

    Redis' own list of them is longer where the answer to a fetch was lost on its way, or a consumer fell over what it
    had fetched.
    """

    def __next__(self) -> MessageProxy | None:
        message = _next(super())
        if message is not None:
            self._in_hand.add(message.options["redis_message_id"])
        return message

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a message; where that fails it is still in hand, and the worker tries again."""
        super().ack(message)  # type: ignore[no-untyped-call]
        self._in_hand.discard(message.options["redis_message_id"])

    def nack(self, message: MessageProxy) -> None:
        """Reject a message; where that fails it is still in hand, and the worker tries again."""
        super().nack(message)  # type: ignore[no-untyped-call]
        self._in_hand.discard(message.options["redis_message_id"])

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put messages back."""
        given_back = list(messages)
        super().requeue(given_back)  # type: ignore[no-untyped-call]
        self._in_hand.difference_update(message.options["redis_message_id"] for message in given_back)

    @property
    def _in_hand(self) -> set[str]:
        taken: set[str] = self.broker.in_hand[self.queue_name]
        return taken


class PutBackUnread(_RedisConsumer):
    """Puts back, when it is closed, what it has fetched and not handed out.

    Dramatiq forgets it: where a stop comes between a fetch and the last of its messages, those run again only when the
    stopped worker is declared dead.
    """

    def close(self) -> None:
        """Close the consumer with empty hands."""
        unread = [read_message(content).options["redis_message_id"] for content in self.message_cache if content]
        self.message_cache = []
        if unread:
            self.broker.do_requeue(self.queue_name, *unread)
        super().close()


class HardenedConsumer(BeatWhenFull, KnowTaken, PutBackUnread):
    """All of them."""


def _next(consumer: Any) -> MessageProxy | None:
    message: MessageProxy | None = consumer.__next__()
    return message
