"""What one endpoint tells of the chain itself is borne out by others: a reorg, and that it is the chain they are on."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.others import alone, others
from ctrip.domain.forks import Verdict, Voice, voice_of, voice_on, weigh
from ctrip.domain.scanning import Header
from ctrip.errors import ChainError, NodeUnavailable
from ctrip.metrics import Disagreement


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
    young_after: Callable[[], datetime],
    is_hash_enough: bool = False,
) -> None:
    """Ask another endpoint whether it has some blocks, too, that `told_by` told of and that no honest ones differ in.

    Else an endpoint on a fork of its own, or one that makes up blocks beyond the head, would lead the listener away,
    further than any reorg may go back. One that has the blocks is enough. Raises NodeUnavailable where one has others,
    or has not come so far though it is not behind (see `voice_on`): nothing moves then. A block from after
    `young_after` is not believed before others have it, for it cannot be told yet that these are behind.
    """
    if len(client.endpoints) == 1:
        return
    teller, gone, behind = alone(client, told_by), 0, 0
    for other in others(client, teller):
        try:
            head, there = other.head_and_headers([header.number for header in headers])
        except ChainError:
            continue
        voices = {
            voice_on(each, there=there.get(each.number), head=head, is_hash_enough=is_hash_enough) for each in headers
        }
        if voices == {Voice.KEPT}:
            return
        gone += Voice.GONE in voices
        behind += Voice.GONE not in voices and head.number < headers[-1].number
    if behind and headers[-1].time > young_after():
        raise _refused(teller, headers[-1], kind="fork", against=gone + behind, is_open=gone > 0)
    if gone:
        raise _refused(teller, headers[-1], kind="fork", against=gone, is_open=True)


def borne_out_time(
    client: ChainClient, header: Header, *, told_by: str | None, young_after: Callable[[], datetime]
) -> Header | None:
    """Return a block with the time that two endpoints tell of it; None while others have not come so far.

    `told_by` told of it just now; None where it was stored, for whoever told of it then may tell something else now.
    Where no second one tells, what one tells is believed. Raises NodeUnavailable where they differ.
    """
    teller, against, behind = None if told_by is None else alone(client, told_by), 0, False
    told = Counter([] if teller is None else [header.time])
    for other in others(client, teller or client) if len(client.endpoints) > 1 else ():
        try:
            head, there = other.head_and_headers([header.number])
        except ChainError:
            continue
        at = there.get(header.number)
        if at is not None and at.hash == header.hash:
            told[at.time] += 1
            if told[at.time] > 1:
                break
        against += voice_on(header, there=at, head=head, is_hash_enough=True) is Voice.GONE
        behind = behind or (at is None and head.number < header.number)
    ((time, votes),) = told.most_common(1) or [(header.time, 0)]
    is_agreed = votes > 1 or (len(told) < 2 and not against)
    if not is_agreed or (teller is not None and time != header.time):
        raise _refused(
            teller or client, header, kind="time", against=against + told.total() - told[header.time], is_open=True
        )
    if votes == 1 and behind and time > young_after():
        return None
    return replace(header, time=time)


def _refused(
    teller: ChainClient, header: Header, *, kind: Disagreement, against: int, is_open: bool
) -> NodeUnavailable:
    """Say what is wrong. One that most deny is passed over; one against one, nobody knows who is right."""
    detail = f"a block {header.number} that {against} other endpoint(s) have not, or not with its time"
    if against > 1:
        teller.distrust(kind, detail)
    elif is_open:
        teller.dispute(kind, detail)
    return NodeUnavailable(f"{teller.endpoint or 'an endpoint'} told of {detail}")


def _voices(client: ChainClient, pinned: ChainClient, lost: Header) -> list[Voice]:
    voices: list[Voice] = []
    for other in others(client, pinned):
        try:
            voices.append(voice_of(other.headers([lost.number]).get(lost.number), lost=lost))
        except ChainError:
            continue
    return voices
