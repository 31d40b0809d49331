"""Reading what lies behind: a token that is listed later, or whatever else the coverage of a chain lacks.

    scheduler: a gap in what was read of a listed asset, and no job for it ──> job
    job: the next gap │ the logs of its tokens, and the blocks with hits whole; or all blocks, for coin │ short
    transactions: put right, note as read

The coverage rows say what is left, so a job that dies is gone on with by the next.
"""

import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial

from sqlalchemy import Connection

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.history import Hits, hits_in, old_headers
from ctrip.blockchain.reading import BLOCKS_PER_STEP, BlocksRead, read_blocks, read_spans
from ctrip.context import Context
from ctrip.database import coverage, cursors, jobs, loops, rereading
from ctrip.domain.addresses import NATIVE
from ctrip.domain.audit_log import SCHEDULER
from ctrip.domain.backfilling import Backfill, next_backfill
from ctrip.domain.chains import Chain
from ctrip.domain.coverage import gaps as uncovered
from ctrip.domain.coverage import union
from ctrip.domain.jobs import Done, JobKind, Later, Outcome
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.scanning import BlockRange, split
from ctrip.errors import NodeUnavailable
from ctrip.log import get_logger
from ctrip.runs import JobRun, issued, run_job
from ctrip.services.rereading.believing import of_our_chain, on_our_chain
from ctrip.services.rereading.correcting import Compared, Noted, all_of, put_right

WHOLE_SPAN = 10
LOGS_SPAN = 100_000
"""The client asks for as many of them at once as the node allows."""
FEW = 1_000
"""So many addresses a node may be asked to look for; where more were issued, Postgres looks."""
_COUNTED = ("blocks_read", "transfers_stored", "transfers_orphaned")
log = get_logger()


def schedule_backfills(ctx: Context) -> list[str]:
    """Ask for the gaps of every chain to be read where nobody has asked yet. Returns the names of those chains."""
    asked = []
    for chain in ctx.settings.chains:
        if chain.enabled:
            with ctx.sessions.begin() as session:
                if _is_wanted(session, chain):
                    params = {"chain": chain.name, "chain_id": chain.chain_id}
                    jobs.add(session, JobKind.BACKFILL, params=params, by=SCHEDULER, new_id=ctx.new_id)
                    asked.append(chain.name)
    for name in asked:
        log.info("backfill_scheduled", chain=name)
    return asked


def backfill(ctx: Context, job_id: str) -> Tick:
    """Read the gaps of a chain for a job, for as long as a job may take; another one is scheduled for the rest."""
    return run_job(ctx, job_id, work=_backfill)


def _is_wanted(session: Connection, chain: Chain) -> bool:
    loop = loops.find(session, loops.loop_name(LoopKind.LISTENER, chain.chain_id))
    if loop is None or not loop.enabled or jobs.is_open(session, JobKind.BACKFILL, chain_id=chain.chain_id):
        return False
    cursor = cursors.find(session, chain.chain_id)
    return cursor is not None and cursor.stopped_reason is None and any(_unread(session, chain).values())


def _backfill(job: JobRun) -> Outcome:
    chain, _ = job.chain_and_cursor()
    client = job.ctx.clients[chain.chain_id].keeping(job.keep_lease)
    # What a node kept it waiting for is over when it goes on.
    progress = {name: (job.progress or {}).get(name, 0) for name in _COUNTED}
    doubtful = list[BlockRange]()
    while True:
        with job.ctx.sessions.begin() as session:
            unread = _unread(session, chain)
        wanted = next_backfill(_without(unread, doubtful), most=LOGS_SPAN)
        progress["unread_blocks"] = sum(map(len, union(gap for each in unread.values() for gap in each)))
        if job.claim.is_overdue or not (wanted or doubtful):
            return Done(progress)
        if wanted is None:
            where = f"blocks {doubtful[0].first} to {doubtful[-1].last} of {chain.name}"
            raise NodeUnavailable(f"{where} show fewer transfers than endpoints told of")
        if job.is_turn_over:
            return Later(timedelta(0), progress)
        doubtful += _read(job, client, wanted, progress)
        with job.storing() as session:
            job.note(session, progress)


def _unread(session: Connection, chain: Chain) -> Mapping[bytes, list[BlockRange]]:
    return coverage.unread(session, chain.chain_id, tokens=chain.assets)


def _without(unread: Mapping[bytes, list[BlockRange]], doubtful: list[BlockRange]) -> Mapping[bytes, list[BlockRange]]:
    """Leave out what endpoints are of several minds about now: all else is read first."""
    return {
        token: gaps if token == NATIVE else [rest for gap in gaps for rest in uncovered(doubtful, gap)]
        for token, gaps in unread.items()
    }


def _read(job: JobRun, client: ChainClient, wanted: Backfill, progress: dict[str, int]) -> list[BlockRange]:
    """Read the next blocks. Returns those that show less than was told of, and do not count as read."""
    if wanted.tokens is not None:
        return _read_logs(job, client, wanted.blocks, tokens=wanted.tokens, progress=progress)
    _read_whole(job, client, wanted.blocks, progress)
    return []


def _read_whole(job: JobRun, client: ChainClient, blocks: BlockRange, progress: dict[str, int]) -> None:
    spans = split([blocks], most=WHOLE_SPAN)
    # The threads that read leave the lease to this one.
    check = of_our_chain(job.ctx, job.ctx.clients[client.chain.chain_id])
    for read in itertools.chain.from_iterable(read_spans(client, spans, issued=issued(job.ctx), check=check)):
        _put_right(job, client, read, noted=all_of(read), progress=progress)
        if job.is_turn_over:
            return


def _read_logs(
    job: JobRun, client: ChainClient, blocks: BlockRange, *, tokens: tuple[bytes, ...], progress: dict[str, int]
) -> list[BlockRange]:
    """Read what the logs of tokens lead to: the blocks with hits whole, and those between them count as read.

    Raises NodeUnavailable where one endpoint alone told of them though the chain has several: what that one found is
    stored, and nothing counts as read, so that the job begins there again.
    """
    with job.ctx.sessions.begin() as session:
        recipients = rereading.issued_addresses(session, most=FEW)
    doubtful = list[BlockRange]()
    for hits in hits_in(
        client,
        blocks,
        tokens=tokens,
        recipients=recipients,
        issued=issued(job.ctx),
        check=on_our_chain(job.ctx, client),
    ):
        doubtful += _read_hits(job, client, hits, tokens=tokens, progress=progress)
        hits.check_borne_out()
        if job.is_turn_over:
            break
    return doubtful


def _read_hits(
    job: JobRun, client: ChainClient, hits: Hits, *, tokens: tuple[bytes, ...], progress: dict[str, int]
) -> list[BlockRange]:
    """Read the blocks with hits, each of which counts as read with those before it; then what follows the last one.

    Where one shows less than was told of, at every endpoint, what it shows is stored, and it does not count as read.
    """
    first, last = hits.blocks.first, hits.blocks.last
    edges = old_headers(client, sorted({first, last}), check=on_our_chain(job.ctx, client))
    parent_hash, doubtful = edges[0].parent_hash, list[BlockRange]()
    for begins in range(0, len(hits.numbers), BLOCKS_PER_STEP):
        numbers = hits.numbers[begins : begins + BLOCKS_PER_STEP]
        read, is_whole = _read_numbers(job, client, hits, numbers)
        newest = read.headers[-1]
        noted = Noted(BlockRange(first, newest.number), parent_hash, newest.hash, tokens)
        doubtful += [] if is_whole else [noted.blocks]
        _put_right(job, client, read, noted=noted if hits.is_borne_out and is_whole else None, progress=progress)
        if job.is_turn_over:
            return doubtful
        first, parent_hash = newest.number + 1, newest.hash
    if first <= last and hits.is_borne_out:
        noted = Noted(BlockRange(first, last), parent_hash, edges[-1].hash, tokens)
        # Nothing is looked for in it: it only has to be the block that the listener knows.
        rest = BlocksRead((edges[-1],), sightings=(), upgrades=(), endpoint=hits.endpoint)
        _put_right(job, client, rest, noted=noted, progress=progress, compared_with=lambda *_: ())
    return doubtful


def _read_numbers(job: JobRun, client: ChainClient, hits: Hits, numbers: Sequence[int]) -> tuple[BlocksRead, bool]:
    """Read blocks with hits from an endpoint that shows all that any told of; False where there is none, by another."""
    ask = partial(read_blocks, client, numbers, issued=issued(job.ctx))
    try:
        (read,) = ask(check=of_our_chain(job.ctx, client, hits=[hits]))
    except NodeUnavailable:
        (read,) = ask(check=of_our_chain(job.ctx, client))
        return read, False
    return read, True


def _put_right(
    job: JobRun,
    client: ChainClient,
    read: BlocksRead,
    *,
    noted: Noted | None,
    progress: dict[str, int],
    compared_with: Compared | None = None,
) -> None:
    corrected = put_right(job.ctx, client, read, noted=noted, compared_with=compared_with)
    job.delivery_ids += corrected.delivery_ids
    progress["blocks_read"] += 0 if noted is None else len(noted.blocks)
    progress["transfers_stored"] += len(corrected.stored)
    progress["transfers_orphaned"] += len(corrected.orphaned)
