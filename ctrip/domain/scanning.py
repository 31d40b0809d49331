"""Which blocks to read next, and what a reorg took: decisions of the listener, over numbers and hashes alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Header:
    """A block's header as far as tracking needs it."""

    number: int
    hash: bytes
    parent_hash: bytes
    time: datetime


@dataclass(frozen=True)
class Cursor:
    """How far a chain was read. Every block after `start_block`, up to `read_block`, was read whole, in order.

    `head_block` is the newest block that the node told of. `stopped_reason` is set where only an operator can go on.
    """

    chain_id: int
    start_block: int
    read_block: int
    read_hash: bytes
    head_block: int
    stopped_reason: str | None = None


@dataclass(frozen=True)
class BlockRange:
    """Blocks `first` to `last`, both included."""

    first: int
    last: int

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def __len__(self) -> int:
        return self.last - self.first + 1


def next_range(read_block: int, head_block: int, *, most: int) -> BlockRange | None:
    """Return the blocks to read after `read_block`, `most` of them at the most; None where the head was read."""
    if head_block <= read_block:
        return None
    return BlockRange(read_block + 1, min(head_block, read_block + most))


def is_linked(headers: Sequence[Header], *, parent_hash: bytes) -> bool:
    """True where the headers, oldest first, form one chain that continues the block `parent_hash`."""
    for header in headers:
        if header.parent_hash != parent_hash:
            return False
        parent_hash = header.hash
    return True


def common_ancestor(stored: Sequence[Header], canonical: Mapping[int, bytes]) -> Header | None:
    """Return the newest stored header that the node still has on its chain; None where none of them is.

    `canonical` maps a block number to the hash that the node has there now; numbers that it lacks are left out.
    """
    for header in sorted(stored, key=lambda h: h.number, reverse=True):
        if canonical.get(header.number) == header.hash:
            return header
    return None
