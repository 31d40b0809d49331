"""The e-mail actor: one attempt of one e-mail."""

from actors import SEND_EMAIL
from actors.broker import actor, context, wake
from ctrip.services import emails


@actor(SEND_EMAIL)
def send_email(email_id: str) -> None:
    """Make an attempt, and come back when the next one is due."""
    again_in = emails.send(context(), email_id)
    if again_in is not None:
        wake(send_email, [email_id], after=again_in)
