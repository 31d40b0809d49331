"""What one endpoint tells of the chain itself is borne out by others: a reorg, and that it is the chain they are on."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.others import alone, others
from ctrip.domain.forks import Verdict, Voice, voice_of, voice_on, weigh
from ctrip.domain.scanning import Header
from ctrip.errors import NodeRefused, NodeUnavailable
from ctrip.metrics import Disagreement

IsYoung = Callable[[Header, timedelta], bool]
"""Whether a block is young that its endpoint has told of for so long: see `ctrip.domain.forks.is_young`."""
_FAR_BLOCKS = 16
"""An endpoint that told of a head so many blocks beyond one that it lacks is not merely a moment behind itself."""


def check_lacking(pinned: ChainClient, number: int) -> None:
    """Look at an endpoint that does not tell block `number`.

    Raises NodeUnavailable where it told of a head far beyond, and lets it rest, for it keeps no old blocks. Where it
    lacks those just below its head as well, it told of a head that there is not, and is distrusted. A few blocks are
    nothing: behind one URL there may be several nodes.
    """
    head = pinned.told_heads().get(pinned.endpoint or "")
    if head is None or head.number - number <= _FAR_BLOCKS:
        return
    detail = f"no block {number}, and of a head at {head.number}"
    is_pruned = bool(pinned.headers([head.number - _FAR_BLOCKS]))
    pinned.distrust(None if is_pruned else "head", detail)
    raise NodeUnavailable(f"{pinned.endpoint} told of {detail}")


def check_reorg(
    client: ChainClient, pinned: ChainClient, *, lost: Header, instead: Header | None, head: Header, is_too_deep: bool
) -> None:
    """Ask other endpoints whether the stored block `lost` is gone, as this one says, whose chain has `instead` there.

    Raises NodeUnavailable where the reorg is not to be followed. An endpoint that most deny is passed over for a while,
    so that the chain goes on with the others; where nobody has a majority, nobody knows who is right.
    """
    if instead is None and head.number >= lost.number:
        # Not a shorter chain, but a block that it does not tell: nothing follows from that.
        raise NodeUnavailable(f"{pinned.endpoint} has no block {lost.number}, and told of a head at {head.number}")
    voices = [Voice.GONE, *_voices(client, pinned, lost)]
    verdict = weigh(voices, is_too_deep=is_too_deep)
    if verdict is Verdict.FOLLOWED:
        return
    kept, silent = voices.count(Voice.KEPT), voices.count(Voice.SILENT)
    detail = f"another block {lost.number}: {kept} endpoint(s) deny that, {silent} cannot tell"
    if verdict is Verdict.DENIED:
        pinned.distrust("fork", detail)
    else:
        pinned.dispute("fork", detail)
    raise NodeUnavailable(f"{pinned.endpoint} told of {detail}")


def check_shared(
    client: ChainClient,
    headers: Sequence[Header],
    *,
    told_by: str,
    is_young: IsYoung,
    is_hash_enough: bool = False,
) -> None:
    """Ask another endpoint whether it has some blocks, too, that `told_by` told of and that no honest ones differ in.

    Else an endpoint on a fork of its own, or one that makes up blocks beyond the head, would lead the listener away,
    further than any reorg may go back. One that has the blocks is enough. Raises NodeUnavailable where one has others,
    or has not come so far though it is not behind (see `voice_on`): nothing moves then. Where no other can tell, a
    block `is_young` at first, and believed after that: others may be behind, stuck, or away for good.
    """
    if len(client.endpoints) == 1:
        return
    gone, behind = 0, list[Header]()
    for other in others(client, heard=[told_by]):
        try:
            head, there = other.head_and_headers([header.number for header in headers])
        except (NodeRefused, NodeUnavailable):
            continue
        voices = {
            voice_on(each, there=there.get(each.number), head=head, is_hash_enough=is_hash_enough) for each in headers
        }
        if voices == {Voice.KEPT}:
            return
        gone += Voice.GONE in voices
        if Voice.GONE not in voices and head.number < headers[-1].number:
            behind.append(head)
    last, teller = headers[-1], alone(client, told_by)
    if gone or is_young(last, teller.told_for(last.number)):
        raise _refused(client, last, told_by=told_by, kind="fork", against=gone + _elsewhere(teller, behind))


def borne_out_time(client: ChainClient, header: Header, *, told_by: str | None, is_young: IsYoung) -> Header | None:
    """Return a block with the time that two endpoints tell of it; None where no second one tells, and it `is_young`.

    The header's own time is that of `told_by`, which told of it just now. Where that is None it was stored, and speaks
    for nobody: whoever told of it then may tell something else now. Where no second one tells, what one tells is
    believed. Raises NodeUnavailable where they differ.
    """
    told, against = Counter([] if told_by is None else [header.time]), 0
    for other in others(client, heard=[told_by]) if len(client.endpoints) > 1 else ():
        try:
            head, there = other.head_and_headers([header.number])
        except (NodeRefused, NodeUnavailable):
            continue
        at = there.get(header.number)
        if at is not None and at.hash == header.hash:
            told[at.time] += 1
            if told[at.time] > 1:
                break
        against += voice_on(header, there=at, head=head, is_hash_enough=True) is Voice.GONE
    ((time, votes),) = told.most_common(1) or [(header.time, 0)]
    is_agreed = votes > 1 or (len(told) < 2 and not against)
    if not is_agreed or (told_by is not None and time != header.time):
        against += told.total() - told[header.time]
        raise _refused(client, header, told_by=told_by, kind="time", against=against)
    found = replace(header, time=time)
    if votes > 1:
        return found
    told_for = timedelta.max if told_by is None else alone(client, told_by).told_for(header.number)
    return None if is_young(found, told_for) else found


def _refused(
    client: ChainClient, header: Header, *, told_by: str | None, kind: Disagreement, against: int
) -> NodeUnavailable:
    """Say what is wrong. One that most deny is passed over; one against one, nobody knows who is right."""
    teller = f"{told_by or 'an endpoint'} told of"
    if not against:
        return NodeUnavailable(f"{teller} a block {header.number} that no other endpoint can tell yet")
    detail = f"a block {header.number} that {against} other endpoint(s) have not, or not with its time"
    pinned = client if told_by is None else alone(client, told_by)
    if against > 1:
        pinned.distrust(kind, detail)
    else:
        pinned.dispute(kind, detail)
    return NodeUnavailable(f"{teller} {detail}")


def _elsewhere(teller: ChainClient, behind: Sequence[Header]) -> int:
    """Return how many of those who are behind are on another chain than `teller`, by their newest blocks.

    Who is merely behind speaks against nobody: on a fast chain, what was read just now is always beyond some.
    """
    there = teller.headers({head.number for head in behind}) if behind else {}
    return sum(voice_of(there.get(head.number), lost=head) is Voice.GONE for head in behind)


def _voices(client: ChainClient, pinned: ChainClient, lost: Header) -> list[Voice]:
    """Ask all others. Those that fail, or are not asked because they do, are silent too."""
    voices: list[Voice] = []
    for other in others(client, heard=[pinned.endpoint]):
        try:
            voices.append(voice_of(other.headers([lost.number]).get(lost.number), lost=lost))
        except (NodeRefused, NodeUnavailable):
            continue
    return [*voices, *[Voice.SILENT] * (len(client.endpoints) - 1 - len(voices))]
