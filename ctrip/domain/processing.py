"""Reading one payment again: which blocks may concern it, and what the rows lack or have too much.

     first_block ─── all blocks ─── coin_until ─── blocks with logs ─── window_block ─── all blocks ─── last_block

A token leaves a log that a node finds by the address; coin leaves none, so all of a block has to be read for it. That
is done for the reorg window, and for a payment in coin from when it was made, COIN_BLOCKS at the most.
"""

from dataclasses import dataclass, replace

from ctrip.domain.scanning import BlockRange

LOGS_SPAN = 2_000
"""Blocks whose logs are looked through for one step, in as many questions as the node asks for."""
WHOLE_SPAN = 200
COIN_BLOCKS = 2_000


@dataclass(frozen=True)
class Course:
    """What is to be read again of a payment, and how far that came. `coin_until` is None for one in a token."""

    first_block: int
    last_block: int
    coin_until: int | None
    window_block: int
    next_block: int
    blocks_read: int = 0
    transfers_stored: int = 0
    transfers_orphaned: int = 0

    @property
    def is_over(self) -> bool:
        """True where all was read."""
        return self.next_block > self.last_block

    @property
    def reads_whole(self) -> bool:
        """True where every block of the next span has to be read."""
        is_early = self.coin_until is not None and self.next_block <= self.coin_until
        return is_early or self.next_block >= self.window_block

    def span(self) -> BlockRange:
        """Return the blocks to look at next, all of them in one of the three parts."""
        ends = [self.coin_until, self.window_block - 1, self.last_block]
        end = min(end for end in ends if end is not None and end >= self.next_block)
        size = WHOLE_SPAN if self.reads_whole else LOGS_SPAN
        return BlockRange(self.next_block, min(end, self.next_block + size - 1))

    def after(self, span: BlockRange, *, blocks_read: int, stored: int, orphaned: int) -> "Course":
        """Return it with one more span done."""
        return replace(
            self,
            next_block=span.last + 1,
            blocks_read=self.blocks_read + blocks_read,
            transfers_stored=self.transfers_stored + stored,
            transfers_orphaned=self.transfers_orphaned + orphaned,
        )


def course(*, first_block: int, last_block: int, reorg_window: int, is_coin: bool) -> Course:
    """Say what is to be read again of a payment that was made at `first_block`."""
    coin_until = min(last_block, first_block + COIN_BLOCKS - 1) if is_coin else None
    window_block = max(first_block, last_block - reorg_window + 1)
    return Course(first_block, last_block, coin_until, window_block, next_block=first_block)
