"""What is about to be final is borne out by another endpoint first; what every endpoint takes back is no transfer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.reading import Reading, read_blocks
from ctrip.blockchain.verifying import verify
from ctrip.database import finality
from ctrip.domain.processing import difference
from ctrip.domain.transfers import Transfer
from ctrip.errors import BlockVanished, NodeRefused, NodeUnavailable
from ctrip.log import get_logger
from ctrip.runs import Run

MOST_AT_ONCE = 500
"""Transfers of one step; a lease is held meanwhile."""
MOST_REFUTED = 20
"""Transfers of one step whose blocks are read again from every endpoint."""
log = get_logger()


@dataclass(frozen=True)
class Verdicts:
    """The ids of transfers that were borne out just now, and the transfers that no endpoint knows any more."""

    borne_out: Sequence[str] = ()
    refuted: Sequence[Transfer] = ()


def verify_due(run: Run, client: ChainClient, reading: Reading) -> Verdicts:
    """Ask other endpoints for the transfers that have their confirmations after a reading.

    What nobody bears out, because endpoints are away, behind or of another mind, is asked again at the next step; and
    what a reorg is about to take is not asked at all.
    """
    base, head = reading.base.number, reading.tip.number
    with run.ctx.sessions.begin() as session:
        due = finality.to_verify(session, run.chain.chain_id, up_to=base, head=head, limit=MOST_AT_ONCE)
    if not due:
        return Verdicts()
    borne_out = verify(client, due, keep_lease=run.keep_lease)
    contested = [transfer for transfer in due if transfer.id not in borne_out][:MOST_REFUTED]
    refuted = _refuted(client, contested, keep_lease=run.keep_lease)
    for transfer in refuted:
        log.warning("false_transfer_orphaned", chain=run.chain.name, transfer_id=transfer.id)
    return Verdicts(borne_out, refuted)


def _refuted(
    client: ChainClient, contested: Sequence[Transfer], *, keep_lease: Callable[[], None]
) -> Sequence[Transfer]:
    """Return the transfers that no endpoint's block holds, that of the one which told of them included.

    An endpoint that has another block there, or none, says nothing. Where only one of several answers, nothing is
    refuted.
    """
    recipients, heard = {transfer.recipient for transfer in contested}, 0
    for endpoint in client.endpoints:
        if not contested:
            return []
        numbers = {transfer.block_number for transfer in contested}
        try:
            alone = client.pinned(avoiding=set(client.endpoints) - {endpoint})
            told = list(read_blocks(alone, numbers, issued=recipients.intersection, keep_lease=keep_lease))
        except (BlockVanished, NodeRefused, NodeUnavailable):
            contested = [transfer for transfer in contested if transfer.endpoint != endpoint]
            continue
        heard += 1
        hashes = {header.hash for read in told for header in read.headers}
        sightings = [sighting for read in told for sighting in read.sightings]
        strangers = difference(contested, sightings, blocks=numbers).strangers
        contested = [transfer for transfer in strangers if transfer.block_hash in hashes]
    return contested if heard >= min(2, len(client.endpoints)) else []


def is_more_due(found: Sequence[Transfer], verified: Sequence[str], *, head: int) -> bool:
    """True where the next step need not wait: what it must verify is deep enough already."""
    is_deep = any(not each.is_verified and each.block_number <= head - each.required + 1 for each in found)
    return is_deep or len(verified) == MOST_AT_ONCE
