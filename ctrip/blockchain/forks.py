"""What one endpoint tells of the chain itself is borne out by others: a reorg, and that it is the chain they are on."""

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.others import others
from ctrip.domain.forks import Verdict, Voice, voice_of, weigh
from ctrip.domain.scanning import Header
from ctrip.errors import ChainError, NodeUnavailable


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


def check_shared(client: ChainClient, header: Header, *, told_by: str) -> None:
    """Ask another endpoint whether it has a block, too, that `told_by` told of and that no honest ones differ in.

    Else an endpoint on a fork of its own would lead the listener away, further than any reorg may go back. One that has
    the block is enough. Raises NodeUnavailable where as many as not have another one: nothing moves then.
    """
    if len(client.endpoints) == 1:
        return
    teller = client.pinned(avoiding=set(client.endpoints) - {told_by})
    denied = 0
    for other in others(client, teller):
        try:
            voice = voice_of(other.headers([header.number]).get(header.number), lost=header)
        except ChainError:
            continue
        if voice is Voice.KEPT:
            return
        denied += voice is Voice.GONE
    if denied == 0:
        return
    detail = f"a block {header.number} that {denied} other endpoint(s) have another one for"
    if denied > 1:
        teller.distrust("fork", detail)
    else:
        # One against one: nobody knows who is right.
        teller.dispute("fork", detail)
    raise NodeUnavailable(f"{told_by} told of {detail}")


def _voices(client: ChainClient, pinned: ChainClient, lost: Header) -> list[Voice]:
    voices: list[Voice] = []
    for other in others(client, pinned):
        try:
            voices.append(voice_of(other.headers([lost.number]).get(lost.number), lost=lost))
        except ChainError:
            continue
    return voices
