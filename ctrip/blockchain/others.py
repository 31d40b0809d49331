"""The other endpoints of a chain, asked where one of them alone is not to be believed."""

from collections.abc import Iterator

from ctrip.blockchain.client import ChainClient
from ctrip.errors import NodeUnavailable

MOST_TRIED = 8
"""How many others are tried at the most, as long as they do not say what is looked for."""


def alone(client: ChainClient, endpoint: str) -> ChainClient:
    """Return a client of this endpoint. Raises NodeUnavailable where it fails."""
    return client.pinned(avoiding=set(client.endpoints) - {endpoint})


def others(client: ChainClient, pinned: ChainClient) -> Iterator[ChainClient]:
    """Yield a client of each of the other endpoints that do not fail, the best one first, MOST_TRIED at the most.

    Whoever asks leaves off as soon as it was told enough. Those that do not answer, are behind, or are distrusted
    come last, wherever the configuration has them; each may take the time of a whole request, so let `client` be one
    that keeps the lease.
    """
    heard = {pinned.endpoint or ""}
    for _ in range(MOST_TRIED):
        try:
            other = client.pinned(avoiding=heard)
        except NodeUnavailable:
            return
        heard.add(other.endpoint or "")
        yield other
