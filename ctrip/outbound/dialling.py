"""From a name to a connected socket, within a time limit, and what people read where it fails."""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

import certifi

from ctrip.time_limits import TimeLimit

MAX_ADDRESSES_TRIED = 4
MAX_RESOLVING = 32
CONNECT_TIMEOUT_S = 5.0

Resolve = Callable[[str, int], Sequence[str]]
"""(host, port) -> addresses as text. Raises OSError where there are none."""

Connect = Callable[[str, int, float], socket.socket]
"""(address, port, timeout in seconds) -> a connected socket. Raises OSError."""

TOO_LONG = "the destination took too long"
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, TOO_LONG),
    (socket.gaierror, "the host's name could not be resolved"),
    (ssl.SSLCertVerificationError, "the certificate is expired, for another name or from an unknown authority"),
    (ssl.SSLError, "TLS could not be agreed on"),
    (ConnectionRefusedError, "the connection was refused"),
    (ConnectionError, "the connection was closed before an answer came"),
    (http.client.HTTPException, "the answer was no HTTP"),
)


def words_of(error: Exception) -> str:
    """Return what people read of an exception. Its own words could carry anything, our network's names included."""
    return next((words for kind, words in _WORDS if isinstance(error, kind)), "the host cannot be reached")


def system_resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver for a host's addresses, each once, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def dial(address: str, port: int, timeout_s: float) -> socket.socket:
    """Connect to an address, which is never a name."""
    sock = socket.create_connection((address, port), timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def system_trust() -> ssl.SSLContext:
    """Make a context that checks certificates. The system's authorities may know a company's own."""
    trusted = ssl.create_default_context()
    # certifi's are there where a slim image has none.
    trusted.load_verify_locations(certifi.where())
    return trusted


class Dialler:
    """Resolves and connects, with a bound on the threads that wait for names. Safe to share between threads."""

    def __init__(self, *, resolve: Resolve = system_resolve, connect: Connect = dial) -> None:
        self._resolve = resolve
        self._connect = connect
        # The system's resolver cannot be stopped: a slow name keeps its thread after the attempt was given up.
        self._resolvers = threading.BoundedSemaphore(MAX_RESOLVING)

    def addresses(self, host: str, port: int, *, time_limit: TimeLimit) -> Sequence[str]:
        """Resolve a name in a thread of its own, because the system's resolver has no time limit. Raises OSError."""
        if not self._resolvers.acquire(timeout=time_limit.left_s()):
            raise TimeoutError("all resolver threads are waiting for an answer")
        answers: SimpleQueue[Sequence[str] | OSError] = SimpleQueue()

        def ask() -> None:
            try:
                answers.put(self._resolve(host, port))
            except OSError as error:
                answers.put(error)
            finally:
                self._resolvers.release()

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        try:
            answer = answers.get(timeout=time_limit.left_s())
        except Empty:
            raise TimeoutError("the name was not resolved in time") from None
        if isinstance(answer, OSError):
            raise answer
        return answer

    def connected(self, addresses: Sequence[str], port: int, *, time_limit: TimeLimit) -> socket.socket:
        """Connect to the first address that answers, a few at the most. Raises OSError."""
        failure: OSError | None = None
        for address in addresses[:MAX_ADDRESSES_TRIED]:
            try:
                left_s = time_limit.left_s()
                sock = self._connect(address, port, min(left_s, CONNECT_TIMEOUT_S))
            except OSError as error:
                failure = error
            else:
                sock.settimeout(left_s)
                return sock
        raise failure or OSError("no address")
