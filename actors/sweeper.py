"""The sweeper's actor: one loop per chain, sent on by itself."""

from actors import SWEEP_PAYMENTS
from actors.broker import actor, context
from actors.ticks import follow
from ctrip.services import sweeping


@actor(SWEEP_PAYMENTS)
def sweep_payments(chain_id: int) -> None:
    """Take the sweeps of a chain on by one step."""
    follow(sweeping.sweep_chain(context(), chain_id), loop=sweep_payments, chain_id=chain_id)
