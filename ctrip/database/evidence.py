"""All that is stored of one payment, read at one moment."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from ctrip.database import cursors, events, payments, sweeps, transfers, webhooks
from ctrip.domain.chains import Chain
from ctrip.domain.evidence import Evidence
from ctrip.errors import NotFound


def gather(session: Session, payment_id: str, *, chains: Sequence[Chain], most: int) -> Evidence:
    """Return a payment and everything around it, at most `most` of a kind. Raises NotFound."""
    payment = payments.find(session, payment_id)
    if payment is None:
        raise NotFound(f"there is no payment {payment_id[:60]!r}")
    read = cursors.find_all(session)
    cursor = read.get(payment.chain_id)
    final_block = None if cursor is None else cursor.read_block - payment.required + 1
    times = {} if final_block is None else cursors.header_times(session, [(payment.chain_id, final_block)])
    return Evidence(
        payment=payment,
        chain=next((chain for chain in chains if chain.chain_id == payment.chain_id), None),
        cursors=read,
        assets={(chain.chain_id, token.address): token for chain in chains for token in chain.tokens},
        final_block_time=next(iter(times.values()), None),
        transfers=tuple(transfers.page(session, payment_id, limit=most)),
        events=tuple(events.of_payment(session, payment_id, limit=most)),
        deliveries=tuple(
            (delivery, tuple(attempts)) for delivery, attempts in webhooks.of_payment(session, payment_id, limit=most)
        ),
        sweeps=tuple(sweeps.of_payment(session, payment_id, limit=most)),
    )
