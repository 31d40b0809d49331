"""The sweeper's actors: one loop per chain, sent on by itself, and the jobs that sweep."""

from actors import SWEEP_ADDRESS, SWEEP_NOW, SWEEP_PAYMENTS
from actors.broker import actor, context
from actors.ticks import follow, follow_job
from ctrip.services import sweeping


@actor(SWEEP_PAYMENTS)
def sweep_payments(chain_id: int) -> None:
    """Take the sweeps of a chain on by one step."""
    follow(sweeping.sweep_chain(context(), chain_id), loop=sweep_payments, chain_id=chain_id)


@actor(SWEEP_NOW)
def job_sweep_now(job_id: str) -> None:
    """Make a tick for an operator."""
    follow_job(sweeping.sweep_now(context(), job_id), job=job_sweep_now, job_id=job_id)


@actor(SWEEP_ADDRESS)
def job_sweep_address(job_id: str) -> None:
    """Sweep an address for an operator."""
    follow_job(sweeping.sweep_address(context(), job_id), job=job_sweep_address, job_id=job_id)
