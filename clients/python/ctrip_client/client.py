"""The HTTP API, asked so that a broken connection neither loses a payment nor makes two."""

import json
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
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
_API_KEY = re.compile(r"sk_[A-Za-z0-9_-]+")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_ID = re.compile(r"[A-Za-z0-9_]+")
_PAGE = 100
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONGEST_ASKED_FOR_S = 0.5, 8.0, 60.0
_NOT_CARRIED_OUT = 429
_MAY_PASS = (_NOT_CARRIED_OUT, 500, 502, 503, 504)
"""Answers after which nobody knows whether a request was carried out, but for the first."""
_IN_FLIGHT = "idempotency_in_flight"


@dataclass(frozen=True)
class _Asked:
    """One request, which may be sent several times. `is_repeatable` where that changes no more than once would."""

    method: str
    path: str
    is_repeatable: bool = True
    params: Mapping[str, Any] | None = None
    body: bytes | None = None
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

    def __init__(
        self, base_url: str, *, api_key: str, timeout_s: float = 20.0, attempts: int = 5, allow_http: bool = False
    ) -> None:
        """`timeout_s` is how long the server may be silent, and `attempts` how often a request is sent at the most.

        Raises CtripError for a URL over which the key would go in clear text to another machine, unless `allow_http`
        says that the network is your own.
        """
        is_local = _is_local(base_url)
        if not (is_local or allow_http or base_url.startswith("https://")):
            raise CtripError(f"{base_url!r} is not https: the API key would travel in clear text")
        if not _API_KEY.fullmatch(api_key):
            raise CtripError("that is no API key: it begins with sk_, and has no spaces or line ends")
        if attempts < 1:
            raise CtripError("attempts must be 1 or more")
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._http = requests.Session()
        self._http.headers["Accept"] = "application/json"
        self._http.auth = _Bearer(api_key)
        # A proxy of the environment is another machine.
        self._http.trust_env = not is_local

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
        where no answer comes: give an `idempotency_key` of this attempt to pay an order, and a crash of your own
        program makes no second payment within 72 hours either: you get the first one, as it is by then.

        Raises ApiError; NoAnswer, which has the key; CtripError for an amount that is a float.
        """
        body = _json({"chain": chain, "token": token, "amount": _amount_text(amount), **fields})
        key = str(uuid.uuid4()) if idempotency_key is None else idempotency_key
        if not _KEY.fullmatch(key):
            raise CtripError("an idempotency_key has 1 to 255 printable ASCII characters")
        answer = self._answer(_Asked("POST", _PAYMENTS, body=body, idempotency_key=key))
        made = payment_of(_object(answer))
        # What is given again is the first answer, and the payment may have gone on since.
        return self.payment(made.id) if answer.headers.get("Idempotency-Replayed") == "true" else made

    def payment(self, payment_id: str) -> Payment:
        """Return a payment. Raises ApiError, NoAnswer."""
        return payment_of(self._ask(_Asked("GET", _path(payment_id))))

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
            page = self._ask(_Asked("GET", path, params={**wanted, **after, "limit": _PAGE}))
            yield from map(read, page["data"])
            if not page["has_more"]:
                return
            after = {"starting_after": page["next_cursor"]}

    def _ask(self, asked: _Asked) -> dict[str, Any]:
        return _object(self._answer(asked))

    def _answer(self, asked: _Asked) -> requests.Response:
        """Send a request, again where that is safe, and return the answer to it. Raises ApiError, NoAnswer."""
        for attempt in range(1, self._attempts + 1):
            asked_for = None
            try:
                answer = self._send(asked)
            except (requests.Timeout, requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                why, may_repeat = type(error).__name__, _may_repeat(asked, error)
            except requests.RequestException as error:
                raise CtripError(f"{asked.method} {asked.path} cannot be sent: {error}") from error
            else:
                if answer.ok:
                    return answer
                refusal = _refusal(answer)
                if not _may_pass(refusal):
                    raise refusal
                why, may_repeat = str(refusal), asked.is_repeatable or refusal.status == _NOT_CARRIED_OUT
                asked_for = answer.headers.get("Retry-After")
            if attempt == self._attempts or not may_repeat:
                break
            time.sleep(_pause_s(attempt, asked_for))
        raise NoAnswer(f"{asked.method} {asked.path}: {why}", idempotency_key=asked.idempotency_key)

    def _send(self, asked: _Asked) -> requests.Response:
        headers = {} if asked.body is None else {"Content-Type": "application/json"}
        if asked.idempotency_key is not None:
            headers["Idempotency-Key"] = asked.idempotency_key
        return self._http.request(
            asked.method,
            self._base_url + asked.path,
            params=asked.params,
            data=asked.body,
            headers=headers,
            timeout=self._timeout_s,
            allow_redirects=False,
        )


def _is_local(base_url: str) -> bool:
    """Say whether a URL stays on this machine. Raises CtripError where it is none."""
    try:
        parts = urlsplit(base_url)
    except ValueError as error:
        raise CtripError(f"{base_url!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CtripError(f"{base_url!r} is no URL of a server, such as https://pay.example")
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


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


def _may_repeat(asked: _Asked, error: requests.RequestException) -> bool:
    """Say whether a request may be sent again that was not answered: it may have been carried out."""
    if isinstance(error, requests.exceptions.SSLError):
        return False
    return asked.is_repeatable or isinstance(error, requests.ConnectTimeout)


def _may_pass(refusal: ApiError) -> bool:
    return refusal.status in _MAY_PASS or refusal.code == _IN_FLIGHT


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
