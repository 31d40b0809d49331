"""How a payment is made once, whatever becomes of the answer."""

import re
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ctrip_client.asking import API, Asking, json_of, object_of, path_of
from ctrip_client.errors import CtripError
from ctrip_client.objects import Payment
from ctrip_client.reading import read
from ctrip_client.sending import Asked

_PAYMENTS = "payments"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


class Creating(Asking):
    """Sends what a payment is to be, with a key."""

    def _create(self, asked: Mapping[str, Any], idempotency_key: str | None) -> Payment:
        key = str(uuid.uuid4()) if idempotency_key is None else idempotency_key
        if not _KEY.fullmatch(key):
            raise CtripError("an idempotency_key has 1 to 255 printable ASCII characters")
        answer = self._sender.answer(Asked("POST", f"{API}/{_PAYMENTS}", body=json_of(asked), idempotency_key=key))
        made = read(Payment, object_of(answer))
        # What is given again is the first answer, and the payment may have gone on since.
        if answer.headers.get("Idempotency-Replayed") != "true":
            return made
        # With the key, for whoever gets no answer to this one.
        return read(Payment, self._ask(Asked("GET", path_of(_PAYMENTS, made.id), idempotency_key=key)))


def number_text(amount: Decimal | str | int) -> str:
    """Write an amount as the API reads it. Raises CtripError for a float."""
    if isinstance(amount, float):
        raise CtripError('an amount is no float, which cannot hold every amount: write "12.50", or a Decimal')
    return format(amount, "f") if isinstance(amount, Decimal) else str(amount)
