"""The listener's actor: one loop per chain, sent on by itself."""

from actors import LISTEN_FOR_PAYMENTS
from actors.broker import actor, context
from actors.ticks import follow
from ctrip.services import scanning


@actor(LISTEN_FOR_PAYMENTS)
def listen_for_payments(chain_id: int) -> None:
    """Read a chain on by one step."""
    follow(scanning.scan_chain(context(), chain_id), loop=listen_for_payments, chain_id=chain_id)
