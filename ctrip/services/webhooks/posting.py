"""The POST of an attempt: what is sent, under which signatures, and what came back."""

from dataclasses import dataclass
from functools import cache

from standardwebhooks import Webhook

from ctrip import __version__
from ctrip.context import Box
from ctrip.database.webhook_attempts import Claim
from ctrip.domain.webhooks import body
from ctrip.errors import DeliveryFailed, DestinationRefused
from ctrip.outbound.http import Poster


@dataclass(frozen=True)
class Reply:
    """What a POST brought: a status line, or the reason why none came."""

    status_code: int | None = None
    response: str | None = None
    retry_after_s: int | None = None
    error: str | None = None


class Sender:
    """Signs and posts what one turn at an origin attempts; a secret is opened once in it."""

    def __init__(self, poster: Poster, box: Box) -> None:
        self._poster = poster
        self._open = cache(lambda secret: Webhook(box.decrypt(secret).decode()))

    def post(self, claim: Claim) -> Reply:
        """Sign a claimed delivery with each secret of its destination, the newest first, and POST it."""
        delivery, event = claim.delivery, claim.event
        content = body(event) if event is not None else (delivery.payload or "").encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"ctrip/{__version__}",
            "webhook-id": delivery.webhook_id,
            "webhook-timestamp": str(int(claim.claimed_at.timestamp())),
        }
        if claim.secrets:
            # The attempt's moment is the database's, like all that is told of it.
            signers = [self._open(secret) for secret in claim.secrets]
            signed = [signer.sign(delivery.webhook_id, claim.claimed_at, content.decode()) for signer in signers]
            headers["webhook-signature"] = " ".join(signed)
        try:
            answer = self._poster.post(delivery.url, body=content, headers=headers)
        except (DestinationRefused, DeliveryFailed) as error:
            return Reply(error=error.detail)
        return Reply(answer.status_code, answer.response, answer.retry_after_s)
