"""Messages that say the same do not take all threads of a worker."""

import threading
from collections import Counter

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

MOST = 2
"""One that works, and one beside it that was too slow and is overtaken, or that will find nothing to do."""


class DropCrowds(Middleware):
    """Duplicates of a message that all wait for one slow thing would take every thread, and others none.

    A message here names a row and means "look at it now", so a third run beside two with the same actor and arguments
    could find nothing that those leave undone: it is acknowledged without one. Counted in each process for itself.
    """

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._here = threading.local()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Count a run. Raises SkipMessage where there are enough of its kind."""
        what = f"{message.actor_name} {message.args!r} {message.kwargs!r}"
        with self._lock:
            if self._running[what] >= MOST:
                raise SkipMessage(f"{MOST} runs of the same message are at it")
            self._running[what] += 1
        self._here.what = what

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Count a run's end."""
        self.after_skip_message(broker, message)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Count the end of a run that somebody else skipped; one that was skipped here did not begin."""
        what = self._here.__dict__.pop("what", None)
        if what is None:
            return
        with self._lock:
            self._running[what] -= 1
            if not self._running[what]:
                del self._running[what]
