"""All that is stored of one payment, whoever's it is: for operators who must say why it is, or is not, paid."""

from ctrip.context import Context
from ctrip.database import cursors, events, payments, sweeps, transfers, webhooks
from ctrip.domain.evidence import Evidence
from ctrip.errors import NotFound

MOST = 1000


def gather(ctx: Context, payment_id: str) -> Evidence:
    """Read a payment and everything around it at one moment, at most 1,000 of a kind. Raises NotFound."""
    with ctx.sessions.begin() as session:
        payment = payments.find(session, payment_id)
        if payment is None:
            raise NotFound(f"there is no payment {payment_id[:60]!r}")
        read = cursors.find_all(session)
        cursor = read.get(payment.chain_id)
        final_block = None if cursor is None else cursor.read_block - payment.required + 1
        times = {} if final_block is None else cursors.header_times(session, [(payment.chain_id, final_block)])
        return Evidence(
            payment=payment,
            chain=ctx.settings.chain(payment.chain_id),
            cursors=read,
            assets={(chain.chain_id, token.address): token for chain in ctx.settings.chains for token in chain.tokens},
            final_block_time=next(iter(times.values()), None),
            transfers=tuple(transfers.page(session, payment_id, limit=MOST)),
            events=tuple(events.of_payment(session, payment_id, limit=MOST)),
            deliveries=tuple(
                (delivery, tuple(attempts))
                for delivery, attempts in webhooks.of_payment(session, payment_id, limit=MOST)
            ),
            sweeps=tuple(sweeps.of_payment(session, payment_id, limit=MOST)),
        )
