"""Old blocks: which of them a moment falls into, and which may hold what is looked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import to_bytes, to_int
from ctrip.blockchain.matching import Issued
from ctrip.blockchain.ranges import Piece, Question
from ctrip.blockchain.reading import of_any
from ctrip.domain.addresses import ADDRESS_BYTES
from ctrip.domain.scanning import BlockRange, Header
from ctrip.errors import BlockVanished, NodeRefused, NodeUnavailable


@dataclass(frozen=True)
class Hits:
    """The blocks among `blocks` that may hold what is looked for, as `endpoint` tells; the others do not hold it.

    `is_borne_out` where another endpoint was asked as well, or the chain has no other.
    """

    blocks: BlockRange
    numbers: tuple[int, ...]
    endpoint: str
    is_borne_out: bool = True


def old_headers(client: ChainClient, numbers: Sequence[int], *, keep_lease: Callable[[], None]) -> list[Header]:
    """Return the headers of old blocks, all from one endpoint: not every node has its whole history.

    Raises BlockVanished where none of those that answer has them all.
    """

    def told_by(pinned: ChainClient) -> list[Header]:
        found = pinned.headers(numbers)
        for number in numbers:
            if number not in found:
                lacking = f"no endpoint of {client.chain.name} that answers has block {number}"
                raise BlockVanished(f"{lacking}; a node that keeps its whole history has")
        return [found[number] for number in numbers]

    return of_any(client, told_by, keep_lease=keep_lease)


def first_block_since(
    client: ChainClient, moment: datetime, *, low: int, high: int, keep_lease: Callable[[], None]
) -> int:
    """Find the first of the blocks `low` to `high` that is not older than `moment`, by halves: times only grow.

    Returns `high` + 1 where all are older. Raises BlockVanished where no endpoint that answers has one of them.
    """
    end = high + 1
    while low < end:
        middle = (low + end) // 2
        (header,) = old_headers(client, [middle], keep_lease=keep_lease)
        keep_lease()
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
    chain has other endpoints, one of them is asked as well: no bloom filter is at hand that would show what is left
    out. Raises NodeRefused and NodeUnavailable.
    """
    if not tokens:
        yield Hits(span, (), "")
        return
    question = Question(tokens, recipients)
    for piece in client.logs_in(span, tokens=tokens, recipients=recipients, keep_lease=keep_lease):
        elsewhere = _elsewhere(client, piece, question, issued=issued, keep_lease=keep_lease)
        numbers = _numbers(piece, issued) | (elsewhere or set())
        is_borne_out = elsewhere is not None or len(client.endpoints) == 1
        yield Hits(piece.blocks, tuple(sorted(numbers)), piece.endpoint, is_borne_out)


def _elsewhere(
    client: ChainClient, piece: Piece, question: Question, *, issued: Issued, keep_lease: Callable[[], None]
) -> set[int] | None:
    """Return the hits that another endpoint tells of in the same blocks; None where no other one answers."""
    heard = [piece.endpoint]
    while set(client.endpoints) - set(heard):
        try:
            other = client.pinned(avoiding=heard)
        except NodeUnavailable:
            return None
        heard.append(other.endpoint or "")
        try:
            told = other.logs_in(
                piece.blocks, tokens=question.tokens, recipients=question.recipients, keep_lease=keep_lease
            )
            # One by one: each may be large, and only the numbers are kept.
            return set().union(*(_numbers(each, issued) for each in told))
        except (NodeRefused, NodeUnavailable):
            continue
    return None


def _numbers(piece: Piece, issued: Issued) -> set[int]:
    transfers = [log for log in piece.logs if len(log.topics) == 3]
    recipients = {log.topics[2]: to_bytes(log.topics[2])[-ADDRESS_BYTES:] for log in transfers}
    ours = issued(set(recipients.values())) if recipients else set()
    return {to_int(log.block_number) for log in transfers if recipients[log.topics[2]] in ours}
