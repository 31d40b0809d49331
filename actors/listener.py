"""The listener's actors: one loop per chain, sent on by itself, and the jobs that read a chain."""

from actors import BACKFILL, CHECK_BALANCES, LISTEN_FOR_PAYMENTS, PROCESS_PAYMENT, SCAN_NOW
from actors.broker import actor, context
from actors.ticks import follow, follow_job
from ctrip.services import inflows, rereading, scanning


@actor(LISTEN_FOR_PAYMENTS)
def listen_for_payments(chain_id: int) -> None:
    """Read a chain on by one step."""
    follow(scanning.scan_chain(context(), chain_id), loop=listen_for_payments, chain_id=chain_id)


@actor(CHECK_BALANCES)
def check_balances(chain_id: int) -> None:
    """Look for coin that no transaction explains."""
    follow(inflows.check_balances(context(), chain_id), loop=check_balances, chain_id=chain_id)


@actor(SCAN_NOW)
def job_scan_now(job_id: str) -> None:
    """Read a chain to its head for an operator."""
    follow_job(scanning.scan_now(context(), job_id), job=job_scan_now, job_id=job_id)


@actor(PROCESS_PAYMENT)
def job_process_payment(job_id: str) -> None:
    """Read a payment again for an operator."""
    follow_job(rereading.process_payment(context(), job_id), job=job_process_payment, job_id=job_id)


@actor(BACKFILL)
def job_backfill(job_id: str) -> None:
    """Read what was never read of a chain's assets."""
    follow_job(rereading.backfill(context(), job_id), job=job_backfill, job_id=job_id)
