"""The other endpoints of a chain, asked where one of them alone is not to be believed."""

from collections.abc import Collection, Iterable, Iterator

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.fleet import READING
from ctrip.errors import NodeUnavailable

MOST_TRIED = 8
"""How many others are tried at the most, as long as they do not say what is looked for."""


def alone(client: ChainClient, endpoint: str) -> ChainClient:
    """Return a client of this endpoint. Raises NodeUnavailable where it fails."""
    return client.pinned(avoiding=set(client.endpoints) - {endpoint})


def others(
    client: ChainClient,
    *,
    heard: Iterable[str | None] = (),
    needs: Collection[str] = READING,
    most: int = MOST_TRIED,
) -> Iterator[ChainClient]:
    """Yield a client of each endpoint that was not `heard` and does not fail, the best one first for what it `needs`.

    Whoever asks leaves off as soon as it was told enough. Those that are behind or distrusted come last, wherever the
    configuration has them. Each may take the time of a whole request, so let `client` be one that keeps the lease.
    Where nobody was heard, one that fails is better than none.
    """
    labels = {label for label in heard if label is not None}
    for _ in range(most):
        try:
            other = client.pinned(avoiding=labels, needs=needs)
        except NodeUnavailable:
            return
        if other.endpoint is not None:
            labels.add(other.endpoint)
        yield other
