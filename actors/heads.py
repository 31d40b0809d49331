"""Threads of the scheduler, one for each WebSocket URL: a new head sends the listener's message at once."""

import threading
from time import monotonic

from actors.broker import wake
from actors.listener import listen_for_payments
from ctrip.context import Context
from ctrip.errors import Unavailable
from ctrip.log import get_logger
from ctrip.services import heads
from ctrip.services.heads import Source, Woken

TRIED_FOR_S = 3.0
AGAIN_S = 0.1
"""How long, and how often, a head waits for a run that is at work; by then its own next poll is near."""
log = get_logger()


class HeadWatch(threading.Thread):
    """Hears the heads of one source until stopped. Any number of schedulers may: whoever comes second finds it read."""

    def __init__(self, ctx: Context, source: Source) -> None:
        super().__init__(name=f"heads {source.stream.label}", daemon=True)
        self._ctx = ctx
        self._source = source
        self._stopping = threading.Event()

    def run(self) -> None:
        """Wake the listener at each head. Polling goes on where nothing is heard."""
        while not self._stopping.is_set():
            try:
                for number in heads.follow(self._source, self._stopping):
                    self._wake(number)
            except Exception:  # polling outlives what nobody expects, and so does this
                log.exception("heads_failed", endpoint=self._source.stream.label)
                self._stopping.wait(5)

    def stop(self) -> None:
        """Stop listening."""
        self._stopping.set()

    def _wake(self, number: int) -> None:
        deadline = monotonic() + TRIED_FOR_S
        try:
            while (woken := heads.wake(self._ctx, self._source.chain_id, number)) is Woken.BUSY:
                if monotonic() > deadline or self._stopping.wait(AGAIN_S):
                    return
        except Unavailable:  # the watchdog says so; the listener reads on when Postgres is back
            self._stopping.wait(1)
            return
        if woken is Woken.DUE:
            wake(listen_for_payments, [self._source.chain_id])


def watches(ctx: Context) -> list[HeadWatch]:
    """Build a thread for each WebSocket URL of the enabled chains."""
    return [HeadWatch(ctx, source) for source in heads.sources(ctx)]
