"""What a run of a loop asks for, done."""

import dramatiq

from actors.broker import wake
from actors.webhook import send_webhook
from ctrip.domain.loops import Tick


def follow(tick: Tick, *, loop: dramatiq.Actor[[int], None], chain_id: int) -> None:
    """Send the loop's next message and one for each delivery that is due.

    A run that did not win the claim has no successor: that is how any number of duplicates falls to one.
    """
    if tick.again_in is not None:
        wake(loop, [chain_id], after=tick.again_in)
    wake(send_webhook, tick.delivery_ids)
