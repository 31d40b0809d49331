"""Webhooks: one attempt at a delivery, and the evidence of all of them.

    claim the row │ sign and POST, no transaction open │ one transaction: hold the fence, store the attempt and what it
    means: delivered, due again, or dead with its letter

A crash between the POST and the record leaves the lease to end; then the same event is posted again under the same
`webhook-id`, which is why receivers are told to expect an event more than once.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session
from standardwebhooks import Webhook

from ctrip import __version__, metrics
from ctrip.context import Context
from ctrip.database import dead_letters, webhooks
from ctrip.domain.dead_letters import Reason, row_died
from ctrip.domain.ids import Prefix
from ctrip.domain.pages import list_object
from ctrip.domain.webhooks import Attempt, DeadReason, Delivery, DeliveryStatus, Outcome, body, delivery_object, outcome
from ctrip.errors import DeliveryFailed, DestinationRefused, LostFence, MisconfiguredError, NotFound
from ctrip.log import get_logger

QUEUE = "webhook"
ACTOR = "send_webhook"
NEAR = timedelta(seconds=60)
"""What is due sooner is worth a delayed message; the rest is found by the relay."""

log = get_logger()


@dataclass(frozen=True)
class _Reply:
    """What a POST brought: a status line, or the reason why none came. The duration is None where nothing was sent."""

    status_code: int | None = None
    response: str | None = None
    duration_ms: int | None = None
    retry_after_s: int | None = None
    error: str | None = None


def deliver(ctx: Context, delivery_id: str) -> timedelta | None:
    """Make one attempt at a delivery that is due. Returns the time until the next one where that is near, else None.

    Does nothing for a delivery that is not due, is done, or is in another run's hands. What the other side does is an
    outcome and never raises. An exception gives the claim back and goes on to the caller.
    """
    with ctx.sessions.begin() as session:
        claim = webhooks.claim(session, delivery_id)
    if claim is None:
        return None
    try:
        return _record(ctx, claim, reply=_post(ctx, claim))
    except LostFence:
        log.warning("webhook_fenced_out", delivery_id=delivery_id, fence=claim.fence)
        return None
    except Exception:
        with ctx.sessions.begin() as session:
            webhooks.release(session, claim)
        raise


def of_merchant(ctx: Context, merchant_id: str, *, limit: int, after: str | None = None) -> dict[str, object]:
    """Return a page of a merchant's deliveries, newest first."""
    with ctx.sessions.begin() as session:
        found = webhooks.of_merchant(session, merchant_id, limit=limit + 1, after=after)
    return list_object([delivery_object(*told) for told in found], limit=limit)


def find(ctx: Context, merchant_id: str, delivery_id: str) -> dict[str, object]:
    """Return a delivery of a merchant with its history. Raises NotFound."""
    with ctx.sessions.begin() as session:
        told = webhooks.find(session, delivery_id, merchant_id=merchant_id)
    if told is None:
        raise NotFound(f"no delivery {delivery_id}")
    return delivery_object(*told)


def _post(ctx: Context, claim: webhooks.Claim) -> _Reply:
    if ctx.poster is None or ctx.box is None:
        raise MisconfiguredError("SECRETS_KEY: this process signs and posts no webhooks")
    content, event_id = body(claim.event), claim.event.id
    # The library reads the secret's text; the attempt's moment is the database's, like all that is told of it.
    signer = Webhook(ctx.box.decrypt(claim.secret).decode())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"ctrip/{__version__}",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(claim.claimed_at.timestamp())),
        "webhook-signature": signer.sign(event_id, claim.claimed_at, content.decode()),
    }
    try:
        answer = ctx.poster.post(claim.delivery.url, body=content, headers=headers)
    except (DestinationRefused, DeliveryFailed) as error:
        return _Reply(error=error.detail)
    return _Reply(answer.status_code, answer.response, answer.duration_ms, answer.retry_after_s)


def _record(ctx: Context, claim: webhooks.Claim, *, reply: _Reply) -> timedelta | None:
    with ctx.sessions.begin() as session:
        ended_at = webhooks.hold(session, claim)
        result = outcome(
            reply.status_code,
            attempt=claim.attempt,
            gaps_s=ctx.settings.webhook_gaps_s,
            ended_at=ended_at,
            retry_after_s=reply.retry_after_s,
            random=random.random(),  # noqa: S311 (spreads retries, guards nothing)
        )
        attempt = _attempt(claim, reply, ended_at=ended_at)
        webhooks.record(session, claim, attempt=attempt, outcome=result)
        if result.dead_reason is not None:
            _bury(ctx, session, claim.delivery, attempt=attempt, reason=result.dead_reason, at=ended_at)
    _tell(claim, attempt, result)
    wait = None if result.next_attempt_at is None else result.next_attempt_at - ended_at
    return wait if wait is not None and wait <= NEAR else None


def _attempt(claim: webhooks.Claim, reply: _Reply, *, ended_at: datetime) -> Attempt:
    spent_ms = int((ended_at - claim.claimed_at) / timedelta(milliseconds=1))
    return Attempt(
        number=claim.delivery.attempts + 1,
        at=claim.claimed_at,
        duration_ms=spent_ms if reply.duration_ms is None else reply.duration_ms,
        status_code=reply.status_code,
        error=reply.error,
        response=reply.response,
    )


def _bury(
    ctx: Context, session: Session, delivery: Delivery, *, attempt: Attempt, reason: DeadReason, at: datetime
) -> None:
    """Store the dead letter of a delivery; where its URL is gone, end and bury what else was on its way there."""
    ended = [delivery]
    if reason is DeadReason.ENDPOINT_DISABLED:
        ended += webhooks.disable(session, delivery)
    last = attempt.error or f"HTTP {attempt.status_code}"
    for dead in ended:
        letter = row_died(
            queue=QUEUE,
            actor=ACTOR,
            row_id=dead.id,
            reason=Reason(reason),
            exception=last,
            first_at=dead.created_at,
            died_at=at,
        )
        dead_letters.add(session, letter, letter_id=ctx.new_id(Prefix.DEAD_LETTER))
        metrics.DEAD_LETTERS.labels(queue=QUEUE, actor=ACTOR, reason=str(reason)).inc()


def _tell(claim: webhooks.Claim, attempt: Attempt, result: Outcome) -> None:
    name = "retry" if result.status is DeliveryStatus.PENDING else str(result.status)
    metrics.WEBHOOK_ATTEMPTS.labels(outcome=name).inc()
    if result.status is DeliveryStatus.PENDING:
        reason = "no_answer" if attempt.status_code is None else "http_error"
        metrics.ACTOR_RETRIES.labels(queue=QUEUE, actor=ACTOR, reason=reason).inc()
    level = log.warning if result.status is DeliveryStatus.DEAD else log.info
    level(
        "webhook_attempted",
        delivery_id=claim.delivery.id,
        event_id=claim.event.id,
        outcome=name,
        attempt=attempt.number,
        status_code=attempt.status_code,
        error=attempt.error,
        duration_ms=attempt.duration_ms,
        next_attempt_at=result.next_attempt_at and result.next_attempt_at.isoformat(),
    )
