"""What is asked of a chain's endpoints, and of whom: of the best one, or of the next where that one fails."""

import copy
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

import msgspec

from ctrip.blockchain.decoding import BlockJson
from ctrip.blockchain.endpoint import Endpoint
from ctrip.blockchain.fleet import READING, Fleet
from ctrip.blockchain.learning import Learnt
from ctrip.blockchain.transport import RAW, TIMEOUT_S, Call, Clock, Fault, Form, NotServed, Reply, labels_of
from ctrip.blockchain.turns import Manner
from ctrip.domain.chains import Chain
from ctrip.domain.limits import Limits, Refusal, is_its_own
from ctrip.domain.scanning import Header
from ctrip.errors import MisconfiguredError, NodeUnavailable

V = TypeVar("V")


class _Lacks(NotServed):
    """Some calls were refused for reasons of the endpoint's own; the others' replies are here as well."""

    def __init__(self, endpoint: Endpoint, replies: list[Reply], fault: Fault) -> None:
        super().__init__(fault.message[:200], rpc_code=fault.code, rpc_message=fault.text)
        self.endpoint = endpoint
        self.replies = replies


class RpcPool:
    """The endpoints of one chain, in order of preference. Threads may share it."""

    def __init__(
        self, chain: Chain, *, clock: Clock = time.monotonic, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.endpoints = tuple(
            Endpoint(url, label=label, chain=chain, learnt=Learnt(), clock=clock, pause=pause)
            for url, label in zip(chain.rpc_urls, labels_of(chain.rpc_urls), strict=True)
        )
        self._pinned_to: Endpoint | None = None
        self.manner = Manner(is_bound=len(self.endpoints) == 1)
        """How its endpoints are asked."""
        self._chain = chain
        self._clock = clock
        self._fleet = Fleet(self.endpoints, clock=clock)

    # --- who is asked -----------------------------------------------------------------------------------------------

    def pinned(self, *, avoiding: Collection[str] = (), needs: Collection[str] = READING) -> tuple[Self, Endpoint]:
        """Return a pool that asks one of these endpoints alone, and that one: the best outside the labels `avoiding`.

        `needs` are the methods that it will be asked for: one that refused them of late is taken where there is no
        other. One that is distrusted is the last choice, and may still bear out what another one told. One that fails
        is taken only where nothing is avoided and all of them fail. Raises NodeUnavailable where there is none.
        """
        # Whoever is to be heard alone is not spoken for by another.
        among = self.endpoints if self._pinned_to is None else (self._pinned_to,)
        allowed = [endpoint for endpoint in among if endpoint.label not in avoiding]
        if avoiding:
            allowed = [endpoint for endpoint in allowed if not endpoint.is_failing and endpoint.wait_s() <= TIMEOUT_S]
        if not allowed:
            raise NodeUnavailable(f"chain {self._chain.name} has no other endpoint that answers")
        one = copy.copy(self)
        one._pinned_to = endpoint = self._fleet.ranked(allowed, needs=needs)[0]
        one.manner = replace(self.manner, is_bound=True)
        return one, endpoint

    def keeping(self, keep_lease: Callable[[], None]) -> Self:
        """Return a pool that calls `keep_lease` after each request, those inside of a long `ask` included."""
        one = copy.copy(self)
        one.manner = replace(self.manner, keep_lease=keep_lease)
        return one

    def distrust(self) -> None:
        """Let the endpoint that this pool is pinned to rest for a while, whatever it answers meanwhile."""
        if self._pinned_to is not None:
            self._pinned_to.distrust()

    def pass_over(self, method: str) -> None:
        """Let others be asked first for a method that the endpoint which this pool is pinned to does not serve."""
        if self._pinned_to is not None:
            self._pinned_to.pass_over(method)

    @property
    def learnt(self) -> Learnt:
        """What is known of the endpoint which this pool is pinned to; else of the best one."""
        return self._candidates(READING)[0].learnt

    def told_heads(self) -> dict[str, Header]:
        """Return the newest block that each endpoint has told of, by label."""
        told = {endpoint.label: endpoint.head for endpoint in self.endpoints}
        return {label: head.header for label, head in told.items() if head is not None}

    def told_for_s(self, number: int) -> float:
        """Return for how long the endpoint which this pool is pinned to has told of a head at `number` or beyond."""
        return 0.0 if self._pinned_to is None else self._pinned_to.told_for_s(number)

    def on_one(self, work: Callable[[Endpoint], V], *, needs: Collection[str] = READING) -> V:
        """Do some work that needs these methods with the best endpoint alone, or else with the next one.

        It is done again elsewhere where it raises NodeUnavailable, and where the endpoint has not the blocks that it
        is about, or refuses whatever is asked (NotServed); if nobody serves it, the first refusal is raised. Raises
        NodeUnavailable where none of them did it, or it took too long to find out.
        """
        failures: list[str] = []
        not_served: NotServed | None = None
        started = self._clock()
        for endpoint in self._candidates(needs):
            try:
                return work(endpoint)
            except NodeUnavailable as error:
                failures.append(error.detail)
            except NotServed as error:
                not_served = not_served or error
            if self._clock() - started > TIMEOUT_S:
                # Whoever asks holds a lease, which would end. Those that failed rest, so the others are asked next.
                break
        if not_served is not None:
            raise not_served
        raise NodeUnavailable("; ".join(failures))

    def newest(self) -> Header:
        """Ask for the newest block."""
        return self.on_one(lambda endpoint: endpoint.newest_with([], self.manner)[0])

    def ask(self, calls: Sequence[Call], *, form: Form = RAW) -> list[Reply]:
        """Send calls in batches, all to one endpoint; the next one is asked where it fails or does not serve them.

        Their results are in a `form`, undecoded unless one is given.
        """
        return self.read_replies(calls, list, form=form)

    def read_replies(self, calls: Sequence[Call], reader: Callable[[list[Reply]], V], *, form: Form = RAW) -> V:
        """Do as `ask`, and return what `reader` makes of the replies; an endpoint whose replies it cannot read fails.

        `reader` says so by NodeUnavailable.
        """

        def work(endpoint: Endpoint) -> V:
            replies = endpoint.ask(calls, replace(self.manner, form=form))
            for (method, _), reply in zip(calls, replies, strict=True):
                if reply.error is not None and _is_elsewhere(method, reply.error.refusal):
                    raise _Lacks(endpoint, replies, reply.error)
            return endpoint.understood(replies, reader)

        try:
            return self.on_one(work, needs=_methods(calls))
        except _Lacks as error:
            return error.endpoint.understood(error.replies, reader)

    def results(self, calls: Sequence[Call]) -> list[msgspec.Raw]:
        """Send calls and return their results, undecoded. Raises NodeRefused at the first error among them."""
        if not calls:
            return []
        return self.on_one(lambda endpoint: endpoint.results(calls, self.manner), needs=_methods(calls))

    def read(self, calls: Sequence[Call], reader: Callable[[list[Any]], V], *, form: Form = RAW) -> V:
        """Send calls and return what `reader` makes of their results; an endpoint whose results it cannot read fails.

        `reader` says so by NodeUnavailable. It gets the results in a `form`, undecoded unless one is given.
        """

        def work(endpoint: Endpoint) -> V:
            return endpoint.understood(endpoint.results(calls, replace(self.manner, form=form)), reader)

        return self.on_one(work, needs=_methods(calls))

    def read_at_head(self, calls: Sequence[Call], reader: Callable[[list[BlockJson | None]], V]) -> tuple[Header, V]:
        """Do as `read` for blocks, and return the endpoint's newest header, which is asked for in the same request."""

        def work(endpoint: Endpoint) -> tuple[Header, V]:
            header, blocks = endpoint.newest_with(calls, self.manner)
            return header, endpoint.understood(blocks, reader)

        return self.on_one(work)

    # --- what is known of them --------------------------------------------------------------------------------------

    def at_once(self, most: int) -> int:
        """Return how many threads may ask at once, `most` at the most, by what the best endpoint's rate allows."""
        return self._candidates(READING)[0].at_once(most)

    def limits(self) -> dict[str, Limits]:
        """Return what each endpoint accepts, as far as that was learnt, by label."""
        return {endpoint.label: endpoint.learnt.limits for endpoint in self.endpoints}

    def adopt(self, limits: Mapping[str, Limits]) -> None:
        """Start from what was learnt before; labels that are not of this chain are left out."""
        for endpoint in self.endpoints:
            if endpoint.label in limits:
                endpoint.learnt.adopt(limits[endpoint.label])

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

    def survey(self) -> None:
        """Compare the heads of all endpoints where that is due (see Fleet.survey)."""
        self._fleet.survey()

    def _candidates(self, needs: Collection[str]) -> list[Endpoint]:
        if self._pinned_to is not None:
            return [self._pinned_to]
        ranked = self._fleet.ranked(self.endpoints, needs=needs)
        ready = [endpoint for endpoint in ranked if not endpoint.is_away]
        return ready or ranked


def _methods(calls: Sequence[Call]) -> set[str]:
    return {method for method, _ in calls}


def _is_elsewhere(method: str, refusal: Refusal) -> bool:
    return refusal is Refusal.HISTORY or is_its_own(method, refusal)
