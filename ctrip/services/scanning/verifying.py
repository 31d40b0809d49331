"""What is about to be final is borne out by another endpoint first; what every endpoint takes back is no transfer."""

from collections.abc import Sequence
from dataclasses import dataclass

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.verifying import refuted, verify
from ctrip.database import finality
from ctrip.domain.transfers import Transfer
from ctrip.log import get_logger
from ctrip.runs import Run

MOST_AT_ONCE = 500
"""Transfers of one step; a lease is held meanwhile."""
MOST_REFUTED = 20
"""Transfers of one step whose blocks are read again from every endpoint."""
log = get_logger()


@dataclass(frozen=True)
class Verdicts:
    """The ids of transfers that were borne out just now, the transfers that no endpoint knows any more, and the rest.

    That is by ids too: it was asked for in vain, and is asked for again after all others.
    """

    borne_out: Sequence[str] = ()
    refuted: Sequence[Transfer] = ()
    not_told: Sequence[str] = ()


def verify_due(run: Run, client: ChainClient, *, up_to: int, head: int) -> Verdicts:
    """Ask other endpoints for the transfers of blocks `up_to` one that have their confirmations at block `head`.

    What nobody bears out, because endpoints are away, behind or of another mind, is asked again at the next steps,
    after what was not asked for as long; and what a reorg is about to take is not asked at all.
    """
    with run.ctx.sessions.begin() as session:
        due = finality.to_verify(session, run.chain.chain_id, up_to=up_to, head=head, limit=MOST_AT_ONCE)
    if not due:
        return Verdicts()
    heard = verify(client, due, keep_lease=run.keep_lease)
    contested = [transfer for transfer in due if transfer.id in heard.contradicted][:MOST_REFUTED]
    false = refuted(client, contested, keep_lease=run.keep_lease)
    for transfer in false:
        log.warning("false_transfer_orphaned", chain=run.chain.name, transfer_id=transfer.id)
    known = {*heard.borne_out, *(transfer.id for transfer in false)}
    return Verdicts(heard.borne_out, false, [transfer.id for transfer in due if transfer.id not in known])


def is_more_due(found: Sequence[Transfer], verified: Sequence[str], *, head: int) -> bool:
    """True where the next step need not wait: what it must verify is deep enough already."""
    is_deep = any(not each.is_verified and each.block_number <= head - each.required + 1 for each in found)
    return is_deep or len(verified) == MOST_AT_ONCE
