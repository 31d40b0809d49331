"""Whether a reorg that one endpoint tells of is followed: every listed endpoint has one voice on the lost block.

kept    it has the block that was read, however far its head is behind
gone    it has another block there; so says the one that told of the reorg
silent  it has no block there: it may not have come so far; or it is away

                                 more say gone    as many    more say kept
within the reorg window          FOLLOWED         OPEN       DENIED
deeper, by one voice of several  OPEN             OPEN       DENIED
deeper, by more, or the only one FOLLOWED         OPEN       DENIED

A deeper one that all this lets pass is followed as far as headers are stored: they reach back by the window from the
newest block that two endpoints had, and what is above that, one may have made up. Beyond, the chain stops.

The other way round, a block that one endpoint tells of is none of the chain where others that must have it have none.
Who is behind says nothing, and is told from who is not by the times of blocks: see `voice_on` and `patience`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median_high

from ctrip.domain.scanning import Header

LEAST_PATIENCE = timedelta(seconds=15)
MOST_PATIENCE = timedelta(hours=1)
"""For so long at the least must be remembered since when an endpoint has told of a block: see `is_young`."""


class Voice(StrEnum):
    """What an endpoint says of a block that was read."""

    KEPT = "kept"
    GONE = "gone"
    SILENT = "silent"


class Verdict(StrEnum):
    """What becomes of a reorg. OPEN: nothing is taken back until more of them say the same."""

    FOLLOWED = "followed"
    OPEN = "open"
    DENIED = "denied"


def voice_of(told: Header | None, *, lost: Header) -> Voice:
    """Return what an endpoint says of `lost` that has the block `told` at its number."""
    if told is None:
        return Voice.SILENT
    return Voice.KEPT if told.hash == lost.hash else Voice.GONE


def voice_on(header: Header, *, there: Header | None, head: Header, is_hash_enough: bool = False) -> Voice:
    """Return what an endpoint whose newest block is `head`, and which has `there` at its number, says of a block.

    Its time is told with it, and is to be the same, unless its hash is enough. Whoever has none there is behind, unless
    its own newest block says to be younger.
    """
    if there is None:
        return Voice.GONE if head.number < header.number and head.time > header.time else Voice.SILENT
    is_same = there.hash == header.hash and (is_hash_enough or there.time == header.time)
    return Voice.KEPT if is_same else Voice.GONE


def patience(window: Sequence[Header], *, reorg_window: int) -> timedelta:
    """Return how old a block must be before an endpoint that has not come so far is stuck, and not just of its time.

    It is the time of a quarter of the reorg window at the pace of the oldest of its blocks: what was made up of
    late is not among them. Their paces over some blocks each are compared, for a single time may be false, and a second
    may have several blocks.
    """
    oldest = window[: len(window) // 4 + 1]
    apart = len(oldest) // 2
    if apart == 0:
        return LEAST_PATIENCE
    pairs = zip(oldest, oldest[apart:], strict=False)
    interval = median_high((later.time - earlier.time) / (later.number - earlier.number) for earlier, later in pairs)
    return min(max(LEAST_PATIENCE, interval * (reorg_window // 4)), MOST_PATIENCE)


def is_young(header: Header, told_for: timedelta, *, now: datetime, patience: timedelta) -> bool:
    """Return True where a block is not believed by the word of one endpoint alone, whatever keeps others from telling.

    They may be behind, or away for a moment. A block is as old as its own time says, and no older than the time since
    when it has been told of: a time can be made up, and so can many blocks at once, on a chain that stands still.
    """
    return header.time > now - patience or told_for < patience


def weigh(voices: Sequence[Voice], *, is_too_deep: bool) -> Verdict:
    """Decide by the voices of all endpoints that are listed, the one that tells of the reorg included.

    A reorg that is too deep may stop the chain: where more than one endpoint is listed, one alone cannot do that.
    """
    gone, kept = voices.count(Voice.GONE), voices.count(Voice.KEPT)
    if kept > gone:
        return Verdict.DENIED
    if kept == gone or (is_too_deep and gone == 1 and len(voices) > 1):
        return Verdict.OPEN
    return Verdict.FOLLOWED
