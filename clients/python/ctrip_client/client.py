"""The HTTP API in Python: payments, what reached them, and what happened to them."""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar

import requests

from ctrip_client.errors import CtripError, NoAnswer, PaymentEnded, TakesTooLong
from ctrip_client.objects import Event, Payment, Transfer, event_of, payment_of, transfer_of
from ctrip_client.sending import Asked, Sender

T = TypeVar("T")

_WAY = ("pending", "detected", "confirmed", "settled")
_PAYMENTS = "/api/v1/payments"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_ID = re.compile(r"[A-Za-z0-9_]+")
_PAGE = 100


class Client:
    """Asks one server with one API key. A thread should have one of its own: it keeps a connection open."""

    def __init__(
        self, base_url: str, *, api_key: str, timeout_s: float = 20.0, attempts: int = 5, allow_http: bool = False
    ) -> None:
        """`timeout_s` is how long the server may be silent, and `attempts` how often a request is sent at the most.

        Raises CtripError for a URL over which the key would go in clear text to another machine, unless `allow_http`
        says that the network is your own.
        """
        self._sender = Sender(base_url, api_key=api_key, timeout_s=timeout_s, attempts=attempts, allow_http=allow_http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._sender.close()

    # --- payments -------------------------------------------------------------------------------------------------

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
        body = _json({"chain": chain, "token": token, "amount": _amount_text(amount), **fields})
        key = str(uuid.uuid4()) if idempotency_key is None else idempotency_key
        if not _KEY.fullmatch(key):
            raise CtripError("an idempotency_key has 1 to 255 printable ASCII characters")
        answer = self._sender.answer(Asked("POST", _PAYMENTS, body=body, idempotency_key=key))
        made = payment_of(_object(answer))
        # What is given again is the first answer, and the payment may have gone on since.
        if answer.headers.get("Idempotency-Replayed") != "true":
            return made
        # With the key, for whoever gets no answer to this one.
        return payment_of(self._ask(Asked("GET", _path(made.id), idempotency_key=key)))

    def payment(self, payment_id: str) -> Payment:
        """Return a payment. Raises ApiError, NoAnswer."""
        return payment_of(self._ask(Asked("GET", _path(payment_id))))

    def payments(self, **filters: str | datetime) -> Iterator[Payment]:
        """Yield payments, newest first, page by page: status, chain, order_id, created_after, created_before."""
        return self._pages(_PAYMENTS, payment_of, filters)

    def transfers(self, payment_id: str) -> Iterator[Transfer]:
        """Yield what reached a payment's address, oldest block first: why it is, or is not, paid."""
        return self._pages(_path(payment_id, "transfers"), transfer_of, {})

    def events(self, payment_id: str | None = None) -> Iterator[Event]:
        """Yield what happened to a payment, oldest first; without one, to any of yours, newest first."""
        return self._pages("/api/v1/events" if payment_id is None else _path(payment_id, "events"), event_of, {})

    def cancel(self, payment_id: str) -> Payment:
        """Cancel a pending payment that nothing was paid to. Raises ApiError (409 where it is not so), NoAnswer."""
        return payment_of(self._ask(Asked("POST", _path(payment_id, "cancel"), is_repeatable=False)))

    def accept(self, payment_id: str) -> Payment:
        """Take what came to an expired or canceled payment as good. Raises ApiError (409), NoAnswer."""
        return payment_of(self._ask(Asked("POST", _path(payment_id, "accept"), is_repeatable=False)))

    def wait(
        self, payment_id: str, *, until: str = "confirmed", timeout_s: float = 1800.0, every_s: float = 2.0
    ) -> Payment:
        """Wait until a payment is `detected`, `confirmed` or `settled`, or further, and return it.

        For scripts and tests: webhooks tell a server sooner. A server that is away for a while is waited for as well.
        Raises PaymentEnded where it expired or was canceled, TakesTooLong after `timeout_s`, ApiError where it refuses.
        """
        if until not in _WAY:
            raise CtripError(f"there is no waiting for {until!r}; it is one of {', '.join(_WAY)}")
        ends_at = time.monotonic() + timeout_s
        while True:
            try:
                payment = self.payment(payment_id)
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

    # --- how it asks ----------------------------------------------------------------------------------------------

    def _pages(self, path: str, read: Callable[[Mapping[str, Any]], T], filters: Mapping[str, Any]) -> Iterator[T]:
        wanted = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in filters.items()}
        after: dict[str, str] = {}
        while True:
            page = self._ask(Asked("GET", path, params={**wanted, **after, "limit": _PAGE}))
            yield from map(read, page["data"])
            if not page["has_more"]:
                return
            after = {"starting_after": page["next_cursor"]}

    def _ask(self, asked: Asked) -> dict[str, Any]:
        return _object(self._sender.answer(asked))


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise CtripError(f"that cannot be written as JSON: {error}") from error


def _amount_text(amount: Decimal | str | int) -> str:
    if isinstance(amount, float):
        raise CtripError('an amount is no float, which cannot hold every amount: write "12.50", or a Decimal')
    return format(amount, "f") if isinstance(amount, Decimal) else str(amount)


def _path(payment_id: str, *below: str) -> str:
    # Whatever else it holds, it is no id, and the path would lead elsewhere.
    if not _ID.fullmatch(payment_id):
        raise CtripError(f"{payment_id[:60]!r} is no payment's id")
    return "/".join((_PAYMENTS, payment_id, *below))


def _object(answer: requests.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except requests.JSONDecodeError as error:
        raise CtripError(f"the answer {answer.status_code} is no JSON: is this the URL of cTrip's API?") from error
    if not isinstance(told, dict):
        raise CtripError("the answer is no JSON object: is this the URL of cTrip's API?")
    return told
