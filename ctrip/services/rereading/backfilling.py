"""Reading what lies behind: a token that is listed later, or whatever else the coverage of a chain lacks.

    scheduler: a gap in what was read of a listed asset, and no job for it ──> job
    job: the next gap │ the logs of its tokens, and the blocks with hits whole; or all blocks, for coin │ short
    transactions: put right, note as read

The coverage rows say what is left, so a job that dies is gone on with by the next.
"""

import itertools
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy.orm import Session

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.history import Hits, hits_in, old_headers
from ctrip.blockchain.reading import BlocksRead, read_blocks, read_spans
from ctrip.context import Context
from ctrip.database import coverage, cursors, jobs, loops, rereading
from ctrip.domain.audit_log import SCHEDULER
from ctrip.domain.backfilling import Backfill, next_backfill
from ctrip.domain.chains import Chain
from ctrip.domain.coverage import union
from ctrip.domain.jobs import Done, JobKind, Later, Outcome
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.scanning import BlockRange, split
from ctrip.errors import NodeUnavailable
from ctrip.log import get_logger
from ctrip.runs import JobRun, run_job
from ctrip.services.rereading.correcting import Compared, Noted, all_of, issued, put_right

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


def _is_wanted(session: Session, chain: Chain) -> bool:
    loop = loops.find(session, loops.loop_name(LoopKind.LISTENER, chain.chain_id))
    if loop is None or not loop.enabled or jobs.is_open(session, JobKind.BACKFILL, chain_id=chain.chain_id):
        return False
    cursor = cursors.find(session, chain.chain_id)
    return cursor is not None and cursor.stopped_reason is None and any(_unread(session, chain).values())


def _backfill(job: JobRun) -> Outcome:
    chain, _ = job.chain_and_cursor()
    client = job.ctx.clients[chain.chain_id]
    # What a node kept it waiting for is over when it goes on.
    progress = {name: (job.progress or {}).get(name, 0) for name in _COUNTED}
    while True:
        with job.ctx.sessions.begin() as session:
            unread = _unread(session, chain)
        wanted = next_backfill(unread, most=LOGS_SPAN)
        progress["unread_blocks"] = sum(map(len, union(gap for each in unread.values() for gap in each)))
        if wanted is None or job.claim.is_overdue:
            return Done(progress)
        if job.is_turn_over:
            return Later(timedelta(0), progress)
        _read(job, client, wanted, progress)
        with job.storing() as session:
            job.note(session, progress)


def _unread(session: Session, chain: Chain) -> Mapping[bytes, list[BlockRange]]:
    return coverage.unread(session, chain.chain_id, tokens=[token.address for token in chain.tokens])


def _read(job: JobRun, client: ChainClient, wanted: Backfill, progress: dict[str, int]) -> None:
    if wanted.tokens is None:
        _read_whole(job, client, wanted.blocks, progress)
    else:
        _read_logs(job, client, wanted.blocks, tokens=wanted.tokens, progress=progress)


def _read_whole(job: JobRun, client: ChainClient, blocks: BlockRange, progress: dict[str, int]) -> None:
    spans = split([blocks], most=WHOLE_SPAN)
    for read in itertools.chain.from_iterable(
        read_spans(client, spans, issued=issued(job.ctx), keep_lease=job.keep_lease)
    ):
        _put_right(job, client, read, noted=all_of(read), progress=progress)
        if job.is_turn_over:
            return


def _read_logs(
    job: JobRun, client: ChainClient, blocks: BlockRange, *, tokens: tuple[bytes, ...], progress: dict[str, int]
) -> None:
    """Read what the logs of tokens lead to: the blocks with hits whole, and those between them count as read.

    Raises NodeUnavailable where one endpoint alone told of them though the chain has several: what that one found is
    stored, and nothing counts as read, so that the job begins there again.
    """
    with job.ctx.sessions.begin() as session:
        recipients = rereading.issued_addresses(session, most=FEW)
    for hits in hits_in(
        client, blocks, tokens=tokens, recipients=recipients, issued=issued(job.ctx), keep_lease=job.keep_lease
    ):
        _read_hits(job, client, hits, tokens=tokens, progress=progress)
        if not hits.is_borne_out:
            where = f"blocks {hits.blocks.first} to {hits.blocks.last} of {client.chain.name}"
            raise NodeUnavailable(f"{where} were looked through at {hits.endpoint} alone: no other endpoint answers")
        if job.is_turn_over:
            return


def _read_hits(
    job: JobRun, client: ChainClient, hits: Hits, *, tokens: tuple[bytes, ...], progress: dict[str, int]
) -> None:
    """Read the blocks with hits, each of which counts as read with those before it; then what follows the last one."""
    edges = old_headers(client, sorted({hits.blocks.first, hits.blocks.last}), keep_lease=job.keep_lease)
    first, parent_hash = hits.blocks.first, edges[0].parent_hash
    for read in read_blocks(client, hits.numbers, issued=issued(job.ctx), keep_lease=job.keep_lease):
        last = read.headers[-1]
        noted = Noted(BlockRange(first, last.number), parent_hash, last.hash, tokens)
        _put_right(job, client, read, noted=noted if hits.is_borne_out else None, progress=progress)
        if job.is_turn_over:
            return
        first, parent_hash = last.number + 1, last.hash
    if first <= hits.blocks.last and hits.is_borne_out:
        last = edges[-1]
        noted = Noted(BlockRange(first, last.number), parent_hash, last.hash, tokens)
        # Nothing is looked for in it: it only has to be the block that the listener knows.
        rest = BlocksRead((last,), sightings=(), upgrades=(), endpoint=hits.endpoint)
        _put_right(job, client, rest, noted=noted, progress=progress, compared_with=lambda *_: ())


def _put_right(
    job: JobRun,
    client: ChainClient,
    read: BlocksRead,
    *,
    noted: Noted | None,
    progress: dict[str, int],
    compared_with: Compared | None = None,
) -> None:
    corrected = put_right(
        job.ctx, client.chain, read, noted=noted, compared_with=compared_with, keep_lease=job.keep_lease
    )
    job.delivery_ids += corrected.delivery_ids
    progress["blocks_read"] += 0 if noted is None else len(noted.blocks)
    progress["transfers_stored"] += len(corrected.found.missing)
    progress["transfers_orphaned"] += len(corrected.found.strangers)
