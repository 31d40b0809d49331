"""How a request is sent: again where that is safe, so that a lost answer neither loses a payment nor makes two."""

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from ctrip_client.errors import ApiError, CtripError, NoAnswer

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_API_KEY = re.compile(r"sk_[A-Za-z0-9_-]+")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONGEST_ASKED_FOR_S = 0.5, 8.0, 60.0
_LEAST_S = 1.0
"""What a request is given to be answered, however little is left until its end."""
_NOT_CARRIED_OUT = 429
_MAY_PASS = (_NOT_CARRIED_OUT, 500, 502, 503, 504)
"""Answers after which nobody knows whether a request was carried out, but for the first."""
_IN_FLIGHT = "idempotency_in_flight"


@dataclass(frozen=True)
class Asked:
    """One request, which may be sent several times. `is_repeatable` where that changes no more than once would.

    Nobody waits for an answer, nor before another attempt, beyond `ends_at`, a moment of `time.monotonic`.
    """

    method: str
    path: str
    is_repeatable: bool = True
    params: Mapping[str, Any] | None = None
    body: bytes | None = None
    idempotency_key: str | None = None
    ends_at: float | None = None

    @property
    def is_over(self) -> bool:
        """True where nobody waits for the answer any more."""
        return self.ends_at is not None and time.monotonic() >= self.ends_at

    def within(self, seconds: float) -> float:
        """Return so many seconds, or those that are left where they are fewer."""
        return seconds if self.ends_at is None else min(seconds, max(0.0, self.ends_at - time.monotonic()))


class Sender:
    """One server, and one key. Arguments and what they raise are those of `Client`."""

    def __init__(self, base_url: str, *, api_key: str, timeout_s: float, attempts: int, allow_http: bool) -> None:
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
        # A proxy of the environment is another machine: through TLS it sees nothing, and in clear text the key.
        self._http.trust_env = base_url.startswith("https://")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def answer(self, asked: Asked) -> requests.Response:
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
            if attempt == self._attempts or not may_repeat or asked.is_over:
                break
            time.sleep(asked.within(pause_s(attempt, asked_for)))
        raise NoAnswer(f"{asked.method} {asked.path}: {why}", idempotency_key=asked.idempotency_key)

    def _send(self, asked: Asked) -> requests.Response:
        headers = {} if asked.body is None else {"Content-Type": "application/json"}
        if asked.idempotency_key is not None:
            headers["Idempotency-Key"] = asked.idempotency_key
        return self._http.request(
            asked.method,
            self._base_url + asked.path,
            params=asked.params,
            data=asked.body,
            headers=headers,
            timeout=max(_LEAST_S, asked.within(self._timeout_s)),
            allow_redirects=False,
        )


class _Bearer(AuthBase):
    """Sends the key with each request. As a mere header, requests would replace it by what a ~/.netrc says."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


def _is_local(base_url: str) -> bool:
    """Say whether a URL stays on this machine. Raises CtripError where it is none."""
    try:
        parts = urlsplit(base_url)
    except ValueError as error:
        raise CtripError(f"{base_url!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CtripError(f"{base_url!r} is no URL of a server, such as https://pay.example")
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


def _may_repeat(asked: Asked, error: requests.RequestException) -> bool:
    """Say whether a request may be sent again that was not answered: it may have been carried out."""
    if isinstance(error, requests.exceptions.SSLError):
        return False
    return asked.is_repeatable or isinstance(error, requests.ConnectTimeout)


def _may_pass(refusal: ApiError) -> bool:
    return refusal.status in _MAY_PASS or refusal.code == _IN_FLIGHT


def pause_s(attempt: int, asked_for: str | None) -> float:
    """Return how long to wait before the next attempt: what the server asks for, a minute at most, or longer each time.

    A `Retry-After` is a number of seconds, or a date (RFC 9110, section 10.2.3).
    """
    if asked_for is not None and asked_for.isascii() and asked_for.isdigit():
        return min(float(asked_for), _LONGEST_ASKED_FOR_S)
    if asked_for is not None and (moment := _date(asked_for)) is not None:
        return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), _LONGEST_ASKED_FOR_S)
    # Clients that failed together must not come back together.
    return min(_FIRST_PAUSE_S * (1 << (attempt - 1)), _LONGEST_PAUSE_S) * (0.5 + random.random() / 2)  # noqa: S311


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


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
