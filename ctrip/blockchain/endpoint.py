"""One URL of a chain: how it does, what it allows, and how it is asked.

fails        it rests, longer each time, and must show its chain id again before its next answer counts
429          it is left alone for as long as it says, and asked for less from then on
contradicts  whoever notices lets it rest (`distrust`)
refuses      what it refused for its size is asked again in smaller pieces
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from ctrip import metrics
from ctrip.blockchain.budget import Budget
from ctrip.blockchain.decoding import HeaderJson, header_of
from ctrip.blockchain.learning import Learnt
from ctrip.blockchain.transport import (
    TIMEOUT_S,
    BatchRefused,
    Call,
    Clock,
    Fault,
    RateLimited,
    Reply,
    TooSlow,
    exchange,
    label_of,
    refused,
)
from ctrip.domain.chains import Chain
from ctrip.domain.limits import Limits, Refusal
from ctrip.domain.scanning import Header
from ctrip.errors import NodeUnavailable
from ctrip.log import get_logger

REST_S = 5.0
MAX_REST_S = 30.0
"""How long a failed endpoint is passed over while another one answers: twice as long with each failure in a row."""
DISTRUST_S = 30.0
"""How long an endpoint that contradicted itself or another is passed over."""
PAUSE_S = 1.0
"""How long an endpoint that limits the rate is left alone where it does not say: twice as long each time in a row."""
MAX_PAUSE_S = 120.0
"""How long at the most where it does say."""
MOMENT_S = 0.001

_HEADER = msgspec.json.Decoder(HeaderJson)
_LATEST: Call = ("eth_getBlockByNumber", ["latest", False])
log = get_logger()


@dataclass(frozen=True)
class Told:
    """The newest block that an endpoint told of: it was asked, and had answered, at these moments of the clock."""

    header: Header
    asked_at: float
    told_at: float


class Endpoint:
    """`label` is its host, which is all that may be shown of it. Threads may share it."""

    def __init__(
        self,
        url: str,
        *,
        chain: Chain,
        learnt: Learnt,
        clock: Clock = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.label = label_of(url)
        self.learnt = learnt
        self.head: Told | None = None
        self.behind_with: Told | None = None
        """What it told when it was found to be behind the others."""
        self.latency_s: float | None = None
        """How long it took to tell its head when all endpoints were asked at once."""
        self._url = url
        self._chain = chain
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._budget = Budget()
        self._is_verified = False
        self._failures = 0
        self._pauses = 0
        self._resting_until = self._distrusted_until = self._barred_until = 0.0

    # --- how it does ------------------------------------------------------------------------------------------------

    @property
    def is_resting(self) -> bool:
        """True for a while after a failure or a contradiction."""
        return self.is_failing or self._clock() < self._distrusted_until

    @property
    def is_failing(self) -> bool:
        """True for a while after a failure."""
        return self._clock() < self._resting_until

    @property
    def is_suspect(self) -> bool:
        """True where its last answer was a failure: another one is better, until it has answered again."""
        return self._failures > 0

    def wait_s(self) -> float:
        """Return how long its rate limits keep it from being asked."""
        with self._lock:
            now = self._clock()
            return max(0.0, self._barred_until - now, self._budget.wait_s(now))

    def distrust(self) -> None:
        """Rest for a while, whatever it answers meanwhile."""
        self._distrusted_until = self._clock() + DISTRUST_S

    def note_head(self, header: Header, *, asked_at: float) -> None:
        """Remember what it told of its newest block."""
        self.head = Told(header, asked_at=asked_at, told_at=self._clock())

    # --- how it is asked --------------------------------------------------------------------------------------------

    def ask(self, calls: Sequence[Call]) -> list[Reply]:
        """Send calls in batches as large as it takes, and return their replies in the calls' order.

        Raises NodeUnavailable where one of them failed; an error of a single call is in its reply.
        """
        replies: list[Reply] = []
        while len(replies) < len(calls):
            some = calls[len(replies) : len(replies) + self.learnt.limits.batch]
            replies += self._ask_some(some)
        return replies

    def results(self, calls: Sequence[Call]) -> list[msgspec.Raw]:
        """Send calls and return their results, undecoded. Raises NodeRefused at the first error among them."""
        replies = self.ask(calls) if calls else []
        for (method, _), reply in zip(calls, replies, strict=True):
            if reply.error is not None:
                raise refused(method, reply.error)
        return [reply.result for reply in replies]

    def newest(self) -> Header:
        """Ask for its newest block. Raises NodeUnavailable."""
        return self.newest_with([])[0]

    def newest_with(self, calls: Sequence[Call]) -> tuple[Header, list[msgspec.Raw]]:
        """Ask for its newest block and, in the same request, for `calls`; raises what `results` does."""
        asked_at = self._clock()
        newest, *results = self.results([_LATEST, *calls])
        try:
            header = _header(newest)
        except NodeUnavailable:
            self.failed()
            raise
        self.note_head(header, asked_at=asked_at)
        return header, results

    def chain_id(self) -> int:
        """Ask which chain this is. Raises NodeUnavailable."""
        reply = self._exchange([("eth_chainId", [])])[0]
        if reply.error is not None:
            raise NodeUnavailable(f"{self.label} does not tell its chain id: {reply.error.message[:200]}")
        try:
            return int(msgspec.json.decode(reply.result, type=str), 16)
        except ValueError as error:  # msgspec's own errors are ValueErrors too
            raise NodeUnavailable(f"{self.label} does not tell its chain id") from error

    def failed(self) -> None:
        """Rest: it gave no answer, or one that cannot be read. Failures of one moment count once."""
        with self._lock:
            now = self._clock()
            self._is_verified = False
            if self._failures and now < self._resting_until:
                return
            self._failures += 1
            self._resting_until = now + min(MAX_REST_S, REST_S * 2 ** min(self._failures - 1, 10))

    def _ask_some(self, calls: Sequence[Call]) -> list[Reply]:
        """Return the replies to some of `calls`, the first of them at least: to all where they are not too many."""
        asked = Limits(batch=len(calls), span=0, topics=0)
        try:
            replies = self._ask_once(calls)
        except BatchRefused as error:
            if not self.learnt.refused(error.rpc_code, error.rpc_message, asked=asked):
                self.failed()
                raise NodeUnavailable(error.detail) from None
            return []
        except TooSlow:
            if len(calls) > 1:
                self.learnt.too_much(asked=asked)
            raise
        cut = next((at for at, reply in enumerate(replies) if _is_cut_off(reply.error)), None)
        if cut is None or len(calls) == 1:
            self.learnt.accepted(asked=asked)
            return replies
        # geth answers the first calls of a batch, and the rest with errors, where all of them would be too large.
        fault = replies[cut].error
        if fault is not None:
            self.learnt.refused(fault.code, fault.text, asked=asked)
        return replies[:cut]

    def _ask_once(self, calls: Sequence[Call]) -> list[Reply]:
        try:
            if not self._is_verified:
                self._verify()
            replies = self._exchange(calls)
        except RateLimited:
            raise
        except NodeUnavailable:
            self.failed()
            raise
        with self._lock:
            self._failures = self._pauses = 0
            self._resting_until = 0.0
            self._budget.grow(self._clock())
        return replies

    def _verify(self) -> None:
        chain_id = self.chain_id()
        if chain_id != self._chain.chain_id:
            raise NodeUnavailable(f"{self.label} is on chain id {chain_id}, not on {self._chain.chain_id}")
        self._is_verified = True

    def _exchange(self, calls: Sequence[Call]) -> list[Reply]:
        self._wait_for_its_turn(len(calls))
        started, outcome = self._clock(), "error"
        try:
            replies = exchange(self._url, calls, clock=self._clock)
            outcome = "refused" if any(reply.error for reply in replies) else "ok"
        except RateLimited as error:
            outcome = "limited"
            self._bar(error)
            raise
        except BatchRefused:
            outcome = "refused"
            raise
        finally:
            self._measure(calls[0][0], outcome, started=started)
        return replies

    def _wait_for_its_turn(self, calls: int) -> None:
        """Wait until the rate limits allow a request. Raises RateLimited where that is longer than one may take."""
        deadline = self._clock() + TIMEOUT_S
        while True:
            with self._lock:
                now = self._clock()
                wait_s = max(self._barred_until - now, self._budget.wait_s(now))
                if wait_s <= MOMENT_S:
                    self._budget.spend(calls, now=now)
                    return
            if now + wait_s > deadline:
                raise RateLimited(f"{self.label} is left alone for {wait_s:.0f} s: it limits the rate", wait_s=wait_s)
            self._pause(wait_s)

    def _bar(self, error: RateLimited) -> None:
        """Leave it alone for as long as it asks for, and send less from then on."""
        with self._lock:
            now = self._clock()
            told = error.wait_s
            guessed_s = min(MAX_REST_S, PAUSE_S * 2 ** min(self._pauses, 10))
            wait_s = guessed_s if told is None else min(MAX_PAUSE_S, told)
            if now >= self._barred_until:
                self._pauses += 1
            self._budget.halve(now)
            self._barred_until = max(self._barred_until, now + wait_s)
            rate = self._budget.rate
        log.info("endpoint_limits_rate", chain=self._chain.name, endpoint=self.label, wait_s=wait_s, calls_per_s=rate)

    def _measure(self, method: str, outcome: str, *, started: float) -> None:
        labels = {"chain": self._chain.name, "endpoint": self.label, "method": method}
        for possible in metrics.RPC_OUTCOMES:
            metrics.RPC_REQUESTS.labels(**labels, outcome=possible)
        metrics.RPC_REQUESTS.labels(**labels, outcome=outcome).inc()
        metrics.RPC_REQUEST_DURATION.labels(**labels).observe(self._clock() - started)


def _header(result: msgspec.Raw) -> Header:
    try:
        return header_of(_HEADER.decode(result))
    except ValueError as error:  # msgspec's errors, and undecodable text; a node that has no head answers null
        raise NodeUnavailable(f"a head of the wrong form: {error}") from error


def _is_cut_off(fault: Fault | None) -> bool:
    return fault is not None and fault.refusal in (Refusal.SIZE, Refusal.BATCH)
