"""What operators send by hand: a payment's event once more, or their own JSON, through the machinery of all webhooks.

    one transaction behind the job's fence: deliveries, and their ids in the job's progress │ wait until all are over

A run that is killed in between leaves both or neither: nothing is made twice. The relay hears of them by the bell.
"""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy import Connection

from ctrip.context import Context
from ctrip.database import webhooks
from ctrip.domain.jobs import Done, Facts, Failed, Later, Outcome
from ctrip.domain.loops import Tick
from ctrip.domain.webhooks import Delivery
from ctrip.runs import JobRun, run_job

LOOK_EVERY = timedelta(milliseconds=500)
LONGEST_LOOK = timedelta(seconds=30)


def send_webhook(ctx: Context, job_id: str) -> Tick:
    """Send a payment's event again for a job, under its own `webhook-id`, to every destination it is owed to now."""
    return run_job(ctx, job_id, work=lambda job: _see_through(job, owe=lambda session: _owe_event(job, session)))


def custom_webhook(ctx: Context, job_id: str) -> Tick:
    """Post an operator's own JSON for a job; signed with a merchant's secret where one is named."""
    return run_job(ctx, job_id, work=lambda job: _see_through(job, owe=lambda session: _owe_custom(job, session)))


def _see_through(job: JobRun, *, owe: Callable[[Connection], list[str]]) -> Outcome:
    if job.progress is None:
        with job.storing() as session:
            delivery_ids = owe(session)
            job.note(session, {"delivery_ids": delivery_ids})
        return Later(LOOK_EVERY, {"delivery_ids": delivery_ids})
    with job.ctx.sessions.begin() as session:
        told = webhooks.of_ids(session, job.progress["delivery_ids"])
    if not told:
        return Failed("nobody to tell: the payment has no webhook_url, and its merchant no endpoint for this event")
    found = [delivery for delivery, _ in told]
    facts = {"deliveries": [_facts(delivery) for delivery in found]}
    if all(delivery.next_attempt_at is None for delivery in found):
        return Done(facts)
    return Later(_pause(job, found), {"delivery_ids": job.progress["delivery_ids"], **facts})


def _owe_event(job: JobRun, session: Connection) -> list[str]:
    return webhooks.owe_again(session, event_id=job.params["event_id"], new_id=job.ctx.new_id)


def _owe_custom(job: JobRun, session: Connection) -> list[str]:
    payload = json.dumps(job.params["payload"], separators=(",", ":"))
    url, merchant_id = job.params["url"], job.params["merchant_id"]
    return [webhooks.owe_custom(session, url=url, payload=payload, merchant_id=merchant_id, new_id=job.ctx.new_id)]


def _pause(job: JobRun, deliveries: Sequence[Delivery]) -> timedelta:
    """Return when to look again: soon after the next attempt is due."""
    due = min(delivery.next_attempt_at for delivery in deliveries if delivery.next_attempt_at is not None)
    return min(LONGEST_LOOK, max(timedelta(0), due - job.ctx.now()) + LOOK_EVERY)


def _facts(delivery: Delivery) -> Facts:
    return {
        "id": delivery.id,
        "url": delivery.url,
        "status": delivery.status.shown,
        "attempts": delivery.attempts,
        "last_status_code": delivery.last_status_code,
    }
