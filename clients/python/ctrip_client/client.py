"""The HTTP API in Python: payments, what reached them, and what happened to them."""

import time
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from ctrip_client.asking import API, path_of
from ctrip_client.creating import number_text
from ctrip_client.errors import CtripError, NoAnswer, PaymentEnded, TakesTooLong
from ctrip_client.objects import Chain, Event, Payment, Transfer, event_of, transfer_of
from ctrip_client.price_calls import PriceCalls
from ctrip_client.reading import read
from ctrip_client.sending import Asked
from ctrip_client.webhook_calls import WebhookCalls

_WAY = ("pending", "detected", "confirmed", "settled")
_PAYMENTS, _EVENTS = "payments", "events"


class Client(PriceCalls, WebhookCalls):
    """Asks one server with one API key. A thread should have one of its own: it keeps a connection open."""

    def chains(self) -> list[Chain]:
        """Return the chains with their assets, and how far each was read. Raises ApiError, NoAnswer."""
        return [read(Chain, each) for each in self._ask(Asked("GET", f"{API}/chains"))["data"]]

    def create_payment(
        self,
        *,
        chain: str,
        amount: Decimal | str | int,
        token: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Payment:
        """Ask for a payment and return it; its `address` is what the payer needs.

        `token` is a symbol or a contract; None is the chain's own coin. `fields` are those of the API: order_id,
        expires_in (seconds), confirmations, customer_email, metadata, webhook_url, underpayment_tolerance. Sent again
        where no answer comes: give an `idempotency_key` of this attempt to pay an order, and a crash of your own
        program makes no second payment within 72 hours either: you get the first one, as it is by then.

        Raises ApiError; NoAnswer, which has the key; CtripError for an amount that is a float.
        """
        asked = {"chain": chain, "token": token, "amount": number_text(amount)}
        return self._create({**asked, **fields}, idempotency_key)

    def payment(self, payment_id: str) -> Payment:
        """Return a payment. Raises ApiError, NoAnswer."""
        return read(Payment, self._ask(Asked("GET", path_of(_PAYMENTS, payment_id))))

    def payments(self, **filters: str | datetime) -> Iterator[Payment]:
        """Yield payments, newest first, page by page: status, chain, order_id, created_after, created_before."""
        return self._pages(f"{API}/{_PAYMENTS}", partial(read, Payment), filters)

    def transfers(self, payment_id: str) -> Iterator[Transfer]:
        """Yield what reached a payment's address, oldest block first: why it is, or is not, paid."""
        return self._pages(path_of(_PAYMENTS, payment_id, "transfers"), transfer_of, {})

    def events(self, payment_id: str | None = None) -> Iterator[Event]:
        """Yield what happened to a payment, oldest first; without one, to any of yours, newest first."""
        path = f"{API}/{_EVENTS}" if payment_id is None else path_of(_PAYMENTS, payment_id, "events")
        return self._pages(path, event_of, {})

    def event(self, event_id: str) -> Event:
        """Return an event. Raises ApiError, NoAnswer."""
        return event_of(self._ask(Asked("GET", path_of(_EVENTS, event_id))))

    def cancel(self, payment_id: str) -> Payment:
        """Cancel a pending payment that nothing was paid to. Raises ApiError (409 where it is not so), NoAnswer."""
        asked = Asked("POST", path_of(_PAYMENTS, payment_id, "cancel"), is_repeatable=False)
        return read(Payment, self._ask(asked))

    def accept(self, payment_id: str) -> Payment:
        """Take what came to an expired or canceled payment as good. Raises ApiError (409), NoAnswer."""
        asked = Asked("POST", path_of(_PAYMENTS, payment_id, "accept"), is_repeatable=False)
        return read(Payment, self._ask(asked))

    def wait(
        self, payment_id: str, *, until: str = "confirmed", timeout_s: float = 1800.0, every_s: float = 2.0
    ) -> Payment:
        """Wait until a payment is `detected`, `confirmed` or `settled`, or further, and return it.

        For scripts and tests: webhooks tell a server sooner. A server that is away for a while is waited for as well.
        No request outlasts `timeout_s` by more than a second. Raises PaymentEnded where it expired or was canceled,
        TakesTooLong after `timeout_s`, ApiError where it refuses.
        """
        if until not in _WAY:
            raise CtripError(f"there is no waiting for {until!r}; it is one of {', '.join(_WAY)}")
        ends_at = time.monotonic() + timeout_s
        while True:
            try:
                payment = read(Payment, self._ask(Asked("GET", path_of(_PAYMENTS, payment_id), ends_at=ends_at)))
            except NoAnswer as error:
                told = str(error)
            else:
                if payment.status in _WAY[_WAY.index(until) :]:
                    return payment
                if payment.is_ended:
                    raise PaymentEnded(f"payment {payment_id} is {payment.status}")
                told = f"it is {payment.status}"
            if time.monotonic() + every_s > ends_at:
                raise TakesTooLong(f"payment {payment_id} is not {until} after {timeout_s:g} s: {told}")
            time.sleep(every_s)
