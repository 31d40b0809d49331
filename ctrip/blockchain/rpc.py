"""What is asked of a chain's endpoints, and of whom: of the best one, or of the next where that one fails."""

import copy
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Self, TypeVar

import msgspec

from ctrip.blockchain.endpoint import Endpoint
from ctrip.blockchain.fleet import Fleet, is_away
from ctrip.blockchain.learning import Learnt
from ctrip.blockchain.transport import TIMEOUT_S, Call, Clock, Fault, Reply, label_of, refused
from ctrip.domain.chains import Chain
from ctrip.domain.limits import Limits, Refusal, classify
from ctrip.domain.scanning import Header
from ctrip.errors import MisconfiguredError, NodeRefused, NodeUnavailable

__all__ = ["Call", "Endpoint", "Fault", "Reply", "RpcPool", "refused"]

V = TypeVar("V")


class _Lacks(NodeRefused):
    """Some calls were refused because the endpoint has not the blocks; the others' replies are here as well."""

    def __init__(self, replies: list[Reply], fault: Fault) -> None:
        super().__init__(fault.message[:200], rpc_code=fault.code, rpc_message=fault.text)
        self.replies = replies


class RpcPool:
    """The endpoints of one chain, in order of preference. Threads may share it."""

    def __init__(
        self, chain: Chain, *, clock: Clock = time.monotonic, pause: Callable[[float], None] = time.sleep
    ) -> None:
        labels = [label_of(url) for url in chain.rpc_urls]
        self._learnt = {label: Learnt() for label in labels}
        self.endpoints = tuple(
            Endpoint(url, chain=chain, learnt=self._learnt[label], clock=clock, pause=pause)
            for url, label in zip(chain.rpc_urls, labels, strict=True)
        )
        self._pinned_to: Endpoint | None = None
        self._chain = chain
        self._clock = clock
        self._fleet = Fleet(self.endpoints, clock=clock)

    # --- who is asked -----------------------------------------------------------------------------------------------

    def pinned(self, *, avoiding: Collection[str] = ()) -> tuple[Self, Endpoint]:
        """Return a pool that asks one of these endpoints alone, and that one: the best outside the labels `avoiding`.

        One that is distrusted is the last choice, and may still bear out what another one told. One that fails is taken
        only where nothing is avoided and all of them fail. Raises NodeUnavailable where there is none.
        """
        allowed = [endpoint for endpoint in self.endpoints if endpoint.label not in avoiding]
        if avoiding:
            allowed = [endpoint for endpoint in allowed if not endpoint.is_failing and endpoint.wait_s() <= TIMEOUT_S]
        if not allowed:
            raise NodeUnavailable(f"chain {self._chain.name} has no other endpoint that answers")
        one = copy.copy(self)
        one._pinned_to = endpoint = min(allowed, key=self._fleet.rank)
        return one, endpoint

    def distrust(self) -> None:
        """Let the endpoint that this pool is pinned to rest for a while, whatever it answers meanwhile."""
        if self._pinned_to is not None:
            self._pinned_to.distrust()

    def on_one(self, work: Callable[[Endpoint], V]) -> V:
        """Do some work with the best endpoint alone, or else with the next one.

        It is done again elsewhere where it raises NodeUnavailable, and where the endpoint has not the blocks that it
        is about; if nobody has, the first NodeRefused is raised. Raises NodeUnavailable where none of them did it, or
        it took too long to find out.
        """
        failures: list[str] = []
        lacking: NodeRefused | None = None
        started = self._clock()
        for endpoint in self._candidates():
            try:
                return work(endpoint)
            except NodeUnavailable as error:
                failures.append(error.detail)
            except NodeRefused as error:
                if classify(error.rpc_code, error.rpc_message) is not Refusal.HISTORY:
                    raise
                lacking = lacking or error
            if self._clock() - started > TIMEOUT_S:
                # Whoever asks holds a lease, which would end. Those that failed rest, so the others are asked next.
                break
        if lacking is not None:
            raise lacking
        raise NodeUnavailable("; ".join(failures))

    def ask(self, calls: Sequence[Call]) -> list[Reply]:
        """Send calls in batches, all to one endpoint; the next one is asked where it fails or has not the blocks."""

        def work(endpoint: Endpoint) -> list[Reply]:
            replies = endpoint.ask(calls)
            for reply in replies:
                if reply.error is not None and reply.error.refusal is Refusal.HISTORY:
                    raise _Lacks(replies, reply.error)
            return replies

        try:
            return self.on_one(work)
        except _Lacks as error:
            return error.replies

    def results(self, calls: Sequence[Call]) -> list[msgspec.Raw]:
        """Send calls and return their results, undecoded. Raises NodeRefused at the first error among them."""
        return self.on_one(lambda endpoint: endpoint.results(calls)) if calls else []

    def read(self, calls: Sequence[Call], reader: Callable[[list[msgspec.Raw]], V]) -> V:
        """Send calls and return what `reader` makes of their results; an endpoint whose results it cannot read fails.

        `reader` says so by NodeUnavailable.
        """

        def work(endpoint: Endpoint) -> V:
            results = endpoint.results(calls)
            try:
                return reader(results)
            except NodeUnavailable:
                endpoint.failed()
                raise

        return self.on_one(work)

    def read_at_head(self, calls: Sequence[Call], reader: Callable[[list[msgspec.Raw]], V]) -> tuple[Header, V]:
        """Do as `read`, and return the endpoint's newest header with it, which is asked for in the same request."""

        def work(endpoint: Endpoint) -> tuple[Header, V]:
            header, results = endpoint.newest_with(calls)
            try:
                return header, reader(results)
            except NodeUnavailable:
                endpoint.failed()
                raise

        return self.on_one(work)

    # --- what is known of them --------------------------------------------------------------------------------------

    def limits(self) -> dict[str, Limits]:
        """Return what each endpoint accepts, as far as that was learnt, by label."""
        return {label: learnt.limits for label, learnt in self._learnt.items()}

    def adopt(self, limits: Mapping[str, Limits]) -> None:
        """Start from what was learnt before; labels that are not of this chain are left out."""
        for label in self._learnt.keys() & limits.keys():
            self._learnt[label].adopt(limits[label])

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

    def _candidates(self) -> list[Endpoint]:
        if self._pinned_to is not None:
            return [self._pinned_to]
        ranked = sorted(self.endpoints, key=self._fleet.rank)
        ready = [endpoint for endpoint in ranked if not is_away(endpoint)]
        return ready or ranked
