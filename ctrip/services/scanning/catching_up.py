"""Far behind the head: spans of blocks, several at once, stored when they are done, whatever their order.

    cursor ──covered──┐   ┌──covered──┐        ┌──covered──┐                     head - reorg window
                      └gap┘           └──gap───┘           └────────gap──────────┘
    the gaps are read; where the covered ranges link to the cursor without a gap, it moves on

What was read is told by the coverage rows alone, so a run that dies is gone on with by the next.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.matching import Issued
from ctrip.blockchain.reading import BlocksRead, read_spans
from ctrip.database import coverage, cursors
from ctrip.domain.coverage import Reach, gaps, reach_of_all, union
from ctrip.domain.scanning import BlockRange, Cursor, split
from ctrip.errors import ChainError
from ctrip.runs import Run
from ctrip.services.scanning.storing import Move, move_cursor, orphan, store_blocks, tell

SPAN = 5
"""Blocks that are read as one: their answers of a megabyte or two may be in memory IN_FLIGHT times."""
TURN = timedelta(seconds=5)
"""How long a run catches up before it ends: a stopping worker waits for it, and other chains need the thread."""
MOVE_EVERY = timedelta(seconds=2)
"""The cursor moves less often than spans are stored: assessing a payment once is enough."""


def is_far_behind(cursor: Cursor, *, reorg_window: int) -> bool:
    """True where it pays to read in spans: what they are read from must be too deep for a reorg."""
    return cursor.head_block - reorg_window - cursor.read_block > 2 * SPAN


def catch_up(run: Run, client: ChainClient, cursor: Cursor, *, issued: Issued) -> tuple[Cursor, int] | None:
    """Read on towards the reorg window for a turn. Returns the cursor as it is then, and how many transfers were found.

    Returns None where nothing is left to read and what was read does not follow from the cursor's block: it is
    forgotten, and a step near the cursor must tell which of the two is gone.
    """
    deep = BlockRange(cursor.read_block + 1, cursor.head_block - run.chain.reorg_window)
    unread = _unread(run, deep)
    if not unread:
        moved = _move(run, cursor)
        if moved.read_block == cursor.read_block:
            _forget(run)
            return None
        return moved, 0
    until, moved_at, stored = run.ctx.now() + TURN, run.ctx.now(), 0
    spans = _while(run, until, split(unread, most=SPAN))
    try:
        for done in read_spans(client, spans, issued=issued, keep_lease=run.keep_lease):
            stored += _store(run, done)
            if run.ctx.now() - moved_at > MOVE_EVERY:
                cursor, moved_at = _move(run, cursor), run.ctx.now()
    except ChainError:
        # One span that nobody tells must not keep the cursor from what lies before it.
        _move(run, cursor)
        raise
    return _move(run, cursor), stored


def _unread(run: Run, deep: BlockRange) -> list[BlockRange]:
    """Return the blocks that were not read for one asset or another."""
    chain = run.chain
    with run.ctx.sessions.begin() as session:
        read = coverage.beyond(
            session, chain.chain_id, tokens=[token.address for token in chain.tokens], after=deep.first - 1
        )
    return union(gap for covered in read.values() for gap in gaps((each.blocks for each in covered), deep))


def _while(run: Run, until: datetime, spans: Iterator[BlockRange]) -> Iterator[BlockRange]:
    for span in spans:
        if run.ctx.now() > until:
            return
        yield span


def _store(run: Run, done: Sequence[BlocksRead]) -> int:
    """Store spans, in one transaction. Returns how many transfers were found in them."""
    with run.storing() as session:
        found = [store_blocks(session, run, blocks) for blocks in done]
    for blocks, transfers_found in zip(done, found, strict=True):
        tell(run, blocks, transfers_found)
    return sum(map(len, found))


def _move(run: Run, cursor: Cursor) -> Cursor:
    """Move the cursor over what was read of every asset, as far as it links."""
    chain = run.chain
    with run.storing() as session:
        covered = coverage.beyond(
            session, chain.chain_id, tokens=[token.address for token in chain.tokens], after=cursor.read_block
        )
        at = reach_of_all(covered.values(), Reach(cursor.read_block, cursor.read_hash))
        stored = cursors.headers(session, chain.chain_id, numbers=(cursor.read_block, at.number))
        if at.number == cursor.read_block:
            return cursor
        move_cursor(session, run, cursor, Move(stored[0], stored[-1], cursor.head_block))
        moved = cursors.find(session, chain.chain_id)
    return moved or cursor


def _forget(run: Run) -> None:
    with run.storing() as session:
        orphan(session, run, cursors.newest_header(session, run.chain.chain_id))
