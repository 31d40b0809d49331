"""Runs, waits, durations, errors and retries of actors, as metrics."""

import threading
import time
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from ctrip import metrics


class Measure(Middleware):
    """Counts what becomes of each message. Stands before Retries in the list, so that it hears of an end after it."""

    def __init__(self, *, dropped: tuple[type[Exception], ...] = ()) -> None:
        self._dropped = dropped
        self._run = threading.local()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Note how long the message waited since it was due, and that its run begins."""
        due_at_ms = message.options.get("due_at", message.message_timestamp)
        waited_s = max(0.0, time.time() - due_at_ms / 1000)
        metrics.ACTOR_WAIT.labels(queue=message.queue_name, actor=message.actor_name).observe(waited_s)
        self._run.started = time.monotonic()

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,
        exception: BaseException | None = None,
    ) -> None:
        """Count the run by its outcome."""
        if exception is None:
            outcome = "success"
        elif isinstance(exception, self._dropped):
            outcome = "skipped"
        else:
            outcome = "dead" if message.failed else "retry"
        self._count(message, outcome)
        if exception is not None:
            name = type(exception).__name__
            metrics.ACTOR_ERRORS.labels(actor=message.actor_name, exception=name).inc()
            if outcome == "retry":
                labels = {"queue": message.queue_name, "actor": message.actor_name}
                metrics.ACTOR_RETRIES.labels(**labels, reason=name).inc()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Count a message that was not run."""
        self._count(message, "dead" if message.failed else "skipped")

    def _count(self, message: MessageProxy, outcome: str) -> None:
        labels = {"queue": message.queue_name, "actor": message.actor_name}
        metrics.ACTOR_RUNS.labels(**labels, outcome=outcome).inc()
        # A message that an earlier middleware skipped has no start of its own.
        started = self._run.__dict__.pop("started", None)
        if started is not None:
            metrics.ACTOR_DURATION.labels(**labels).observe(time.monotonic() - started)
