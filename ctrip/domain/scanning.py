"""Which blocks to read next, and what a reorg took: decisions of the listener, over numbers and hashes alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ctrip.domain.chains import Chain
from ctrip.domain.finality import Finality, FinalityRule


@dataclass(frozen=True)
class Header:
    """A block's header as far as tracking needs it."""

    number: int
    hash: bytes
    parent_hash: bytes
    time: datetime


@dataclass(frozen=True)
class Tagged:
    """A block of the chain that was read, with its time, which may have left the reorg window."""

    number: int
    time: datetime


@dataclass(frozen=True)
class Cursor:
    """How far a chain was read. Every block after `start_block`, up to `read_block`, was read whole, in order.

    `head_block` is the newest block that the node told of. `stopped_reason` is set where only an operator can go on.
    `safe` and `finalized` are the newest blocks that were read and that the node calls so; None where it was not asked.
    `clock` is the latest time of a block that is not one endpoint's word alone: no deadline after it has passed. None
    where the chain has one endpoint.
    """

    chain_id: int
    start_block: int
    read_block: int
    read_hash: bytes
    head_block: int
    stopped_reason: str | None = None
    safe: Tagged | None = None
    finalized: Tagged | None = None
    clock: datetime | None = None

    def tagged(self, finality: Finality) -> Tagged | None:
        """Return the newest block that the chain's own word makes final."""
        return {Finality.SAFE: self.safe, Finality.FINALIZED: self.finalized}.get(finality)

    def final_block(self, rule: FinalityRule) -> int:
        """Return the newest block that is final by a rule; below 0 where none is."""
        deep = self.read_block - rule.confirmations + 1
        if rule.finality is Finality.CONFIRMATIONS:
            return deep
        tagged = self.tagged(rule.finality)
        return -1 if tagged is None else min(deep, tagged.number)


@dataclass(frozen=True)
class Move:
    """Where a cursor goes: from `base`, which it stands on or a reorg left, `to` the newest block that was read.

    `head_block` is the newest block that the node told of, `tags` are those that it calls so, and `clock` is that of
    the cursor from then on. `shared_block` is the newest block that is not one endpoint's word alone; None where it is
    as before.
    """

    base: Header
    to: Header
    head_block: int
    tags: Mapping[Finality, Header] = field(default_factory=dict)
    clock: datetime | None = None
    shared_block: int | None = None


@dataclass(frozen=True)
class BlockRange:
    """Blocks `first` to `last`, both included."""

    first: int
    last: int

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def __len__(self) -> int:
        return self.last - self.first + 1


def tags_to_ask(chain: Chain, cursor: Cursor) -> dict[Finality, Tagged | None]:
    """Return what the node must be asked to call a block: what the chain's rules ask for, or asked for once.

    With each word comes how far it is known to reach. Payments that were made under an older rule wait for the word
    that it named.
    """
    known = {word: cursor.tagged(word) for word in (Finality.SAFE, Finality.FINALIZED)}
    return {word: tagged for word, tagged in known.items() if tagged is not None or chain.asks_for(word)}


def reached(told: Header, ours: Mapping[int, bytes], *, to: Header) -> Header | None:
    """Return the newest of our blocks that an endpoint's word on the block `told` reaches; None where it is no word.

    `ours` are the hashes of the stored headers by number, up to `to`. What lies deeper is told by its number alone: no
    reorg that is followed comes there. What lies beyond reaches `to`.
    """
    if told.number > to.number:
        return to
    if told.number < min(ours):
        return told
    return told if ours.get(told.number) == told.hash else None


def tagged_after(stored: Tagged | None, told: Header | None, *, base: Header, to: Header) -> Tagged | None:
    """Return the newest block that is called so, after the blocks from `base` to `to` were read.

    It is never beyond what was read, and goes back only where a reorg took it: to `base`. `told` is the node's word,
    None where it gave none.
    """
    kept = Tagged(base.number, base.time) if stored is not None and stored.number > base.number else stored
    if told is None:
        return kept
    new = min(told, to, key=lambda header: header.number)
    return kept if kept is not None and kept.number >= new.number else Tagged(new.number, new.time)


def split(ranges: Iterable[BlockRange], *, most: int) -> Iterator[BlockRange]:
    """Cut ranges into pieces of `most` blocks at the most, in their order."""
    for each in ranges:
        for first in range(each.first, each.last + 1, most):
            yield BlockRange(first, min(each.last, first + most - 1))


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
