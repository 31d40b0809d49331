"""A chain's first block: at its head, or where the first address was issued, whichever is older."""

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.history import first_block_since
from ctrip.database import cursors, rereading
from ctrip.domain.coverage import SKEW
from ctrip.domain.scanning import Header, is_linked
from ctrip.errors import BlockVanished
from ctrip.log import get_logger
from ctrip.runs import Run

log = get_logger()


def start_chain(run: Run, client: ChainClient) -> tuple[Header, Header]:
    """Begin a chain. Returns the block that reading goes on from, and the head.

    Money may be at any issued address on any chain that is listed later, so it is read from the first address on.
    """
    head = client.head()
    first = _first_block(run, client, head)
    # The headers before it are kept too: a reorg may take the first block at once.
    window = range(max(0, first - run.chain.reorg_window), first + 1)
    found = client.headers(window)
    headers = [found[number] for number in sorted(found)]
    if len(headers) != len(window) or not is_linked(headers[1:], parent_hash=headers[0].hash):
        raise BlockVanished(f"blocks of {run.chain.name} moved while they were read")
    with run.storing() as session:
        cursors.start(session, run.chain.chain_id, headers[-1], head_block=head.number)
        cursors.store_headers(session, run.chain.chain_id, headers)
    log.info("chain_started", chain=run.chain.name, block=first, head_block=head.number)
    return headers[-1], head


def _first_block(run: Run, client: ChainClient, head: Header) -> int:
    """Return the newest block that is older than every address that was issued."""
    with run.ctx.sessions.begin() as session:
        issued_at = rereading.first_issued_at(session)
    if issued_at is None or issued_at - SKEW > head.time:
        return head.number
    since = first_block_since(client, issued_at - SKEW, low=0, high=head.number, keep_lease=run.keep_lease)
    return max(0, since - 1)
