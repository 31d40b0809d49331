"""The other endpoints of a chain, asked where one of them alone is not to be believed."""

from collections.abc import Iterator

from ctrip.blockchain.client import ChainClient
from ctrip.errors import NodeUnavailable

MOST_ASKED = 3
"""How many others are asked: each may take the time of a whole request, and the loop's lease goes on."""


def others(client: ChainClient, pinned: ChainClient) -> Iterator[ChainClient]:
    """Yield a client of each of the other endpoints that do not fail, MOST_ASKED at the most."""
    labels = [label for label in client.endpoints if label != pinned.endpoint]
    for label in labels[:MOST_ASKED]:
        try:
            yield client.pinned(avoiding=set(client.endpoints) - {label})
        except NodeUnavailable:
            continue
