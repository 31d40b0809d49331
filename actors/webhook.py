"""The webhook actors: attempts at deliveries, one origin at a time, and the jobs that send by hand."""

import dramatiq

from actors import CUSTOM_WEBHOOK, RESEND_WEBHOOK, SEND_WEBHOOK
from actors.broker import actor, context, wake
from ctrip.domain.loops import Tick
from ctrip.services import resending, webhooks


@actor(SEND_WEBHOOK)
def send_webhook(delivery_id: str) -> None:
    """Attempt it and what else is due at its origin; what is left there stands at the end of the queue again."""
    comes_next = webhooks.deliver(context(), delivery_id)
    if comes_next is not None:
        wake(send_webhook, [comes_next.delivery_id], after=comes_next.after)


@actor(RESEND_WEBHOOK)
def job_send_webhook(job_id: str) -> None:
    """Send a payment's event again for an operator."""
    _come_back(resending.send_webhook(context(), job_id), job=job_send_webhook, job_id=job_id)


@actor(CUSTOM_WEBHOOK)
def job_custom_webhook(job_id: str) -> None:
    """Post an operator's own JSON."""
    _come_back(resending.custom_webhook(context(), job_id), job=job_custom_webhook, job_id=job_id)


def _come_back(tick: Tick, *, job: dramatiq.Actor[[str], None], job_id: str) -> None:
    """Send the job's next message where it is not over. Its deliveries are the relay's."""
    if tick.again_in is not None:
        wake(job, [job_id], after=tick.again_in)
