"""The guarded POST: to the address that was checked, within a wall-clock limit, whatever the other side does.

    read the URL │ resolve the name, once │ check every address │ dial one of them │ TLS for the name │ POST │ status

It is built on http.client, which by itself follows no redirect, asks no proxy, reads no environment, keeps no cookie
and decodes no content: an answer of any size costs the kilobytes that are read of it.
"""

import http.client
import io
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from ctrip.errors import DeliveryFailed, DestinationRefused
from ctrip.outbound.destinations import Address, Destination, Network, check_addresses, read_address, read_destination
from ctrip.outbound.dialling import TOO_LONG, Connect, Dialler, Resolve, dial, system_resolve, system_trust, words_of
from ctrip.outbound.lanes import Lane
from ctrip.outbound.shutting import shut_after
from ctrip.outbound.streams import Capped
from ctrip.time_limits import TimeLimit

MAX_RESPONSE_BYTES = 1024


@dataclass(frozen=True)
class Answer:
    """An answer, whatever its status. `response` is the first 1 KiB of the body as text without NUL.

    `retry_after_s` is what a `Retry-After` asks for, in seconds or as a date against the answer's own `Date`.
    """

    status_code: int
    response: str
    retry_after_s: int | None


class Poster:
    """Posts to URLs that merchants name. `allow` are the networks that the operator has opened, also for http.

    `timeout_s` bounds an attempt from the name to the last byte read. `slow_lane` has places for `slow_places` threads
    that post to destinations which were slow before. Safe to share between threads.
    """

    def __init__(
        self,
        *,
        allow: tuple[Network, ...] = (),
        timeout_s: float = 15.0,
        resolve: Resolve = system_resolve,
        connect: Connect = dial,
        trust: ssl.SSLContext | None = None,
        slow_places: int = 8,
    ) -> None:
        self.timeout_s = timeout_s
        self.slow_lane = Lane(slow_places)
        self._allow = allow
        self._dialler = Dialler(resolve=resolve, connect=connect)
        self._trust = trust

    def check(self, url: str, *, param: str | None = None) -> None:
        """Raise DestinationRefused, with the `param` that is at fault, for a URL that could never be dialled.

        Names are not resolved: that is `post`'s.
        """
        try:
            self._check(read_destination(url))
        except DestinationRefused as error:
            raise DestinationRefused(error.detail, param=param) from error

    def post(self, url: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST once and return the answer, be it a redirect or an error.

        Raises DestinationRefused where the URL leads where it may not, DeliveryFailed where no status line came.
        """
        destination = read_destination(url)
        time_limit = TimeLimit(self.timeout_s)
        try:
            addresses = self._addresses(destination, time_limit)
            check_addresses(destination, addresses, allow=self._allow)
            checked = [str(address) for address in addresses]
            with (
                closing(self._dialler.connected(checked, destination.port, time_limit=time_limit)) as plain,
                shut_after(time_limit, plain),
                closing(self._secured(plain, destination)) as sock,
            ):
                return _exchange(sock, destination, body=body, headers=headers)
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryFailed(TOO_LONG if time_limit.is_over else words_of(error)) from error

    def _check(self, destination: Destination) -> None:
        if destination.literal is not None:
            check_addresses(destination, [destination.literal], allow=self._allow)
        elif not destination.is_tls and not self._allow:
            raise DestinationRefused("the URL's scheme is not https")

    def _addresses(self, destination: Destination, time_limit: TimeLimit) -> list[Address]:
        if destination.literal is not None:
            return [destination.literal]
        found = self._dialler.addresses(destination.host, destination.port, time_limit=time_limit)
        return [read_address(text) for text in found]

    def _secured(self, sock: socket.socket, destination: Destination) -> socket.socket:
        """Agree on TLS where the URL says https. The certificate must be the host's, not the address's."""
        if not destination.is_tls:
            return sock
        return self._trusted.wrap_socket(sock, server_hostname=destination.host)

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        return self._trust or system_trust()


class _WholeLines(io.BufferedReader):
    """A stream of whole lines: http.client would take a status line that the time limit broke off for all of it."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if line and not line.endswith(b"\n") and len(line) != size:
            raise http.client.IncompleteRead(line)
        return line


class StatusFirst(http.client.HTTPResponse):
    """An answer that stands from its status line on: headers that never end, or make no sense, do not take it back."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = _WholeLines(Capped(self.fp.detach()))

    def begin(self) -> None:
        """Read the status line and the headers."""
        try:
            super().begin()
        except (OSError, http.client.HTTPException):
            if not isinstance(self.status, int):
                raise
            self.headers = self.msg = http.client.HTTPMessage()
            self.length, self.chunked, self.will_close = 0, False, True


def _exchange(sock: socket.socket, destination: Destination, *, body: bytes, headers: Mapping[str, str]) -> Answer:
    connection = http.client.HTTPConnection(destination.host, destination.port)
    connection.auto_open = 0  # it never dials by itself
    connection.default_port = 443 if destination.is_tls else 80
    connection.response_class = StatusFirst
    connection.sock = sock
    connection.request("POST", destination.target, body=body, headers={**headers, "Connection": "close"})
    with connection.getresponse() as response:
        opening = _opening(response).decode(errors="replace").replace("\x00", "\ufffd")
        return Answer(response.status, opening, retry_after_s(response.headers))


def _opening(response: http.client.HTTPResponse) -> bytes:
    """Return the first 1 KiB of the body, or what came of it before the connection broke."""
    opening = bytearray()
    with suppress(OSError, ValueError, http.client.HTTPException):
        while len(opening) < MAX_RESPONSE_BYTES:
            # One byte at a time: a longer read that the time limit breaks would lose what a drip had brought.
            byte = response.read(1)
            if not byte:
                break
            opening += byte
    return bytes(opening)


def retry_after_s(headers: http.client.HTTPMessage) -> int | None:
    """Return what a `Retry-After` asks for, in seconds; as a date it is read against the answer's own `Date`."""
    asked = str(headers.get("Retry-After", "")).strip()
    if asked.isascii() and asked.isdigit():
        return int(asked[:9])
    try:
        wait = parsedate_to_datetime(asked) - parsedate_to_datetime(str(headers.get("Date", "")))
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0, int(wait.total_seconds()))
