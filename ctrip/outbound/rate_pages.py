"""Pages of JSON from one server that the operator names: each within a time limit, on a connection of its own.

Built on http.client for the reasons that `ctrip.outbound.http` names: no redirect is followed, no proxy asked, and an
answer of any size costs no more than what is read of it.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from ctrip import __version__
from ctrip.domain.rates import Refusal
from ctrip.errors import RateRefused
from ctrip.outbound.dialling import TOO_LONG, Dialler, system_trust, words_of
from ctrip.outbound.http import StatusFirst, retry_after_s
from ctrip.outbound.shutting import shut_after
from ctrip.time_limits import Overdue, TimeLimit

MAX_BODY_BYTES = 49_152
"""Room for twice what CoinGecko answers to 200 pairs."""
_HEADERS = {"Accept": "application/json", "User-Agent": f"ctrip/{__version__}", "Connection": "close"}


class Number(str):
    """A number as JSON writes it: a float would round it."""


class RatePages:
    """The pages of a source of rates. `request_s` bounds a request from the name to the last byte read."""

    def __init__(self, url: str, *, request_s: float, trust: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._is_tls else 80)
        self._path = parts.path.rstrip("/")
        self._request_s = request_s
        self._trust = trust
        self._dialler = Dialler()

    def read(self, target: str, *, headers: Mapping[str, str], time_limit: TimeLimit) -> dict[str, Any]:
        """GET a page and return the object that it holds. Raises RateRefused."""
        try:
            limit = TimeLimit(time_limit.left_s(self._request_s))
        except Overdue:
            raise RateRefused("there was no time left to ask it", reason=Refusal.UNREACHABLE) from None
        with _told_in_words(limit):
            addresses = self._dialler.addresses(self._host, self._port, time_limit=limit)
            with (
                closing(self._dialler.connected(addresses, self._port, time_limit=limit)) as plain,
                shut_after(limit, plain),
                closing(self._secured(plain)) as sock,
            ):
                connection = http.client.HTTPConnection(self._host, self._port)
                connection.auto_open = 0  # it never dials by itself
                connection.default_port = 443 if self._is_tls else 80
                connection.response_class = StatusFirst
                connection.sock = sock
                connection.request("GET", self._path + target, headers={**_HEADERS, **headers})
                with connection.getresponse() as response:
                    _refuse_status(response)
                    body = _body(response)
            if limit.is_over:
                raise Overdue  # a body that says nothing of its length seems to end where it was broken off
        return _object(body)

    def _secured(self, sock: socket.socket) -> socket.socket:
        """Agree on TLS where the URL says https."""
        return self._trusted.wrap_socket(sock, server_hostname=self._host) if self._is_tls else sock

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        return self._trust or system_trust()


@contextmanager
def _told_in_words(limit: TimeLimit) -> Iterator[None]:
    """Say what went wrong on the way. What came in time, and only in part, was cut off by the other side."""
    try:
        yield
    except http.client.IncompleteRead as error:
        if not limit.is_over:
            raise malformed("the answer is cut off") from error
        raise RateRefused(TOO_LONG, reason=Refusal.UNREACHABLE) from error
    except (OSError, http.client.HTTPException) as error:
        raise RateRefused(TOO_LONG if limit.is_over else words_of(error), reason=Refusal.UNREACHABLE) from error


def _refuse_status(response: http.client.HTTPResponse) -> None:
    """Refuse whatever is not 200; redirects lead nowhere."""
    if response.status == 200:
        return
    reason = Refusal.LIMITED if response.status == 429 else Refusal.STATUS
    raise RateRefused(f"it answered {response.status}", reason=reason, retry_after_s=retry_after_s(response.headers))


def _body(response: http.client.HTTPResponse) -> bytes:
    """Read a body whole. Raises IncompleteRead where its end is missing."""
    body = response.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise malformed(f"the answer is larger than {MAX_BODY_BYTES} bytes")
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    return body


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body.decode(), parse_float=Number, parse_int=Number, parse_constant=Number)
    except (ValueError, RecursionError) as error:
        raise malformed("the answer is no JSON") from error
    if not isinstance(content, dict):
        raise malformed("the answer is no JSON object")
    return content


def malformed(detail: str) -> RateRefused:
    """Say that an answer is not as the source documents it."""
    return RateRefused(detail, reason=Refusal.MALFORMED)
