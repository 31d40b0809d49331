"""An operator's use case: read one payment again from its chain, store what was missed, and say why it stands so.

    find its first block │ span by span: the blocks that may concern it, no transaction open │ where rows differ, they
    are put right │ at last assess once more, and the evidence

A crash goes on with the span at hand. What was right stays as it is, without an event.
"""

from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from datetime import timedelta

from sqlalchemy import Connection

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.history import Hits, first_block_since, hits_in
from ctrip.blockchain.reading import BlocksRead, read_blocks
from ctrip.context import Context
from ctrip.database import evidence, payments, rereading
from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Chain
from ctrip.domain.coverage import SKEW
from ctrip.domain.evidence import evidence_object, explain
from ctrip.domain.jobs import Done, Facts, Later, Outcome
from ctrip.domain.loops import Tick
from ctrip.domain.payments import Payment
from ctrip.domain.processing import Course, course
from ctrip.domain.rereading import difference
from ctrip.domain.scanning import BlockRange, Cursor
from ctrip.domain.transfers import Transfer
from ctrip.errors import NotFound
from ctrip.runs import JobRun, run_job
from ctrip.services.rereading.believing import of_our_chain, on_our_chain
from ctrip.services.rereading.correcting import Corrected, put_right

SHOWN = 100
"""The most rows of a kind that the evidence in a result holds."""


def process_payment(ctx: Context, job_id: str) -> Tick:
    """Read a payment again for a job. Its result says which blocks were read, what was put right, and the evidence."""
    return run_job(ctx, job_id, work=_process)


def _process(job: JobRun) -> Outcome:
    payment, (chain, cursor) = _payment(job), job.chain_and_cursor()
    client = job.ctx.clients[chain.chain_id].keeping(job.keep_lease)
    if job.progress is None or "next_block" not in job.progress:
        now = _course(job, client, payment, cursor)
    else:
        now = Course(**{name: job.progress[name] for name in Course.__dataclass_fields__})
    while not now.is_over:
        if job.is_turn_over:
            return Later(timedelta(0), asdict(now))
        now = _process_span(job, client, payment, now)
        with job.storing() as session:
            job.note(session, asdict(now))
    # Once more, whatever was found: what the rows say is assessed even where no transfer was missing.
    _correct(job, client, payment)
    return Done(_result(job, payment, now))


def _payment(job: JobRun) -> Payment:
    with job.ctx.sessions.begin() as session:
        payment = payments.find(session, job.params["payment_id"])
    if payment is None:
        raise NotFound(f"there is no payment {job.params['payment_id']}")
    return payment


def _course(job: JobRun, client: ChainClient, payment: Payment, cursor: Cursor) -> Course:
    chain, since, check = client.chain, payment.created_at - SKEW, on_our_chain(job.ctx, client)
    first_block = first_block_since(client, since, low=cursor.start_block + 1, high=cursor.read_block, check=check)
    return course(
        first_block=first_block,
        last_block=cursor.read_block,
        reorg_window=chain.reorg_window,
        is_coin=payment.asked is not None and payment.asked.token == NATIVE,
    )


def _process_span(job: JobRun, client: ChainClient, payment: Payment, now: Course) -> Course:
    """Compare the next span with the rows, and put right what differs.

    Raises NodeUnavailable where one endpoint alone looked through its logs though the chain has several: what that one
    found is stored and counted, and the job begins there again.
    """
    span = now.span()
    with job.ctx.sessions.begin() as session:
        stored = _stored(session, payment, client.chain, numbers=set(span))
    hits = [] if now.reads_whole else list(_hits(job, client, payment, span))
    wanted = set(span) if now.reads_whole else {number for each in hits for number in each.numbers}
    wanted |= {transfer.block_number for transfer in stored}
    came = went = 0
    for read in read_blocks(
        client,
        wanted,
        issued=lambda addresses: addresses & {payment.address},
        check=of_our_chain(job.ctx, client, hits=hits),
    ):
        differs = difference(stored, read.sightings, blocks={header.number for header in read.headers})
        if differs or read.failed:
            corrected = _correct(job, client, payment, read)
            came, went = came + len(corrected.stored), went + len(corrected.orphaned)
    done = now.after(span, blocks_read=len(wanted), stored=came, orphaned=went)
    if not all(each.is_borne_out for each in hits):
        with job.storing() as session:
            job.note(session, asdict(replace(done, next_block=now.next_block, blocks_read=now.blocks_read)))
    for each in hits:
        each.check_borne_out()
    return done


def _hits(job: JobRun, client: ChainClient, payment: Payment, span: BlockRange) -> Iterator[Hits]:
    return hits_in(
        client,
        span,
        tokens=client.chain.contracts,
        recipients=[payment.address],
        issued=lambda addresses: addresses & {payment.address},
        check=on_our_chain(job.ctx, client),
    )


def _correct(job: JobRun, client: ChainClient, payment: Payment, read: BlocksRead | None = None) -> Corrected:
    """Make the rows say what these blocks hold for the payment, and assess it."""
    corrected = put_right(
        job.ctx,
        client,
        read,
        compared_with=lambda session, numbers: _stored(session, payment, client.chain, numbers=numbers),
        touched=[payment.id],
    )
    job.delivery_ids += corrected.delivery_ids
    return corrected


def _stored(session: Connection, payment: Payment, chain: Chain, *, numbers: Collection[int]) -> list[Transfer]:
    return [each for each in rereading.readable(session, chain, numbers=numbers) if each.payment_id == payment.id]


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
