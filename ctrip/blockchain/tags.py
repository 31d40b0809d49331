"""The chain's own word on which blocks are safe or finalized: it makes money final, so one endpoint's is not enough.

told by the endpoint that was read   not beyond its own head, and at its number the block that we have there
told by another one as well          that reaches as far, and has the same block there
"""

from collections.abc import Callable, Mapping, Sequence

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.others import others
from ctrip.domain.finality import Finality
from ctrip.domain.scanning import Header, Tagged, reached
from ctrip.errors import ChainError


def tags_told(
    client: ChainClient,
    pinned: ChainClient,
    known: Mapping[Finality, Tagged | None],
    *,
    read: Sequence[Header],
    window: Callable[[], Sequence[Header]],
    keep_lease: Callable[[], None],
) -> dict[Finality, Header]:
    """Return the newest of our blocks that the chain calls so, for each tag that goes beyond what is `known` of it.

    `read` are the base and the blocks that were just read after it, `window` tells the stored headers. One request
    where there is something to ask for; two more, of another endpoint, only where a tag has moved on. Where a chain has
    other endpoints and none of them tells, a tag stays where it is.
    """
    if not known:
        return {}
    told = _told(pinned, list(known))
    keep_lease()
    fresh = {tag: header for tag, header in told.items() if (at := known[tag]) is None or header.number > at.number}
    if not fresh:
        return {}
    ours = {header.number: header.hash for header in window() if header.number < read[0].number}
    ours |= {header.number: header.hash for header in read}
    found = _of_ours(pinned, fresh, ours, to=read[-1])
    if len(client.endpoints) == 1 or not found:
        return found
    for other in others(client, pinned):
        try:
            theirs = _told(other, list(found))
            canonical = other.headers({header.number for header in found.values()}) if theirs else {}
        except ChainError:
            continue
        keep_lease()
        if theirs:
            return _seconded(found, _of_ours(other, theirs, ours, to=read[-1]), canonical)
    return {}


def _told(pinned: ChainClient, tags: Sequence[Finality]) -> dict[Finality, Header]:
    newest, told = pinned.tagged(tags)
    return {tag: header for tag, header in told.items() if header.number <= newest.number}


def _of_ours(
    teller: ChainClient, told: Mapping[Finality, Header], ours: Mapping[int, bytes], *, to: Header
) -> dict[Finality, Header]:
    found: dict[Finality, Header] = {}
    for tag, header in told.items():
        block = reached(header, ours, to=to)
        if block is None:
            teller.dispute("tag", f"a {tag} block {header.number} that is not the one that was read")
        else:
            found[tag] = block
    return found


def _seconded(
    found: Mapping[Finality, Header], theirs: Mapping[Finality, Header], canonical: Mapping[int, Header]
) -> dict[Finality, Header]:
    """Return each block, or the lower one that the other endpoint reaches; none of those of which it has another."""
    there = {
        tag: header for tag, header in found.items() if (at := canonical.get(header.number)) and at.hash == header.hash
    }
    return {
        tag: min(header, theirs[tag], key=lambda block: block.number) for tag, header in there.items() if tag in theirs
    }
