"""The listener's actors: one loop per chain, sent on by itself, and the jobs that read a chain."""

from actors import LISTEN_FOR_PAYMENTS, PROCESS_PAYMENT, SCAN_NOW
from actors.broker import actor, context
from actors.ticks import follow, follow_job
from ctrip.services import processing, scanning


@actor(LISTEN_FOR_PAYMENTS)
def listen_for_payments(chain_id: int) -> None:
    """Read a chain on by one step."""
    follow(scanning.scan_chain(context(), chain_id), loop=listen_for_payments, chain_id=chain_id)


@actor(SCAN_NOW)
def job_scan_now(job_id: str) -> None:
    """Read a chain to its head for an operator."""
    follow_job(scanning.scan_now(context(), job_id), job=job_scan_now, job_id=job_id)


@actor(PROCESS_PAYMENT)
def job_process_payment(job_id: str) -> None:
    """Read a payment again for an operator."""
    follow_job(processing.process_payment(context(), job_id), job=job_process_payment, job_id=job_id)
