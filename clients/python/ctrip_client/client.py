"""The HTTP API, asked so that a broken connection neither loses a payment nor makes two."""

import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from ctrip_client.errors import ApiError, CtripError, NoAnswer, PaymentEnded, TakesTooLong
from ctrip_client.objects import Event, Payment, Transfer, event_of, payment_of, transfer_of

T = TypeVar("T")

_WAY = ("pending", "detected", "confirmed", "settled")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PAYMENTS = "/api/v1/payments"
_ID = re.compile(r"[A-Za-z0-9_]+")
_PAGE = 100
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONGEST_ASKED_FOR_S = 0.5, 8.0, 60.0
_NOTHING_DONE = (429, 503)
"""Answers that say that a request was not carried out."""
_UNDECIDED = (500, 502, 504)
_IN_FLIGHT = "idempotency_in_flight"


@dataclass(frozen=True)
class _Asked:
    """One request, which may be sent several times. `is_repeatable` where that changes no more than once would."""

    method: str
    path: str
    is_repeatable: bool = True
    params: Mapping[str, Any] | None = None
    body: Mapping[str, Any] | None = None
    idempotency_key: str | None = None


class _Bearer(AuthBase):
    """Sends the key with each request. As a mere header, requests would replace it by what a ~/.netrc says."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


class Client:
    """Asks one server with one API key. A thread should have one of its own: it keeps a connection open."""

    def __init__(self, base_url: str, *, api_key: str, timeout_s: float = 20.0, attempts: int = 5) -> None:
        """`timeout_s` is how long the server may be silent, and `attempts` how often a request is sent at the most.

        Raises CtripError for a URL over which the key would go in clear text to another machine.
        """
        parts = urlsplit(base_url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise CtripError(f"{base_url!r} is not https: the API key would travel in clear text")
        if attempts < 1:
            raise CtripError("attempts must be 1 or more")
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._http = requests.Session()
        self._http.headers["Accept"] = "application/json"
        self._http.auth = _Bearer(api_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

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
        where no answer comes: give an `idempotency_key` that belongs to your order, and a crash of your own program
        makes no second payment either. Raises ApiError, NoAnswer; CtripError for an amount that is a float.
        """
        body = {"chain": chain, "token": token, "amount": _amount_text(amount), **fields}
        key = str(uuid.uuid4()) if idempotency_key is None else idempotency_key
        return payment_of(self._ask(_Asked("POST", _PAYMENTS, body=body, idempotency_key=key)))

    def payment(self, payment_id: str) -> Payment:
        """Return a payment. Raises ApiError, NoAnswer."""
        return payment_of(self._ask(_Asked("GET", _path(payment_id))))

    def payments(self, **filters: str) -> Iterator[Payment]:
        """Yield payments, newest first, page by page: status, chain, order_id, created_after, created_before."""
        return self._pages(_PAYMENTS, payment_of, filters)

    def transfers(self, payment_id: str) -> Iterator[Transfer]:
        """Yield what reached a payment's address, oldest block first: why it is, or is not, paid."""
        return self._pages(_path(payment_id, "transfers"), transfer_of, {})

    def events(self, payment_id: str) -> Iterator[Event]:
        """Yield what happened to a payment, oldest first."""
        return self._pages(_path(payment_id, "events"), event_of, {})

    def cancel(self, payment_id: str) -> Payment:
        """Cancel a pending payment that nothing was paid to. Raises ApiError (409 where it is not so), NoAnswer."""
        return payment_of(self._ask(_Asked("POST", _path(payment_id, "cancel"), is_repeatable=False)))

    def accept(self, payment_id: str) -> Payment:
        """Take what came to an expired or canceled payment as good. Raises ApiError (409), NoAnswer."""
        return payment_of(self._ask(_Asked("POST", _path(payment_id, "accept"), is_repeatable=False)))

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
            except (ApiError, NoAnswer) as error:
                if not _passes(error):
                    raise
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

    def _pages(self, path: str, read: Callable[[Mapping[str, Any]], T], filters: Mapping[str, str]) -> Iterator[T]:
        after: dict[str, str] = {}
        while True:
            page = self._ask(_Asked("GET", path, params={**filters, **after, "limit": _PAGE}))
            yield from map(read, page["data"])
            if not page["has_more"]:
                return
            after = {"starting_after": page["next_cursor"]}

    def _ask(self, asked: _Asked) -> dict[str, Any]:
        """Send a request, again where that is safe, and return the object that it was answered with."""
        for attempt in range(1, self._attempts + 1):
            is_last = attempt == self._attempts
            try:
                answer = self._send(asked)
            except requests.RequestException as error:
                if is_last or not _may_repeat(asked, error):
                    raise NoAnswer(f"{asked.method} {asked.path}: {type(error).__name__}") from error
                time.sleep(_pause_s(attempt, None))
                continue
            if answer.ok:
                return _object(answer)
            refusal = _refusal(answer)
            if is_last or not _is_worth_repeating(asked, refusal):
                raise refusal
            time.sleep(_pause_s(attempt, answer.headers.get("Retry-After")))
        raise AssertionError("the last attempt returns or raises")

    def _send(self, asked: _Asked) -> requests.Response:
        headers = {} if asked.idempotency_key is None else {"Idempotency-Key": asked.idempotency_key}
        return self._http.request(
            asked.method,
            self._base_url + asked.path,
            params=asked.params,
            json=asked.body,
            headers=headers,
            timeout=self._timeout_s,
            allow_redirects=False,
        )


def _amount_text(amount: Decimal | str | int) -> str:
    if isinstance(amount, float):
        raise CtripError('an amount is no float, which cannot hold every amount: write "12.50", or a Decimal')
    return format(amount, "f") if isinstance(amount, Decimal) else str(amount)


def _path(payment_id: str, *below: str) -> str:
    # Whatever else it holds, it is no id, and the path would lead elsewhere.
    if not _ID.fullmatch(payment_id):
        raise CtripError(f"{payment_id[:60]!r} is no payment's id")
    return "/".join((_PAYMENTS, payment_id, *below))


def _passes(error: CtripError) -> bool:
    """Say whether it may be otherwise in a while."""
    return not isinstance(error, ApiError) or error.status in (*_NOTHING_DONE, *_UNDECIDED)


def _may_repeat(asked: _Asked, error: requests.RequestException) -> bool:
    """Say whether a request may be sent again that was not answered: it may have been carried out."""
    return asked.is_repeatable or isinstance(error, requests.ConnectTimeout)


def _is_worth_repeating(asked: _Asked, refusal: ApiError) -> bool:
    if refusal.status in _NOTHING_DONE or refusal.code == _IN_FLIGHT:
        return True
    return asked.is_repeatable and refusal.status in _UNDECIDED


def _pause_s(attempt: int, asked_for: str | None) -> float:
    """Return how long to wait before the next attempt: what the server asks for, or longer each time."""
    if asked_for is not None and asked_for.isascii() and asked_for.isdigit():
        return min(float(asked_for), _LONGEST_ASKED_FOR_S)
    # Clients that failed together must not come back together.
    return min(_FIRST_PAUSE_S * (1 << (attempt - 1)), _LONGEST_PAUSE_S) * (0.5 + random.random() / 2)  # noqa: S311


def _object(answer: requests.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except requests.JSONDecodeError as error:
        raise CtripError(f"the answer {answer.status_code} is no JSON: is this the URL of cTrip's API?") from error
    if not isinstance(told, dict):
        raise CtripError("the answer is no JSON object: is this the URL of cTrip's API?")
    return told


def _refusal(answer: requests.Response) -> ApiError:
    try:
        told = answer.json()
    except requests.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        told = {}
    return ApiError(
        answer.status_code,
        str(told.get("code", "unknown")),
        str(told.get("detail", "the answer is no problem of cTrip's; something in between may have given it")),
        param=told.get("param"),
        request_id=told.get("request_id"),
    )
