"""JSON-RPC 2.0 over kept-alive HTTP, with a pool of endpoints per chain: the first healthy one answers.

An endpoint that fails is left alone for a while. Before its first answer counts, and again after each failure, it must
show the chain id that was configured. A URL may carry a provider's key, so only the host appears in labels and errors.
"""

import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import msgspec
import urllib3

from ctrip import metrics
from ctrip.domain.chains import Chain
from ctrip.errors import MisconfiguredError, NodeRefused, NodeUnavailable

TIMEOUT_S = 8.0
"""The most that one request may take, however slowly its answer drips."""
_SILENCE_S = 4.0
MAX_BATCH = 100
MAX_REPLY_BYTES = 64 * 2**20
REST_S = 5.0
"""How long a failed endpoint is passed over while another one answers."""

Call = tuple[str, list[object]]
_POOL = urllib3.PoolManager(
    maxsize=16, retries=False, timeout=urllib3.Timeout(connect=2.0, read=_SILENCE_S), cert_reqs="CERT_REQUIRED"
)


class Fault(msgspec.Struct):
    """The error member of a reply."""

    code: int
    message: str


class Reply(msgspec.Struct):
    """One reply: `result` is undecoded JSON, `b"null"` included; or `error` is set."""

    id: int | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Fault | None = None


_REPLIES = msgspec.json.Decoder(list[Reply])
_REPLY = msgspec.json.Decoder(Reply)


class Endpoint:
    """One URL of a chain. `label` is its host, which is all that may be shown of it."""

    def __init__(self, url: str, *, chain: Chain, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._chain = chain
        self._clock = clock
        self._resting_until = 0.0
        self._is_verified = False
        self.label = urlsplit(url).netloc.rpartition("@")[2]

    @property
    def is_resting(self) -> bool:
        """True for a while after a failure."""
        return self._clock() < self._resting_until

    def ask(self, calls: Sequence[Call]) -> list[Reply]:
        """Send calls as one batch and return their replies in the calls' order.

        Raises NodeUnavailable where nothing usable came back; an error of a single call is in its reply.
        """
        try:
            if not self._is_verified:
                self._verify()
            return self._exchange(calls)
        except NodeUnavailable:
            self._is_verified = False
            self._resting_until = self._clock() + REST_S
            raise

    def chain_id(self) -> int:
        """Ask which chain this is. Raises NodeUnavailable."""
        reply = self._exchange([("eth_chainId", [])])[0]
        if reply.error is not None:
            raise NodeUnavailable(f"{self.label} does not tell its chain id: {reply.error.message[:200]}")
        try:
            return int(msgspec.json.decode(reply.result, type=str), 16)
        except ValueError as error:  # msgspec's own errors are ValueErrors too
            raise NodeUnavailable(f"{self.label} does not tell its chain id") from error

    def _verify(self) -> None:
        chain_id = self.chain_id()
        if chain_id != self._chain.chain_id:
            raise NodeUnavailable(f"{self.label} is on chain id {chain_id}, not on {self._chain.chain_id}")
        self._is_verified = True

    def _exchange(self, calls: Sequence[Call]) -> list[Reply]:
        method = calls[0][0]
        started = self._clock()
        outcome = "error"
        try:
            replies = _decode(self._post(calls), count=len(calls), label=self.label)
            outcome = "refused" if any(reply.error for reply in replies) else "ok"
            return replies
        finally:
            labels = {"chain": self._chain.name, "endpoint": self.label, "method": method}
            for possible in metrics.RPC_OUTCOMES:
                metrics.RPC_REQUESTS.labels(**labels, outcome=possible)
            metrics.RPC_REQUESTS.labels(**labels, outcome=outcome).inc()
            metrics.RPC_REQUEST_DURATION.labels(**labels).observe(self._clock() - started)

    def _post(self, calls: Sequence[Call]) -> bytes:
        requests = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(calls)
        ]
        body = msgspec.json.encode(requests if len(requests) > 1 else requests[0])
        deadline = self._clock() + TIMEOUT_S
        try:
            with _POOL.request(
                "POST", self._url, body=body, headers={"Content-Type": "application/json"}, preload_content=False
            ) as response:
                return self._read(response, deadline=deadline)
        except urllib3.exceptions.HTTPError as error:
            # The exception's own text holds the URL's path, where providers put the key.
            raise NodeUnavailable(f"{self.label} did not answer: {type(error).__name__}") from None

    def _read(self, response: urllib3.BaseHTTPResponse, *, deadline: float) -> bytes:
        if response.status >= 300:
            raise NodeUnavailable(f"{self.label} answered HTTP {response.status}")
        answer = bytearray()
        while chunk := response.read1(2**20):
            answer += chunk
            if len(answer) > MAX_REPLY_BYTES:
                raise NodeUnavailable(f"{self.label} answered with more than {MAX_REPLY_BYTES} bytes")
            if self._clock() > deadline:
                raise NodeUnavailable(f"{self.label} did not answer whole within {TIMEOUT_S:.0f} s")
        response.release_conn()
        return bytes(answer)


class RpcPool:
    """The endpoints of one chain, in order of preference. Threads may share it."""

    def __init__(self, chain: Chain, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.endpoints = tuple(Endpoint(url, chain=chain, clock=clock) for url in chain.rpc_urls)
        self._chain = chain
        self._clock = clock

    def verify(self) -> None:
        """Raise MisconfiguredError where a reachable endpoint is on another chain.

        Raises NodeUnavailable where none is reachable.
        """
        wrong, reachable = [], 0
        for endpoint in self.endpoints:
            try:
                chain_id = endpoint.chain_id()
            except NodeUnavailable:
                continue
            reachable += 1
            if chain_id != self._chain.chain_id:
                wrong.append(f"{endpoint.label} is on chain id {chain_id}")
        if wrong:
            raise MisconfiguredError(
                f"chain {self._chain.name} is configured with chain_id {self._chain.chain_id}, "
                f"but {' and '.join(wrong)}: correct chain_id or rpc_urls in CHAINS_FILE"
            )
        if not reachable:
            raise NodeUnavailable(f"no endpoint of chain {self._chain.name} answers")

    def ask(self, calls: Sequence[Call]) -> list[Reply]:
        """Send calls in batches of MAX_BATCH, all to one endpoint; the next one is asked where it fails."""
        ready = [endpoint for endpoint in self.endpoints if not endpoint.is_resting]
        failures: list[str] = []
        started = self._clock()
        for endpoint in ready or self.endpoints:
            try:
                replies: list[Reply] = []
                for first in range(0, len(calls), MAX_BATCH):
                    replies += endpoint.ask(calls[first : first + MAX_BATCH])
            except NodeUnavailable as error:
                failures.append(error.detail)
                if self._clock() - started > TIMEOUT_S:
                    # Whoever asks holds a lease, which would end. Those that failed rest, so the others are asked next.
                    break
            else:
                return replies
        raise NodeUnavailable("; ".join(failures))

    def results(self, calls: Sequence[Call]) -> list[msgspec.Raw]:
        """Send calls and return their results, undecoded. Raises NodeRefused at the first error among them."""
        replies = self.ask(calls) if calls else []
        for (method, _), reply in zip(calls, replies, strict=True):
            if reply.error is not None:
                raise refused(method, reply.error)
        return [reply.result for reply in replies]


def refused(method: str, fault: Fault) -> NodeRefused:
    """Make the error for a call that the node answered with one."""
    message = fault.message[:500]
    return NodeRefused(f"{method}: {message}", rpc_code=fault.code, rpc_message=message)


def _decode(body: bytes, *, count: int, label: str) -> list[Reply]:
    try:
        # A node that dislikes a batch as a whole answers with a single object.
        replies = _REPLIES.decode(body) if body.lstrip()[:1] == b"[" else [_REPLY.decode(body)]
    except msgspec.DecodeError as error:
        raise NodeUnavailable(f"{label} answered no JSON-RPC: {error}") from None
    if count == 1 and len(replies) == 1:
        return replies
    by_id = {reply.id: reply for reply in replies}
    if set(by_id) != set(range(count)):
        told = replies[0].error.message[:200] if replies and replies[0].error else "replies are missing"
        raise NodeUnavailable(f"{label} did not answer the whole batch: {told}")
    return [by_id[number] for number in range(count)]
