"""Messages carry the moment at which they were due, so that waiting can be told from an intended delay."""

import time

from dramatiq.broker import Broker
from dramatiq.message import Message
from dramatiq.middleware import Middleware


class StampDue(Middleware):
    """Dramatiq's own timestamp is the first enqueue's: it counts delays and earlier tries as waiting."""

    def before_enqueue(self, broker: Broker, message: Message[object], delay: int | None) -> None:
        """Stamp a new message with now and a delayed one with its time; one that is promoted keeps what it has."""
        now_ms = int(time.time() * 1000)
        if delay is not None:
            message.options["due_at"] = now_ms + delay
        else:
            message.options.setdefault("due_at", now_ms)
