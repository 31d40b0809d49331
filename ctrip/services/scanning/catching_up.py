"""Far behind the head: spans of blocks, several read at once, each stored when all before it are.

    cursor ─┬─ read ──┬─ in flight ─┬─ read ──┬─ in flight ─┬───────────────── head - reorg window
            └ stored, when it links └ waits for what is before it

Nothing ahead of the cursor is ever in the rows, so a run that dies is gone on with by the next, and a span of another
fork is never stored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.forks import check_shared
from ctrip.blockchain.matching import Issued
from ctrip.blockchain.reading import BlocksRead, joined, read_spans
from ctrip.database.cursors import Position
from ctrip.domain.scanning import BlockRange, Cursor, Header, Move, split
from ctrip.errors import BlockVanished, ChainError
from ctrip.runs import Run
from ctrip.services.scanning.sharing import clock_of, youth
from ctrip.services.scanning.storing import move_cursor, store_blocks, store_verdicts, tell
from ctrip.services.scanning.verifying import verify_due

SPAN = 8
"""Blocks that are read as one: their answers of some megabytes may be in memory IN_FLIGHT times."""
TURN = timedelta(seconds=5)
"""How long a run catches up before it ends: a stopping worker waits for it, and other chains need the thread."""


@dataclass(frozen=True)
class CaughtUp:
    """How far a turn came: to the block `newest` of `endpoint`, `transfers` found, and the head by which it went."""

    cursor: Cursor
    newest: Header
    head: Header
    endpoint: str | None = None
    transfers: int = 0


def is_far_behind(cursor: Cursor, *, head_block: int, reorg_window: int) -> bool:
    """True where it pays to read in spans: what they are read from must be too deep for a reorg."""
    return head_block - reorg_window - cursor.read_block > 2 * SPAN


def catch_up(run: Run, client: ChainClient, position: Position, *, issued: Issued) -> CaughtUp | None:
    """Read on towards the reorg window for a turn.

    The head is asked for anew, for the one that is known may never have been. Returns None where that is not far away,
    where the chain does not go on from the cursor's block, or has no block after it: then a step must tell what is so.
    """
    head, window = client.head(), run.chain.reorg_window
    clock = None if len(client.endpoints) == 1 else clock_of(position)
    at = CaughtUp(replace(position.cursor, clock=clock), position.newest, head)
    if not is_far_behind(at.cursor, head_block=head.number, reorg_window=window):
        return None
    wanted = BlockRange(at.newest.number + 1, head.number - window)
    spans = _while(run, run.ctx.now() + TURN, split([wanted], most=SPAN))
    try:
        for read in read_spans(client, spans, issued=issued):
            linked = _linked(read, at.newest)
            at = _store(run, client, at, linked)
            if len(linked) < len(read):
                break
    except ChainError as error:
        # What came before it is stored, and the next turn meets it again.
        if at.newest == position.newest and not isinstance(error, BlockVanished):
            raise
    if at.newest == position.newest:
        return None
    return _verified(run, client, at) if at.transfers or position.has_unverified else at


def _while(run: Run, until: datetime, spans: Iterator[BlockRange]) -> Iterator[BlockRange]:
    for span in spans:
        if run.ctx.now() > until:
            return
        yield span


def _linked(read: Sequence[BlocksRead], newest: Header) -> list[BlocksRead]:
    """Return these blocks as far as they go on from the `newest` that is stored: endpoints may disagree."""
    linked, last = list[BlocksRead](), newest
    for each in read:
        if each.headers[0].parent_hash != last.hash:
            break
        linked.append(each)
        last = each.headers[-1]
    return linked


def _store(run: Run, client: ChainClient, at: CaughtUp, linked: Sequence[BlocksRead]) -> CaughtUp:
    """Store blocks, and move the cursor over them, in one transaction."""
    if not linked:
        return at
    newest, whole, clock = linked[-1].headers[-1], joined(linked), at.cursor.clock
    for each in whole:
        latest = max(each.headers, key=lambda header: (header.time, header.number))
        # The hash of the last one speaks for all before it, the latest time for all deadlines; what a payment is told
        # of its money's time no other does.
        telling = {latest.number, each.headers[-1].number, *(seen.block_number for seen in each.sightings)}
        wanted = [header for header in each.headers if header.number in telling]
        check_shared(client, wanted, told_by=each.endpoint, is_young=youth(run))
        clock = clock and max(clock, latest.time)
    with run.storing() as session:
        found = [store_blocks(session, run, blocks) for blocks in whole]
        move = Move(at.newest, newest, at.head.number, clock=clock, shared_block=newest.number)
        cursor = move_cursor(session, run, at.cursor, move)
    for blocks, transfers_found in zip(whole, found, strict=True):
        tell(run, blocks, transfers_found)
    return CaughtUp(cursor, newest, at.head, linked[-1].endpoint, at.transfers + sum(map(len, found)))


def _verified(run: Run, client: ChainClient, at: CaughtUp) -> CaughtUp:
    """Have borne out what is deep enough by now: what was paid long ago need not wait for the whole gap."""
    verdicts = verify_due(run, client, up_to=at.newest.number, told_by=at.endpoint)
    with run.storing() as session:
        touched = store_verdicts(session, run, verdicts)
        move = Move(at.newest, at.newest, at.head.number, clock=at.cursor.clock)
        move_cursor(session, run, at.cursor, move, touched=touched)
    return at
