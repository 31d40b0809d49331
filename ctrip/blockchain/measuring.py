"""What metrics count of each request to an endpoint."""

from collections.abc import Sequence

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
    labels = {"chain": chain, "endpoint": endpoint, "method": calls[0][0]}
    for possible in metrics.RPC_OUTCOMES:
        metrics.RPC_REQUESTS.labels(**labels, outcome=possible)
    metrics.RPC_REQUESTS.labels(**labels, outcome=outcome).inc()
    metrics.RPC_REQUEST_DURATION.labels(**labels).observe(seconds)
