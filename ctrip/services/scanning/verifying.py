"""What is about to be final is borne out by another endpoint first; what most of them deny is no transfer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.recounting import recounted
from ctrip.blockchain.verifying import verify
from ctrip.database import cursors, finality
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import Sighting, Transfer
from ctrip.log import get_logger
from ctrip.runs import Run, issued

MOST_AT_ONCE = 500
"""Transfers of one step; a lease is held meanwhile."""
MOST_REFUTED = 20
"""Transfers of one step whose blocks are read again from every endpoint."""
log = get_logger()


@dataclass(frozen=True)
class Verdicts:
    """What endpoints say of the transfers that are about to be final.

    `borne_out` are the ids of those that another endpoint shows as well, `refuted` those that most endpoints deny, and
    `there` what most of them show instead in the same blocks, by the label of one that does. `not_told` are the ids of
    all others, which were asked for in vain: they are asked for again after those that were not.
    """

    borne_out: Sequence[str] = ()
    refuted: Sequence[Transfer] = ()
    not_told: Sequence[str] = ()
    there: Mapping[str, Sequence[Sighting]] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """True where a step has borne out as many as it asks for: there may be more."""
        return len(self.borne_out) == MOST_AT_ONCE


def verify_due(
    run: Run, client: ChainClient, *, up_to: int, newest: Sequence[Header] = (), told_by: str | None
) -> Verdicts:
    """Ask other endpoints for the transfers of stored blocks, `up_to` one, that have their confirmations.

    They have them at the `newest` blocks, which `told_by` told of just now and which go on from block `up_to`. What
    nobody bears out, because endpoints are away, behind or of another mind, is asked again at the next steps, after
    what was not asked for as long; and what a reorg is about to take is not asked at all.
    """
    chain_id, head = run.chain.chain_id, newest[-1].number if newest else up_to
    with run.ctx.sessions.begin() as session:
        due = finality.to_verify(session, chain_id, up_to=up_to, head=head, limit=MOST_AT_ONCE)
        stored = cursors.headers(session, chain_id) if due else []
    if not due:
        return Verdicts()
    ours = [*(header for header in stored if header.number <= up_to), *newest]
    heard = verify(client, due, ours=ours, told_by=told_by)
    contested = [transfer for transfer in due if transfer.id in heard.contradicted][:MOST_REFUTED]
    recount = recounted(client, contested, issued=issued(run.ctx))
    for transfer in recount.false:
        log.warning("false_transfer_orphaned", chain=run.chain.name, transfer_id=transfer.id)
    known = {*heard.borne_out, *(transfer.id for transfer in recount.false)}
    not_told = [transfer.id for transfer in due if transfer.id not in known]
    return Verdicts(heard.borne_out, recount.false, not_told, recount.there)


def is_more_due(found: Sequence[Transfer], verdicts: Verdicts, *, head: int) -> bool:
    """True where the next step need not wait: what it must verify is deep enough already."""
    is_deep = any(not each.is_verified and each.block_number <= head - each.required + 1 for each in found)
    return is_deep or verdicts.is_full
