"""What is given up: deliveries and their dead letters, endpoints and the e-mail to their owner."""

from functools import partial

from sqlalchemy import Connection

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import dead_letters, emails, webhook_endpoints, webhook_schedules
from ctrip.database.engine import after_commit
from ctrip.domain.dead_letters import Reason, row_died
from ctrip.domain.emails import EmailKind, endpoint_disabled
from ctrip.domain.ids import Prefix
from ctrip.domain.webhook_endpoints import DisabledReason, Endpoint
from ctrip.domain.webhooks import ACTOR, QUEUE, DeadReason, Delivery

END_BATCH = 200
END_BATCHES = 50
"""How much of what was on its way to a closed endpoint one run ends; the rest ends when it is due."""


def end_the_rest(ctx: Context, endpoint: Endpoint) -> None:
    """End what is left on its way to a closed endpoint, in bounded batches, each a transaction of its own."""
    for _ in range(END_BATCHES):
        with ctx.sessions.begin() as session:
            if end_batch(ctx, session, endpoint) < END_BATCH:
                return


def end_batch(ctx: Context, session: Connection, endpoint: Endpoint) -> int:
    """End deliveries to a closed endpoint. Letters tell of them where we gave it up; its owner knows what it closed."""
    ended = webhook_schedules.end_pending(session, endpoint.id, limit=END_BATCH)
    if endpoint.was_given_up:
        bury(
            ctx,
            session,
            ended,
            reason=DeadReason.ENDPOINT_DISABLED,
            last=f"the endpoint is disabled: {endpoint.disabled_reason}",
        )
    return len(ended)


def bury(ctx: Context, session: Connection, dead: list[Delivery], *, reason: DeadReason, last: str) -> None:
    """Store the dead letters of deliveries that were given up. `last` says what happened last."""
    died_at = webhook_schedules.clock(session)
    for delivery in dead:
        letter = row_died(
            queue=QUEUE,
            actor=ACTOR,
            row_id=delivery.id,
            reason=Reason(reason),
            exception=last,
            first_at=delivery.created_at,
            died_at=died_at,
        )
        dead_letters.add(session, letter, letter_id=ctx.new_id(Prefix.DEAD_LETTER))
    # A transaction that is rolled back leaves no letters, and the next run counts those that it stores instead.
    after_commit(session, partial(_count, len(dead), reason))


def write_to_owner(ctx: Context, session: Connection, endpoint: Endpoint, *, reason: DisabledReason) -> None:
    """Write to the owner of an endpoint that it was disabled, where there is an address."""
    recipient = webhook_endpoints.owner_email(session, endpoint)
    if recipient is not None:
        emails.add(
            session,
            kind=EmailKind.ENDPOINT_DISABLED,
            content=endpoint_disabled(url=endpoint.url, reason=reason, failing_since=endpoint.failing_since),
            recipient=recipient,
            merchant_id=endpoint.merchant_id,
            new_id=ctx.new_id,
        )


def _count(letters: int, reason: DeadReason) -> None:
    if letters:
        metrics.DEAD_LETTERS.labels(queue=QUEUE, actor=ACTOR, reason=str(reason)).inc(letters)
