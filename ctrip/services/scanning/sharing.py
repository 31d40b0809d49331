"""What others must have as well before it is stored: blocks too deep for an honest fork, and times that end payments.

Each costs a request where its time has come, and none at any other block.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import chain, islice

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.forks import IsYoung, borne_out_time, check_shared
from ctrip.blockchain.reading import Reading
from ctrip.database import cursors, deadlines
from ctrip.database.cursors import Position
from ctrip.domain import forks
from ctrip.domain.scanning import Header
from ctrip.runs import Run


@dataclass(frozen=True)
class Clock:
    """Until when deadlines may pass; None where one endpoint alone is believed anyway.

    `corrected` is a stored block with the time that others tell: the one that it has is false.
    """

    time: datetime | None
    corrected: Header | None = None


def check_deep(run: Run, client: ChainClient, newest: Header, reading: Reading) -> int | None:
    """Now and then have a block borne out that is half of the reorg window deep. Raises NodeUnavailable.

    No honest endpoints differ there, and what is wrong can still be followed back. Returns the newest block that two
    endpoints are known to have had, or that one alone is believed about while others are away: what the reorg window is
    counted from. None where nobody told of any.
    """
    if len(client.endpoints) == 1:
        return reading.tip.number
    window, told_by = run.chain.reorg_window, reading.blocks.endpoint
    every = max(1, window // 4)
    headers, deep = [reading.base, *reading.blocks.headers], list[Header]()
    if newest.number // every != reading.tip.number // every:
        headers = [*(each for each in stored(run) if each.number < reading.base.number), *headers]
        deep = [header for header in headers if header.number <= reading.tip.number - window // 2][-1:]
    if deep:
        check_shared(client, deep, told_by=told_by, is_young=youth(run), is_hash_enough=True)
    # An endpoint that told no block after ours says nothing of it: it may be behind.
    tellers = {told_by} if reading.blocks.headers or reading.is_reorg else set[str]()
    heads = client.told_heads()
    shared = (
        header.number
        for header in headers
        if header in deep or len(tellers | {label for label, head in heads.items() if head == header}) > 1
    )
    return max(shared, default=None)


def clock_after(run: Run, client: ChainClient, position: Position, reading: Reading) -> Clock:
    """Have the time borne out by which a payment is about to expire, or its money late: the clock goes on to it.

    While no other endpoint can tell, it goes on to a block that is old enough to be believed of one alone. Raises
    NodeUnavailable where they tell other times of a block that was just read, or of a stored one times that differ.
    """
    if len(client.endpoints) == 1:
        return Clock(None)
    before = clock_of(position)
    latest = max(position.latest_time, *(header.time for header in (reading.base, *reading.blocks.headers)))
    if position.deadline is None or position.deadline >= latest:
        return Clock(before)
    ending, is_young = _ending(run, reading, latest=latest), youth(run)
    old = (header for header in reversed(ending[:-1]) if not is_young(header, timedelta.max))
    for header in chain(ending[-1:], islice(old, 1)):
        told_by = reading.blocks.endpoint if header.number > reading.base.number else None
        told = borne_out_time(client, header, told_by=told_by, is_young=is_young)
        if told is not None:
            return Clock(max(before, told.time), corrected=None if told == header else told)
    return Clock(before)


def clock_of(position: Position) -> datetime:
    """Return until when deadlines may pass where a chain of several endpoints stands.

    What was stored while there was one alone is believed.
    """
    return position.cursor.clock or position.latest_time


def _ending(run: Run, reading: Reading, *, latest: datetime) -> list[Header]:
    """Return the blocks by which a deadline passes, in the order of their times."""
    chain_id, came = run.chain.chain_id, reading.blocks.sightings
    with run.ctx.sessions.begin() as session:
        near = deadlines.in_reach(session, chain_id, before=latest)
        ends = deadlines.of_addresses(session, chain_id, {each.recipient for each in came}, before=latest)
        headers = [each for each in cursors.headers(session, chain_id) if each.number <= reading.base.number]
    headers += reading.blocks.headers
    late = {each.block_number for each in came if each.block_time > ends.get(each.recipient, each.block_time)}
    ending = [header for header in headers if header.number in late]
    if near is not None:
        deadline, required = near
        final_block = reading.tip.number - required + 1
        ending += [header for header in headers if header.number <= final_block and header.time > deadline]
    return sorted(ending, key=lambda header: (header.time, header.number))


def youth(run: Run) -> IsYoung:
    """Return what says whether a block is not believed by the word of one endpoint alone, however long it was told of.

    What it takes is read from Postgres when it is asked first.
    """

    @cache
    def patience() -> timedelta:
        chain_id, reorg_window = run.chain.chain_id, run.chain.reorg_window
        with run.ctx.sessions.begin() as session:
            window = cursors.window(session, chain_id, reorg_window=reorg_window)
        return forks.patience(window, reorg_window=reorg_window)

    def is_young(header: Header, told_for: timedelta) -> bool:
        return forks.is_young(header, told_for, now=run.ctx.now(), patience=patience())

    return is_young


def stored(run: Run) -> list[Header]:
    """Return the stored headers, oldest first."""
    with run.ctx.sessions.begin() as session:
        return cursors.headers(session, run.chain.chain_id)
