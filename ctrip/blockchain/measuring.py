"""What metrics count of each request to an endpoint."""

from collections.abc import Sequence
from functools import lru_cache

from prometheus_client import Counter, Histogram

from ctrip import metrics
from ctrip.blockchain.transport import Call, Reply
from ctrip.domain.limits import Refusal, is_its_own

_WHATEVER_IS_ASKED = (Refusal.METHOD, Refusal.OTHER)


def outcome_of(calls: Sequence[Call], replies: Sequence[Reply]) -> str:
    """Return the outcome of a request that was answered.

    An endpoint that does not serve a method at all fails, as one that is down does; one that wants less to be asked
    for, or has not the block, does not.
    """
    faults = [(method, reply.error.refusal) for (method, _), reply in zip(calls, replies, strict=True) if reply.error]
    if any(refusal in _WHATEVER_IS_ASKED and is_its_own(method, refusal) for method, refusal in faults):
        return "error"
    return "refused" if faults else "ok"


def measure(calls: Sequence[Call], outcome: str, *, chain: str, endpoint: str, seconds: float) -> None:
    """Count a request by its first call."""
    requests, durations = _series(chain, endpoint, calls[0][0])
    requests[outcome].inc()
    durations.observe(seconds)


@lru_cache(maxsize=4096)
def _series(chain: str, endpoint: str, method: str) -> tuple[dict[str, Counter], Histogram]:
    """Return the series of what is asked again and again: to find one by its labels costs more than to count."""
    labels = {"chain": chain, "endpoint": endpoint, "method": method}
    requests = {outcome: metrics.RPC_REQUESTS.labels(**labels, outcome=outcome) for outcome in metrics.RPC_OUTCOMES}
    return requests, metrics.RPC_REQUEST_DURATION.labels(**labels)
