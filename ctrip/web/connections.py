"""Connections whose request waits for an answer, as Linux knows them: WSGI servers tell nothing of a connection."""

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

_TIMES = struct.Struct("44x III")
"""Of Linux's `struct tcp_info`: milliseconds since something was last sent, acknowledged and received."""


@dataclass(frozen=True)
class Place:
    """Where connections come from and to: the peer's address, and the port here."""

    peer: str
    port: int


@dataclass(frozen=True)
class Unanswered:
    """A connection of this process on which something came since something was last sent.

    That was at `sent_at` (monotonic) or a little later. Nothing more has come for `silent_s`. `inode` names it while it
    is open.
    """

    inode: str
    sent_at: float
    silent_s: float


def unanswered(place: Place) -> list[Unanswered]:
    """Return the connections from a place that wait for an answer, the one that has been silent for longest first."""
    found = []
    for inode, connection in _of_place(place):
        now = time.monotonic()
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TIMES.size)
        sent_ms, _, received_ms = _TIMES.unpack(info)
        if received_ms <= sent_ms:
            found.append(Unanswered(inode, now - sent_ms / 1000, received_ms / 1000))
    return sorted(found, key=lambda each: each.silent_s, reverse=True)


def hang_up(place: Place, inodes: list[str]) -> None:
    """Shut some of the connections from a place: who reads from one or writes to one hears that it has ended."""
    for inode, connection in _of_place(place):
        if inode in inodes:
            connection.shutdown(socket.SHUT_RDWR)


def _of_place(place: Place) -> Iterator[tuple[str, socket.socket]]:
    for name in os.listdir("/proc/self/fd"):
        # Some are closed by now. What is looked at is a copy, which nobody else can close.
        with suppress(OSError), _copy(int(name)) as connection:
            is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM
            is_there = is_tcp and connection.getsockname()[1] == place.port
            if is_there and _plain(connection.getpeername()[0]) == _plain(place.peer):
                yield os.readlink(f"/proc/self/fd/{connection.fileno()}"), connection


def _copy(descriptor: int) -> socket.socket:
    """Open a socket of this process once more. Raises OSError for what is none."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")
