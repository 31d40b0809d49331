"""The webhook actor: one attempt of one delivery."""

from actors import SEND_WEBHOOK
from actors.broker import actor, context, wake
from ctrip.services import webhooks


@actor(SEND_WEBHOOK)
def send_webhook(delivery_id: str) -> None:
    """Make an attempt, and come back where the next one is near; the relay sends for those that are far."""
    again_in = webhooks.deliver(context(), delivery_id)
    if again_in is not None:
        wake(send_webhook, [delivery_id], after=again_in)
