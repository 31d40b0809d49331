"""All that is stored of one payment, read at one moment."""

from collections.abc import Sequence

from sqlalchemy import Connection

from ctrip.database import (
    coverage,
    cursors,
    deadlines,
    events,
    payments,
    refused_transfers,
    sweeps,
    transfers,
    webhooks,
)
from ctrip.domain.chains import Chain
from ctrip.domain.coverage import SKEW, Covered
from ctrip.domain.evidence import Evidence
from ctrip.domain.scanning import BlockRange
from ctrip.errors import NotFound


def gather(session: Connection, payment_id: str, *, chains: Sequence[Chain], most: int) -> Evidence:
    """Return a payment and everything around it, at most `most` of a kind. Raises NotFound."""
    payment = payments.find(session, payment_id)
    if payment is None:
        raise NotFound(f"there is no payment {payment_id[:60]!r}")
    read = cursors.find_all(session)
    arrived, count = transfers.most_telling(session, payment, limit=most)
    covered, unread, asked = list[Covered](), list[BlockRange](), payment.asked
    if asked is not None:
        covered = coverage.find(session, asked.chain_id, asked.token)
        unread = coverage.unread(session, asked.chain_id, tokens=[asked.token])[asked.token]
    return Evidence(
        payment=payment,
        chain=next((chain for chain in chains if chain.chain_id == payment.chain_id), None),
        cursors=read,
        assets={(chain.chain_id, token.address): token for chain in chains for token in chain.tokens},
        final_block_time=deadlines.final_time_of(session, payment_id),
        transfers=tuple(arrived),
        left_out=count - len(arrived),
        refused=tuple(refused_transfers.to(session, payment.address, limit=most)),
        events=tuple(events.of_payment(session, payment_id, limit=most)),
        deliveries=tuple(
            (delivery, tuple(attempts)) for delivery, attempts in webhooks.of_payment(session, payment_id, limit=most)
        ),
        sweeps=tuple(sweeps.of_payment(session, payment_id, limit=most)),
        # What was in blocks before it was made is of no interest; blocks are read after they are made.
        covered=tuple(each for each in covered if each.last_read_at >= payment.created_at - SKEW)[-most:],
        unread=tuple(unread)[:most],
    )
