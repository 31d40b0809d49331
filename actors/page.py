"""The metrics of the worker processes that share a folder, served by one of them."""

import threading
from collections.abc import Callable

from dramatiq.broker import Broker
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from ctrip import metrics
from ctrip.log import get_logger

log = get_logger()
STAND_BY_S = 1.0


class ServePage(Middleware):
    """Serves `/metrics` from whichever process gets the port, as soon as it takes messages.

    The others stand by: when the one that serves ends, another takes over within STAND_BY_S. `place` returns host and
    port once the process has booted; port 0 means no page.
    """

    def __init__(self, place: Callable[[], tuple[str, int]]) -> None:
        self._place = place

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Begin to serve, or to stand by."""
        host, port = self._place()
        if port:
            threading.Thread(target=_serve_or_stand_by, args=(host, port), name="metrics", daemon=True).start()


def _serve_or_stand_by(host: str, port: int) -> None:
    pause, stands_by = threading.Event(), False
    while True:
        try:
            server = metrics.make_server(host=host, port=port)
        except OSError as error:
            if not stands_by:
                # Another worker's, as a rule; if it is anybody else's, this line is the one to find.
                log.info("metrics_stand_by", port=port, reason=error.strerror)
            stands_by = True
            pause.wait(STAND_BY_S)
        else:
            server.serve_forever()
