"""What a run of a loop or of a job asks for, done."""

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


def follow_job(tick: Tick, *, job: dramatiq.Actor[[str], None], job_id: str) -> None:
    """Send the job's next message where it is not over, and one for each delivery that is due."""
    if tick.again_in is not None:
        wake(job, [job_id], after=tick.again_in)
    wake(send_webhook, tick.delivery_ids)
