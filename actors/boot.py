"""Each worker process builds its context once, before it takes a message, and closes it after its last run."""

import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from dramatiq.broker import Broker
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from ctrip.context import Context
from ctrip.errors import MisconfiguredError
from ctrip.log import get_logger, redact

MISCONFIGURED = 78
"""EX_CONFIG of sysexits.h."""
log = get_logger()


class Boot(Middleware):
    """Holds the process's context. `start` builds it for a queue, or raises MisconfiguredError; `stop` closes it."""

    def __init__(self, start: Callable[[str], Context], stop: Callable[[Context], None]) -> None:
        self._start = start
        self._stop = stop
        self._context: Context | None = None

    @property
    def context(self) -> Context:
        """The context of this process."""
        if self._context is None:
            raise RuntimeError("no worker has booted in this process, so it has no context")
        return self._context

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Build the context, or end the process with one message: Dramatiq goes on after whatever a hook raises."""
        try:
            self._context = self._start(_queue(worker))
        except MisconfiguredError as error:
            _refuse(redact(error.detail), MISCONFIGURED)
        except Exception:  # noqa: BLE001 (whatever it is, a worker without a context must not take messages)
            _refuse(redact(traceback.format_exc()), 1)

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Say that messages are taken from now on."""
        log.info("worker_ready", queue=_queue(worker))

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Close the context: what ran has ended, or was given the time to, and the rest is back in Redis."""
        self._stop(self.context)
        log.info("worker_stopped", queue=_queue(worker))


def _queue(worker: Worker) -> str:
    queues = sorted(worker.consumer_whitelist or ())
    if len(queues) != 1:
        raise MisconfiguredError(f"a worker serves exactly one queue (-Q), not {queues or 'all'}")
    return queues[0]


def _refuse(message: str, code: int) -> NoReturn:
    # To the stream that the master gave us: its own reader of our log may stop before it has read this.
    print(message, file=sys.__stderr__, flush=True)
    sys.exit(code)
