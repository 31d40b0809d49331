"""What others must have as well before it is stored: blocks too deep for an honest fork, and times that end payments.

Each costs a request where its time has come, and none at any other block.
"""

from datetime import datetime

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.forks import borne_out_time, check_shared
from ctrip.blockchain.reading import Reading
from ctrip.database import cursors, deadlines
from ctrip.database.cursors import Position
from ctrip.domain.forks import patience
from ctrip.domain.scanning import Header
from ctrip.runs import Run


def check_deep(run: Run, client: ChainClient, newest: Header, reading: Reading) -> None:
    """Now and then have a block borne out that is half of the reorg window deep. Raises NodeUnavailable.

    No honest endpoints differ there, and what is wrong can still be followed back.
    """
    window = run.chain.reorg_window
    every = max(1, window // 4)
    if len(client.endpoints) == 1 or newest.number // every == reading.tip.number // every:
        return
    headers = [*(each for each in stored(run) if each.number <= reading.base.number), *reading.blocks.headers]
    deep = [header for header in headers if header.number <= reading.tip.number - window // 2]
    if deep:
        check_shared(
            client.keeping(run.keep_lease),
            deep[-1:],
            told_by=reading.blocks.endpoint,
            young_after=lambda: young_after(run),
            is_hash_enough=True,
        )
        run.keep_lease()


def may_expire(run: Run, client: ChainClient, position: Position, reading: Reading) -> bool:
    """Have the time borne out by which a payment is about to expire, or its money late.

    False while others have not come so far: no payment expires meanwhile. Raises NodeUnavailable where another time is
    told.
    """
    latest = max(position.latest_time, *(header.time for header in (reading.base, *reading.blocks.headers)))
    if len(client.endpoints) == 1 or position.deadline is None or position.deadline >= latest:
        return True
    last = _ending(run, reading, latest=latest)
    if last is None:
        return True
    told_by = reading.blocks.endpoint if last.number > reading.base.number else None
    heard = client.keeping(run.keep_lease)
    told = borne_out_time(heard, last, told_by=told_by, young_after=lambda: young_after(run))
    if told is None or told == last:
        return told is not None
    with run.storing() as session:
        cursors.correct_time(session, run.chain.chain_id, told)
    return False


def _ending(run: Run, reading: Reading, *, latest: datetime) -> Header | None:
    """Return the block with the latest time of those by which a deadline passes; None where none does so."""
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
    return max(ending, key=lambda header: (header.time, header.number), default=None)


def young_after(run: Run) -> datetime:
    """Return when blocks were made that an endpoint may lack which is not behind."""
    return run.ctx.now() - patience(stored(run), reorg_window=run.chain.reorg_window)


def stored(run: Run) -> list[Header]:
    """Return the stored headers, oldest first."""
    with run.ctx.sessions.begin() as session:
        return cursors.headers(session, run.chain.chain_id)
