"""What to read of a chain so that no listed asset has a gap: coin by whole blocks, tokens by their logs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctrip.domain.addresses import NATIVE
from ctrip.domain.scanning import BlockRange


@dataclass(frozen=True)
class Backfill:
    """The next blocks to read. `tokens` are those whose logs are looked for; None: whole blocks, for every asset."""

    blocks: BlockRange
    tokens: tuple[bytes, ...] | None


def next_backfill(unread: Mapping[bytes, Sequence[BlockRange]], *, most: int) -> Backfill | None:
    """Say what to read next, given the gaps of each asset, oldest first; None where there are none.

    Coin leaves no log that a node could find, so its gaps are read first and whole: that closes those of the tokens
    as well. Tokens that lack the same blocks are read together, `most` blocks at once.
    """
    if unread.get(NATIVE):
        return Backfill(unread[NATIVE][0], tokens=None)
    firsts = {token: gaps[0] for token, gaps in unread.items() if gaps}
    if not firsts:
        return None
    begins = min(gap.first for gap in firsts.values())
    lacking = {token: gap for token, gap in firsts.items() if gap.first == begins}
    later = (gap.first - 1 for gap in firsts.values() if gap.first > begins)
    last = min([begins + most - 1, *(gap.last for gap in lacking.values()), *later])
    return Backfill(BlockRange(begins, last), tokens=tuple(sorted(lacking)))
