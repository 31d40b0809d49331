"""The chain's own word on which blocks are safe or finalized: it makes money final, so one endpoint's is not enough.

A word goes not beyond its teller's head, and reaches a block that was read. Where the chain has several endpoints, what
two of their words reach is taken:

    the word of the one that was read has moved on    others are asked until one reaches as far
    it stands still, and EVERY blocks have passed     others are asked until two of them reach further
    another is stuck, away, or knows no tags          the next one is asked
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.others import others
from ctrip.domain.finality import Finality
from ctrip.domain.scanning import Header, Tagged, reached
from ctrip.errors import NodeRefused, NodeUnavailable

EVERY = 32
"""So often others are asked though the word of the endpoint that was read stands still: it may be the one at fault."""


@dataclass(frozen=True)
class _Ours:
    """The blocks that were read: by number those whose headers are stored, up to `to`; `pinned` has deeper ones."""

    pinned: ChainClient
    headers: Mapping[int, Header]
    to: Header

    def at(self, numbers: set[int]) -> Mapping[int, Header]:
        """Return our blocks."""
        deep = numbers - self.headers.keys()
        return {**self.headers, **self.pinned.headers(deep)} if deep else self.headers


def tags_told(
    client: ChainClient,
    pinned: ChainClient,
    known: Mapping[Finality, Tagged | None],
    *,
    read: Sequence[Header],
    window: Callable[[], Sequence[Header]],
) -> dict[Finality, Header]:
    """Return the newest of our blocks that the chain calls so, for each tag that goes beyond what is `known` of it.

    `read` are the base and the blocks that were just read after it, `window` tells the stored headers. One request
    where there is something to ask for; more, of other endpoints, only where a tag has moved on, and now and then.
    """
    if not known:
        return {}
    told = _told(pinned, list(known))
    count = len(client.endpoints)
    is_time = count > 2 and read[0].number // EVERY != read[-1].number // EVERY
    wanted = [tag for tag in known if is_time or (tag in told and _is_beyond(told[tag], known[tag]))]
    if not wanted:
        return {}
    stored = {header.number: header for header in window() if header.number < read[0].number}
    ours = _Ours(pinned, stored | {header.number: header for header in read}, to=read[-1])
    first = _first({tag: told[tag] for tag in wanted if tag in told}, ours)
    words = {tag: [first[tag]] if tag in first and _is_beyond(first[tag], known[tag]) else [] for tag in wanted}
    for other in others(client, heard=[pinned.endpoint]) if count > 1 else ():
        try:
            theirs = _theirs(other, {tag: _furthest(blocks, ours.to) for tag, blocks in words.items()}, ours)
        except (NodeRefused, NodeUnavailable):
            continue
        for tag, block in theirs.items():
            words[tag] += [block] if _is_beyond(block, known[tag]) else []
        if all(_is_settled(blocks) for blocks in words.values()):
            break
    needed = min(2, count)
    return {tag: _in_order(blocks)[needed - 1] for tag, blocks in words.items() if len(blocks) >= needed}


def _told(pinned: ChainClient, tags: Sequence[Finality]) -> dict[Finality, Header]:
    newest, told = pinned.tagged(tags)
    return {tag: header for tag, header in told.items() if header.number <= newest.number}


def _is_beyond(header: Header, known: Tagged | None) -> bool:
    return known is None or header.number > known.number


def _first(told: Mapping[Finality, Header], ours: _Ours) -> dict[Finality, Header]:
    """Return what the words of the endpoint that was read reach."""
    hashes = {number: header.hash for number, header in ours.headers.items()}
    found: dict[Finality, Header] = {}
    for tag, header in told.items():
        block = reached(header, hashes, to=ours.to)
        if block is None:
            _dispute(ours.pinned, tag, header)
        else:
            found[tag] = ours.headers.get(block.number, block)
    return found


def _theirs(other: ChainClient, furthest: Mapping[Finality, Header], ours: _Ours) -> dict[Finality, Header]:
    """Return what another endpoint's words reach, no further than is looked for, where it has the very block there.

    Its time too must be the same: by that of a final block payments expire.
    """
    told = _told(other, list(furthest))
    reach = {tag: min(header, furthest[tag], key=_number) for tag, header in told.items()}
    numbers = {block.number for block in reach.values()}
    there = {header.number: header for header in told.values()}
    there |= other.headers(numbers - there.keys())
    looked_for = {header.number: header for header in furthest.values()}
    here = {**ours.at(numbers - looked_for.keys()), **looked_for}
    found: dict[Finality, Header] = {}
    for tag, block in reach.items():
        if block.number not in there or block.number not in here:
            continue
        if there[block.number] == here[block.number]:
            found[tag] = here[block.number]
        else:
            _dispute(other, tag, there[block.number])
    return found


def _dispute(teller: ChainClient, tag: Finality, header: Header) -> None:
    teller.dispute("tag", f"a {tag} block {header.number} that is not the one that was read")


def _furthest(blocks: Sequence[Header], to: Header) -> Header:
    return max(blocks, key=_number, default=to)


def _is_settled(blocks: Sequence[Header]) -> bool:
    furthest = _in_order(blocks)[:2]
    return len(furthest) == 2 and furthest[0] == furthest[1]


def _in_order(blocks: Sequence[Header]) -> list[Header]:
    return sorted(blocks, key=_number, reverse=True)


def _number(header: Header) -> int:
    return header.number
