"""Whether a reorg that one endpoint tells of is followed: every endpoint that answers has one voice on the lost block.

kept    it has the block that was read, however far its head is behind
gone    it has another block there; so says the one that told of the reorg
silent  it has no block there: it may not have come so far

                                more say gone    as many    more say kept
within the reorg window         FOLLOWED         OPEN       DENIED
deeper, by one voice of several OPEN             OPEN       DENIED
"""

from collections.abc import Sequence
from enum import StrEnum

from ctrip.domain.scanning import Header


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


def weigh(voices: Sequence[Voice], *, is_too_deep: bool) -> Verdict:
    """Decide by the voices of all endpoints that answer, the one that tells of the reorg included.

    A reorg that is too deep stops the chain: where more than one endpoint answers, one alone cannot do that.
    """
    gone, kept = voices.count(Voice.GONE), voices.count(Voice.KEPT)
    if kept > gone:
        return Verdict.DENIED
    if kept == gone or (is_too_deep and gone == 1 and len(voices) > 1):
        return Verdict.OPEN
    return Verdict.FOLLOWED
