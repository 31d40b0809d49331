"""Old blocks: which of them a moment falls into, and which may hold what is looked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import to_bytes, to_int
from ctrip.blockchain.matching import Issued
from ctrip.blockchain.ranges import Piece
from ctrip.domain.addresses import ADDRESS_BYTES
from ctrip.domain.scanning import BlockRange
from ctrip.errors import BlockVanished, ChainError


@dataclass(frozen=True)
class Hits:
    """The blocks among `blocks` that may hold what is looked for, as `endpoint` tells; the others do not hold it."""

    blocks: BlockRange
    numbers: tuple[int, ...]
    endpoint: str


def first_block_since(
    client: ChainClient, moment: datetime, *, low: int, high: int, keep_lease: Callable[[], None]
) -> int:
    """Find the first of the blocks `low` to `high` that is not older than `moment`, by halves: times only grow.

    Returns `high` + 1 where all are older. Raises BlockVanished where the node has one of them not, or not any more.
    """
    end = high + 1
    while low < end:
        middle = (low + end) // 2
        header = client.headers([middle]).get(middle)
        keep_lease()
        if header is None:
            raise BlockVanished(f"{client.chain.name} has no block {middle}; a node with its whole history has")
        low, end = (middle + 1, end) if header.time < moment else (low, middle)
    return low


def hits_in(
    client: ChainClient,
    span: BlockRange,
    *,
    tokens: Sequence[bytes],
    recipients: Sequence[bytes] | None,
    issued: Issued,
    keep_lease: Callable[[], None],
) -> Iterator[Hits]:
    """Look for Transfers of `tokens` to issued addresses in `span`, piece by piece, gapless and in order.

    The node looks for `recipients`, where they are given; else `issued` is asked for those of all Transfers. Where the
    chain has another endpoint, that one is asked as well: no bloom filter is at hand that would show what is left out.
    Raises NodeRefused and NodeUnavailable.
    """
    if not tokens:
        yield Hits(span, (), "")
        return
    for piece in client.logs_in(span, tokens=tokens, recipients=recipients, keep_lease=keep_lease):
        told = [piece, *_elsewhere(client, piece, tokens=tokens, recipients=recipients, keep_lease=keep_lease)]
        numbers = set().union(*(_numbers(each, issued) for each in told))
        yield Hits(piece.blocks, tuple(sorted(numbers)), piece.endpoint)


def _elsewhere(
    client: ChainClient,
    piece: Piece,
    *,
    tokens: Sequence[bytes],
    recipients: Sequence[bytes] | None,
    keep_lease: Callable[[], None],
) -> list[Piece]:
    """Return what another endpoint tells of the same blocks; nothing where there is none that answers."""
    if len(client.endpoints) < 2:
        return []
    try:
        other = client.pinned(avoiding=[piece.endpoint])
        return list(other.logs_in(piece.blocks, tokens=tokens, recipients=recipients, keep_lease=keep_lease))
    except ChainError:
        return []


def _numbers(piece: Piece, issued: Issued) -> set[int]:
    transfers = [log for log in piece.logs if len(log.topics) == 3]
    recipients = {log.topics[2]: to_bytes(log.topics[2])[-ADDRESS_BYTES:] for log in transfers}
    ours = issued(set(recipients.values())) if recipients else set()
    return {to_int(log.block_number) for log in transfers if recipients[log.topics[2]] in ours}
