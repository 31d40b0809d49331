"""Payments that ask for a price in money of a state, until somebody chooses the asset that pays it."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from ctrip_client.asking import json_of, path_of
from ctrip_client.creating import Creating, number_text
from ctrip_client.objects import Payment, Quote
from ctrip_client.reading import read
from ctrip_client.sending import Asked

_PAYMENTS = "payments"


class PriceCalls(Creating):
    """What a client says of prices."""

    def create_priced_payment(
        self,
        *,
        price: Decimal | str | int,
        currency: str,
        assets: Sequence[tuple[str, str | None]],
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Payment:
        """Ask for a payment of a price, such as "49.90" in "EUR", and return it; its asset is not chosen yet.

        `assets` are those in which it may be paid: a chain with a token's symbol or contract, or with None for the
        chain's own coin. Otherwise as `create_payment`.
        """
        listed = [{"chain": chain, "token": token} for chain, token in assets]
        asked = {"price": {"amount": number_text(price), "currency": currency}, "assets": listed}
        return self._create({**asked, **fields}, idempotency_key)

    def quotes(self, payment_id: str) -> list[Quote]:
        """Return what each accepted asset would cost just now. Raises ApiError (409 after the choice), NoAnswer."""
        return [read(Quote, each) for each in self._ask(Asked("GET", path_of(_PAYMENTS, payment_id, "quotes")))["data"]]

    def choose(self, payment_id: str, *, chain: str, token: str | None = None) -> Payment:
        """Choose the asset that pays a price: the rate is locked until the payment's new `expires_at`.

        Once: ApiError 409 says that it was chosen before, which after NoAnswer may have been by this call; look at the
        payment then.
        """
        body = json_of({"chain": chain, "token": token})
        asked = Asked("POST", path_of(_PAYMENTS, payment_id, "choose"), body=body, is_repeatable=False)
        return read(Payment, self._ask(asked))
