"""An operator's use case: read one payment again from its chain, store what was missed, and say why it stands so.

    find its first block │ span by span: the blocks that may concern it, no transaction open │ where rows differ, one
    transaction behind the listener's fence: orphan, store, assess │ at last assess once more, and the evidence

A crash goes on with the span at hand. What was right stays as it is, without an event.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.reading import read_blocks
from ctrip.context import Context
from ctrip.database import cursors, evidence, payments, transfers
from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Chain
from ctrip.domain.evidence import evidence_object, explain
from ctrip.domain.jobs import Done, Facts, Later, Outcome
from ctrip.domain.loops import LoopKind, Tick
from ctrip.domain.payments import Payment
from ctrip.domain.processing import Course, Difference, course, difference
from ctrip.domain.scanning import Cursor, Header
from ctrip.domain.transfers import Sighting, Source, Transfer, TransferStatus
from ctrip.errors import BlockVanished, Conflict, NodeRefused, NotFound
from ctrip.log import get_logger
from ctrip.runs import JobRun, Run, run_job, run_loop_for

SKEW = timedelta(minutes=15)
"""How far the clocks of chain and database may be apart: reading begins so long before the payment was made."""
SHOWN = 100
"""The most rows of a kind that the evidence in a result holds."""
SOON = timedelta(milliseconds=500)
"""When a job looks again whether the loop is free."""
log = get_logger()


def process_payment(ctx: Context, job_id: str) -> Tick:
    """Read a payment again for a job. Its result says which blocks were read, what was put right, and the evidence."""
    return run_job(ctx, job_id, work=_process)


def _process(job: JobRun) -> Outcome:
    payment, chain, cursor = _read(job)
    client = job.ctx.clients[chain.chain_id]
    if job.progress is None or "next_block" not in job.progress:
        now = _course(client, payment, cursor, keep_lease=job.keep_lease)
    else:
        now = Course(**{name: job.progress[name] for name in Course.__dataclass_fields__})
    while not now.is_over:
        if job.is_turn_over:
            return Later(timedelta(0), asdict(now))
        done = _process_span(job, client, payment, now)
        if done is None:
            return Later(SOON, asdict(now))
        now = done
        with job.storing() as session:
            job.note(session, asdict(now))
    # Once more, whatever was found: what the rows say is assessed even where no transfer was missing.
    if _correct(job, payment, headers=[], sightings=[]) is None:
        return Later(SOON, asdict(now))
    return Done(_result(job, payment, now))


def _read(job: JobRun) -> tuple[Payment, Chain, Cursor]:
    """Return the payment and how far its chain was read. Raises NotFound and Conflict where it cannot be read again."""
    with job.ctx.sessions.begin() as session:
        payment = payments.find(session, job.params["payment_id"])
        cursor = None if payment is None else cursors.find(session, payment.chain_id)
    if payment is None:
        raise NotFound(f"there is no payment {job.params['payment_id']}")
    chain = job.ctx.settings.chain(payment.chain_id)
    if chain is None or not chain.enabled:
        raise NotFound(f"chain {payment.chain} is not served any more")
    if cursor is None:
        raise Conflict(f"chain {chain.name} was never read")
    if cursor.stopped_reason is not None:
        raise Conflict(f"chain {chain.name} is stopped until an operator looks: {cursor.stopped_reason}")
    return payment, chain, cursor


def _course(client: ChainClient, payment: Payment, cursor: Cursor, *, keep_lease: Callable[[], None]) -> Course:
    chain = client.chain
    return course(
        first_block=_first_block(client, payment.created_at - SKEW, cursor=cursor, keep_lease=keep_lease),
        last_block=cursor.read_block,
        reorg_window=chain.reorg_window,
        is_coin=payment.token == NATIVE,
    )


def _first_block(client: ChainClient, since: datetime, *, cursor: Cursor, keep_lease: Callable[[], None]) -> int:
    """Find the first block that was read and is not older than `since`, by halves: block times only grow."""
    low, high = cursor.start_block + 1, cursor.read_block + 1
    while low < high:
        middle = (low + high) // 2
        header = client.headers([middle]).get(middle)
        keep_lease()
        if header is None:
            raise BlockVanished(f"{client.chain.name} has no block {middle}, which was read")
        low, high = (middle + 1, high) if header.time < since else (low, middle)
    return low


def _process_span(job: JobRun, client: ChainClient, payment: Payment, now: Course) -> Course | None:
    """Compare the next span with the rows, and put right what differs. None where another run is at the loop."""
    span = now.span()
    with job.ctx.sessions.begin() as session:
        stored = _stored(session, payment, client.chain)
    try:
        wanted = set(span) if now.reads_whole else client.blocks_with_transfers_to(payment.address, span)
    except NodeRefused:
        if len(span) == 1:
            raise
        return now.narrowed()
    wanted |= {
        transfer.block_number for transfer in stored if transfer.block_number in range(span.first, span.last + 1)
    }
    headers, sightings = read_blocks(
        client, wanted, issued=lambda addresses: addresses & {payment.address}, keep_lease=job.keep_lease
    )
    found: Difference | None = difference(stored, sightings, blocks=wanted)
    if found:
        found = _correct(job, payment, headers=headers, sightings=sightings)
    if found is None:
        return None
    return now.after(span, blocks_read=len(wanted), stored=len(found.missing), orphaned=len(found.strangers))


def _correct(
    job: JobRun, payment: Payment, *, headers: Sequence[Header], sightings: Sequence[Sighting]
) -> Difference | None:
    """Make the rows say what these blocks hold, by a run of the listener's loop; None where another is at it."""

    def work(loop: Run) -> tuple[timedelta, Difference]:
        with loop.storing() as session:
            _check_canonical(session, loop.chain, headers)
            stored = _stored(session, payment, loop.chain)
            found = difference(stored, sightings, blocks={header.number for header in headers})
            transfers.orphan(session, [transfer.id for transfer in found.strangers])
            transfers.store_sightings(session, loop.chain, found.missing, new_id=job.ctx.new_id)
            cursor = cursors.find(session, loop.chain.chain_id)
            touched = (
                set() if cursor is None else transfers.settle_finality(session, cursor.chain_id, cursor.read_block)
            )
            loop.delivery_ids += payments.reassess(
                session, touched | {payment.id}, chains=job.ctx.settings.chains_by_id, new_id=job.ctx.new_id
            )
        for each in found.missing:
            log.warning("missed_transfer_stored", payment_id=payment.id, block=each.block_number)
        return loop.chain.poll, found

    return run_loop_for(job, LoopKind.LISTENER, payment.chain_id, work=work)


def _check_canonical(session: Session, chain: Chain, headers: Sequence[Header]) -> None:
    """Raise BlockVanished unless the listener has read these very blocks, or they are older than all that it keeps."""
    kept = {header.number: header.hash for header in cursors.headers(session, chain.chain_id)}
    for header in headers:
        known = kept.get(header.number)
        if known != header.hash and (known is not None or header.number > min(kept, default=0)):
            raise BlockVanished(f"block {header.number} of {chain.name} is not the one that the listener read")


def _stored(session: Session, payment: Payment, chain: Chain) -> list[Transfer]:
    """Return the canonical transfers of a payment on its own chain, those that reading sees: of what is listed now."""
    return [
        each
        for each in transfers.of_payments(session, [payment.id])[payment.id]
        if each.status is not TransferStatus.ORPHANED
        and each.chain_id == chain.chain_id
        and each.source is not Source.INTERNAL
        and chain.token_at(each.token) is not None
    ]


def _result(job: JobRun, payment: Payment, done: Course) -> Facts:
    with job.ctx.sessions.begin() as session:
        found = evidence.gather(session, payment.id, chains=job.ctx.settings.chains, most=SHOWN)
    whole = [(done.first_block, done.coin_until), (done.window_block, done.last_block)]
    return {
        "first_block": done.first_block,
        "last_block": done.last_block,
        "read_for_coin": [[first, last] for first, last in whole if last is not None],
        "blocks_read": done.blocks_read,
        "transfers_stored": done.transfers_stored,
        "transfers_orphaned": done.transfers_orphaned,
        "in_words": explain(found),
        "evidence": evidence_object(found),
    }
