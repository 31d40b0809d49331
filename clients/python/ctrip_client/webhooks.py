"""Webhooks: believed where their signature is right (Standard Webhooks 1.0, https://www.standardwebhooks.com)."""

import json
from base64 import b64decode
from collections.abc import Mapping

from standardwebhooks import Webhook, WebhookVerificationError

from ctrip_client.errors import CtripError, InvalidSignature
from ctrip_client.objects import Event, event_of

_PREFIX = "whsec_"
_LEAST_BYTES = 24
"""The least that Standard Webhooks allows."""


class Webhooks:
    """Reads what is posted to you. Give it the old secret as well for 24 hours after you have rotated one."""

    def __init__(self, secret: str, *more: str) -> None:
        """Raises CtripError for what is no secret of a webhook."""
        self._verifiers = [Webhook(_checked(each)) for each in (secret, *more)]

    def event(self, body: bytes | str, headers: Mapping[str, str]) -> Event:
        """Return the event that a request brought. `body` is exactly what came, before anything parsed it.

        Raises InvalidSignature. Compare the payment with your order by `event.payment.check(…)`, and answer with 2xx
        only when what follows of it is stored: everything else is posted again.
        """
        signed = {name.lower(): value for name, value in headers.items()}
        why = ""
        for verifier in self._verifiers:
            try:
                verifier.verify(body, signed, json_parse=False)
            # A ValueError is the library's word for a signature or a body that is not even text of the right form.
            except (WebhookVerificationError, ValueError) as error:
                why = str(error)
            else:
                return event_of(json.loads(body))
        raise InvalidSignature(why)


def _checked(secret: str) -> str:
    try:
        size = len(b64decode(secret.removeprefix(_PREFIX), validate=True))
    except ValueError:
        size = 0
    if not secret.startswith(_PREFIX) or size < _LEAST_BYTES:
        raise CtripError(
            f"a webhook's secret begins with {_PREFIX}, and is base64 of {_LEAST_BYTES} bytes or more from there on"
        )
    return secret
