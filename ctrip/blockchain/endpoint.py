"""One URL of a chain: how it does, what it allows, and how it is asked.

fails        it rests, longer each time, and must show its chain id again before its next answer counts
429          it is left alone for as long as it says, and asked for less from then on
contradicts  whoever notices lets it rest (`distrust`)
refuses      what it refused for its size is asked again in smaller pieces; a method that it refuses whatever is asked
             is better asked of others, for a while, and it must show its chain id again: it may serve nothing at all
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from ctrip import metrics
from ctrip.blockchain.decoding import BLOCKS, BlockJson, header_of, to_int
from ctrip.blockchain.growth import Growth, Told
from ctrip.blockchain.learning import Learnt, Refusals
from ctrip.blockchain.measuring import measure, outcome_of
from ctrip.blockchain.transport import (
    RAW,
    TEXTS,
    TIMEOUT_S,
    BatchRefused,
    Call,
    Clock,
    Crowded,
    Fault,
    Form,
    NotServed,
    RateLimited,
    Reply,
    TooSlow,
    exchange,
    refused,
)
from ctrip.blockchain.turns import MOST_IN_A_ROW, PLAIN, SHORT_S, Manner, Turns
from ctrip.domain.chains import Chain
from ctrip.domain.limits import Limits, Refusal, is_its_own
from ctrip.domain.scanning import Header
from ctrip.errors import NodeRefused, NodeUnavailable
from ctrip.log import get_logger

REST_S = 5.0
MAX_REST_S = 30.0
"""How long a failed endpoint is passed over while another one answers: twice as long with each failure in a row."""
DISTRUST_S = 30.0
"""How long an endpoint that contradicted itself or another is passed over."""
MAX_ARRIVING_ANSWERS = 2
"""Answers of one endpoint that are received and decoded at once: each may be of megabytes. Many more may be awaited."""
_TOO_MUCH = (Refusal.SIZE, Refusal.BATCH)
_LATEST: Call = ("eth_getBlockByNumber", ["latest", False])
log = get_logger()

T = TypeVar("T")
V = TypeVar("V")


class Endpoint:
    """`label` is all that may be shown of it: its host, and which of several of one host. Threads may share it."""

    def __init__(
        self,
        url: str,
        *,
        label: str,
        chain: Chain,
        learnt: Learnt,
        clock: Clock = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.label = label
        self.learnt = learnt
        self.head: Told | None = None
        self.latency_s: float | None = None
        """How long it took to tell its head when all endpoints were asked at once."""
        self._chain_id = chain.chain_id
        self._names = {"chain": chain.name, "endpoint": self.label}
        self._clock = clock
        self._turns = Turns(self.label, clock=clock, pause=pause)
        arriving = threading.Semaphore(MAX_ARRIVING_ANSWERS)
        self._send = partial(exchange, url, label=label, clock=clock, arriving=arriving)
        self._refusals = Refusals()
        self._growth = Growth()
        self._lock = threading.Lock()
        self._is_verified = False
        self._failures = 0
        self._resting_until = self._distrusted_until = 0.0

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
    def is_away(self) -> bool:
        """True where it rests, or is to be left alone for longer than a request may take."""
        return self.is_resting or self._turns.is_unwelcome or self.wait_s() > TIMEOUT_S

    @property
    def is_suspect(self) -> bool:
        """True where its last answer was a failure: another one is better, until it has answered again."""
        return self._failures > 0

    def refuses(self, methods: Collection[str]) -> bool:
        """True where it refused one of these methods of late, whatever was asked."""
        return self._refusals.has_any(methods, now=self._clock())

    def wait_s(self) -> float:
        """Return how long its rate limits keep it from being asked."""
        return self._turns.wait_s()

    def at_once(self, most: int) -> int:
        """Return how many threads may ask it at once, `most` at the most."""
        return self._turns.at_once(most)

    def distrust(self) -> None:
        """Rest for a while, whatever it answers meanwhile."""
        self._distrusted_until = self._clock() + DISTRUST_S

    def refused(self, method: str, fault: Fault) -> NodeRefused:
        """Make the error for a call that is needed and that it refused; remember where that is its own fault."""
        if is_its_own(method, fault.refusal):
            self.pass_over(method)
            return refused(method, fault, kind=NotServed)
        return refused(method, fault, kind=NotServed if fault.refusal is Refusal.HISTORY else NodeRefused)

    def pass_over(self, method: str) -> None:
        """Remember that it does not serve a method. Whether it serves anything is asked before anything else."""
        if not self.refuses([method]):
            log.warning("endpoint_refuses", **self._names, method=method)
        self._refusals.note(method, now=self._clock())
        self._is_verified = False

    def show(self, *, best: int, needs: Collection[str]) -> None:
        """Show in metrics whether work of these needs passes it over, and how far it is behind the chain's `best`."""
        metrics.ENDPOINT_RESTING.labels(**self._names).set(self.is_away or self.is_suspect or self.refuses(needs))
        if self.head is not None:
            metrics.ENDPOINT_BEHIND_BLOCKS.labels(**self._names).set(max(0, best - self.head.header.number))

    def note_head(self, header: Header, *, asked_at: float) -> None:
        """Remember what it told of its newest block."""
        with self._lock:
            now = self._clock()
            self._growth.note(header.number, at=now)
            self.head = Told(header, asked_at=asked_at, told_at=now, grown_at=self._growth.grown_at)

    def told_for_s(self, number: int) -> float:
        """Return for how long it has told of a head at this number or beyond; 0 where that is not known."""
        with self._lock:
            return self._growth.told_for_s(number, now=self._clock())

    # --- how it is asked --------------------------------------------------------------------------------------------

    def ask(self, calls: Sequence[Call], manner: Manner = PLAIN) -> list[Reply]:
        """Send calls in batches as large as it takes, and return their replies in the calls' order.

        Raises NodeUnavailable where one of them failed; an error of a single call is in its reply.
        """
        return [reply for told in self._told(calls, manner) for reply in told]

    def results(self, calls: Sequence[Call], manner: Manner = PLAIN) -> list[Any]:
        """Send calls and return their results. Raises NodeRefused at the first error among them.

        It is NotServed where another endpoint may serve what this one does not.
        """
        results: list[Any] = []
        for told in self._told(calls, manner):
            for reply in told:
                if reply.error is not None:
                    raise self.refused(calls[len(results)][0], reply.error)
                results.append(reply.result)
        if self._refusals:
            self._refusals.forget({method for method, _ in calls})
        return results

    def newest_with(self, calls: Sequence[Call], manner: Manner = PLAIN) -> tuple[Header, list[BlockJson | None]]:
        """Ask for its newest block and, in the same request, for the blocks of `calls`; raises what `results` does."""
        asked_at = self._clock()
        newest, *blocks = self.results([_LATEST, *calls], replace(manner, form=BLOCKS))
        header = self.understood(newest, header_of)
        self.note_head(header, asked_at=asked_at)
        return header, blocks

    def chain_id(self) -> int:
        """Ask which chain this is. Raises NodeUnavailable."""
        reply = self._exchange([("eth_chainId", [])], TEXTS)[0]
        if reply.error is not None:
            raise NodeUnavailable(f"{self.label} does not tell its chain id: {reply.error.message[:200]}")
        return self.understood(reply.result, to_int)

    def understood(self, told: T, reader: Callable[[T], V]) -> V:
        """Return what `reader` makes of what this endpoint told: one that is not to be understood fails.

        `reader` says so by NodeUnavailable, which is raised with the endpoint's name.
        """
        try:
            return reader(told)
        except NodeUnavailable as error:
            self.failed()
            raise NodeUnavailable(f"{self.label} is not to be understood: {error.detail}") from error

    def failed(self) -> None:
        """Rest: it gave no answer, or one that cannot be read. Failures of one moment count once."""
        with self._lock:
            now = self._clock()
            self._is_verified = False
            if self._failures and now < self._resting_until:
                return
            self._failures += 1
            self._resting_until = now + min(MAX_REST_S, REST_S * 2 ** min(self._failures - 1, 10))

    def _told(self, calls: Sequence[Call], manner: Manner) -> Iterator[list[Reply]]:
        """Yield the replies to batch after batch."""
        count = in_a_row = 0
        while count < len(calls):
            most = self._turns.most_at_once(self.learnt.limits.batch)
            try:
                told = self._ask_some(calls[count : count + most], manner.form)
            except RateLimited:
                # What it has told already would have to be asked for again elsewhere: under a narrow limit for ever.
                in_a_row += 1
                is_begun = manner.is_bound or count > 0
                if not is_begun or in_a_row >= MOST_IN_A_ROW or self.wait_s() > SHORT_S:
                    raise
                continue
            finally:
                manner.keep_lease()
            count, in_a_row = count + len(told), 0
            yield told

    def _ask_some(self, calls: Sequence[Call], form: Form) -> list[Reply]:
        """Return the replies to some of `calls`, the first of them at least: to all where they are not too many."""
        asked = Limits(batch=len(calls), span=0, topics=0)
        try:
            replies = self._ask_once(calls, form)
        except BatchRefused as error:
            self.learnt.refused(error.rpc_code, error.rpc_message, asked=asked)
            return []
        except TooSlow:
            if len(calls) > 1:
                self.learnt.too_much(asked=asked)
            raise
        # geth answers the first calls of a batch, and the rest with errors, where all of them would be too large.
        for at, reply in enumerate(replies):
            if reply.error is not None and reply.error.refusal in _TOO_MUCH and len(calls) > 1:
                self.learnt.refused(reply.error.code, reply.error.text, asked=asked)
                return replies[:at]
        self.learnt.accepted(asked=asked)
        return replies

    def _ask_once(self, calls: Sequence[Call], form: Form) -> list[Reply]:
        try:
            if not self._is_verified:
                self._verify()
            replies = self._exchange(calls, form)
        except (RateLimited, Crowded):
            raise
        except NodeUnavailable:
            self.failed()
            raise
        with self._lock:
            self._failures = 0
            self._resting_until = 0.0
        self._turns.answered()
        return replies

    def _verify(self) -> None:
        chain_id = self.chain_id()
        if chain_id != self._chain_id:
            raise NodeUnavailable(f"{self.label} is on chain id {chain_id}, not on {self._chain_id}")
        self._is_verified = True

    def _exchange(self, calls: Sequence[Call], form: Form = RAW) -> list[Reply]:
        self._turns.wait(len(calls))
        started, outcome = self._clock(), "error"
        try:
            replies = self._send(calls, form=form)
            outcome = outcome_of(calls, replies)
        except RateLimited as error:
            outcome = "limited"
            wait_s, rate = self._turns.limited(error.wait_s)
            log.info("endpoint_limits_rate", **self._names, wait_s=wait_s, calls_per_s=rate)
            raise
        except BatchRefused:
            outcome = "refused"
            raise
        finally:
            measure(calls, outcome, **self._names, seconds=self._clock() - started)
        return replies
