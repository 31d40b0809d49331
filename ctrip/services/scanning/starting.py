"""A chain's first block: at its head, or where the first address was issued, whichever is older."""

from datetime import datetime
from functools import partial

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.forks import check_shared
from ctrip.blockchain.history import first_block_told
from ctrip.blockchain.reading import of_any
from ctrip.database import cursors, rereading
from ctrip.domain.coverage import SKEW
from ctrip.domain.forks import LEAST_PATIENCE, is_young
from ctrip.domain.scanning import Header, is_linked
from ctrip.errors import BlockVanished
from ctrip.log import get_logger
from ctrip.runs import Run

log = get_logger()


def start_chain(run: Run, client: ChainClient) -> tuple[Header, Header]:
    """Begin a chain. Returns the block that reading goes on from, and the head.

    Money may be at any issued address on any chain that is listed later, so it is read from the first address on. All
    is told by one endpoint, and borne out by another: what one alone tells may be too late a block, or none at all.
    """
    with run.ctx.sessions.begin() as session:
        issued_at = rereading.first_issued_at(session)
    since = None if issued_at is None else issued_at - SKEW
    headers, head = of_any(client, lambda pinned: _headers(run, client, pinned, since=since))
    with run.storing() as session:
        cursors.start(session, run.chain.chain_id, headers[-1], head_block=head.number)
        cursors.store_headers(session, run.chain.chain_id, headers)
    log.info("chain_started", chain=run.chain.name, block=headers[-1].number, head_block=head.number)
    return headers[-1], head


def _headers(
    run: Run, client: ChainClient, pinned: ChainClient, *, since: datetime | None
) -> tuple[list[Header], Header]:
    """Return the first block, after the headers before it: a reorg may take it at once. And the head."""
    head, window = pinned.head(), run.chain.reorg_window
    # Of blocks above this one honest endpoints may still differ, and times there are not borne out.
    deep = max(0, head.number - window // 2)
    young = partial(is_young, now=run.ctx.now(), patience=LEAST_PATIENCE)
    first = head.number
    if since is not None:
        # The newest block that is older: money may be in the next one.
        first = max(0, first_block_told(client, pinned, since, low=0, high=deep, is_young=young) - 1)
    shared = first if len(client.endpoints) == 1 else min(first, deep)
    numbers = [*range(max(0, shared - window), first + 1)]
    found = pinned.headers(sorted({*numbers, deep}))
    headers = [found[number] for number in numbers if number in found]
    if len(headers) < len(numbers) or deep not in found or not is_linked(headers[1:], parent_hash=headers[0].hash):
        raise BlockVanished(f"blocks of {run.chain.name} moved while they were read")
    wanted = [found[number] for number in sorted({min(first, deep), deep})]
    check_shared(client, wanted, told_by=pinned.endpoint or "", is_young=young)
    return headers, head
