"""Webhooks: attempts at deliveries, one origin at a time, and the evidence of all of them.

    claim the row │ sign and POST, no transaction open │ one transaction: store the attempt under its fence and what it
    means: delivered, due again, or dead with its letter; claim what is due next at the same origin

A crash between the POST and the record leaves the lease to end; then the same event is posted again under the same
`webhook-id`, which is why receivers are told to expect an event more than once.

There are at most two attempts at one origin at once, in all processes together. Whoever makes one goes on with what
else is due there, so that a burst needs no message for each delivery; after a while it is another origin's turn. An
origin whose newest attempt was slow is tried in the slow lane, which has at most half of the threads.
"""

import random
import time
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ctrip import metrics
from ctrip.context import Box, Context
from ctrip.database import webhook_attempts, webhook_endpoints, webhook_origins, webhook_schedules
from ctrip.database.webhook_attempts import Claim, ComesNext, Recorded
from ctrip.domain.webhook_endpoints import Endpoint, after_failure
from ctrip.domain.webhooks import (
    ACTOR,
    CUSTOM_GAPS_S,
    GONE,
    QUEUE,
    Attempt,
    DeadReason,
    DeliveryStatus,
    Outcome,
    is_slow,
    outcome,
)
from ctrip.errors import LostFence, MisconfiguredError
from ctrip.log import get_logger
from ctrip.outbound.http import Poster
from ctrip.outbound.lanes import Seat
from ctrip.services.webhooks.endings import END_BATCH, bury, end_batch, end_the_rest, write_to_owner
from ctrip.services.webhooks.posting import Reply, Sender

TURN = timedelta(seconds=1)
"""How long a run goes on with one origin. The last attempt may begin at its end: 16 s in all, and the actor has 45."""
log = get_logger()


def deliver(ctx: Context, delivery_id: str, *, turn: timedelta = TURN) -> ComesNext | None:
    """Attempt a delivery that is due, then what else is due at its origin, until the `turn` is over.

    Returns the delivery that comes next there, for the caller to send its message; None where none is due soon. Does
    nothing for one that is not due, is done, is in another run's hands, or has no room at its origin. What the other
    side does is an outcome and never raises. An exception gives the claim back and goes on to the caller.
    """
    if ctx.poster is None or ctx.box is None:
        raise MisconfiguredError("SECRETS_KEY: this process signs and posts no webhooks")
    with ctx.poster.slow_lane.seat() as seat:
        return _Run(ctx, ctx.poster, ctx.box, seat, turn).begin(delivery_id)


class _Run:
    """One thread's turn at one origin."""

    def __init__(self, ctx: Context, poster: Poster, box: Box, seat: Seat, turn: timedelta) -> None:
        self._ctx = ctx
        self._poster = poster
        self._sender = Sender(poster, box)
        self._seat = seat
        self._turn = turn
        self._ends_at: datetime | None = None
        self._comes_next: ComesNext | None = None
        self._closed: Endpoint | None = None

    def begin(self, delivery_id: str) -> ComesNext | None:
        with self._ctx.sessions.begin() as session:
            claim = webhook_attempts.claim(session, delivery_id)
        if claim is None:
            return None
        place = claim.origin
        while claim is not None and self._may_attempt(claim):
            claim = self._attempt(claim)
        if self._closed is not None:
            end_the_rest(self._ctx, self._closed)
            with self._ctx.sessions.begin() as session:
                self._comes_next = webhook_attempts.hand_on(session, place, is_held=False)
        return self._comes_next

    def _may_attempt(self, claim: Claim) -> bool:
        """Say whether a claim may be attempted now; where it may not, give the delivery back, or end it."""
        endpoint = claim.endpoint
        if endpoint is not None and not endpoint.is_open:
            with self._ctx.sessions.begin() as session:
                webhook_attempts.release(session, claim)
                self._close(session, endpoint)
        elif endpoint is not None and endpoint.url != claim.delivery.url:
            with self._ctx.sessions.begin() as session:
                webhook_attempts.move(session, claim, url=endpoint.url)
                webhook_schedules.follow(session, endpoint.id, limit=END_BATCH)
            self._comes_next = ComesNext(claim.delivery.id, timedelta(0))
        elif claim.is_slow and not self._seat.take():
            with self._ctx.sessions.begin() as session:
                webhook_attempts.release(session, claim)
        else:
            if not claim.is_slow:
                self._seat.leave()
            self._ends_at = self._ends_at or claim.claimed_at + self._turn
            return True
        return False

    def _attempt(self, claim: Claim) -> Claim | None:
        """Make one attempt; return the claim of what comes next in this turn."""
        begun = time.monotonic()
        try:
            reply = self._sender.post(claim)
            recorded = self._record(claim, reply, at=claim.claimed_at + timedelta(seconds=time.monotonic() - begun))
        except LostFence:
            log.warning("webhook_fenced_out", delivery_id=claim.delivery.id, fence=claim.fence)
            return None
        except Exception:
            with self._ctx.sessions.begin() as session:
                webhook_attempts.release(session, claim)
            raise
        return None if recorded.following is None else webhook_attempts.read(recorded.following)

    def _record(self, claim: Claim, reply: Reply, *, at: datetime) -> Recorded:
        """Store what a POST brought that ended `at`, and claim or hand on what is due next at the origin."""
        attempt = _made(claim, reply, ended_at=at)
        with self._ctx.sessions.begin() as session:
            is_former = reply.status_code == GONE and webhook_attempts.is_moved(session, claim)
            result = outcome(
                reply.status_code,
                attempt=claim.attempt,
                gaps_s=CUSTOM_GAPS_S if claim.event is None else self._ctx.settings.webhook_gaps_s,
                ended_at=at,
                retry_after_s=reply.retry_after_s,
                random=random.random(),  # noqa: S311 (spreads retries, guards nothing)
                is_former=is_former,
            )
            # After a failure others have a turn first, and what comes next may be ended by it.
            goes_on = result.status is DeliveryStatus.DELIVERED and self._ends_at is not None and at < self._ends_at
            recorded = webhook_attempts.record(session, claim, attempt=attempt, outcome=result, at=at, goes_on=goes_on)
            self._judge(session, claim, attempt, result, recorded=recorded, at=at)
            was_slow = is_slow(attempt.duration_ms, timeout_s=self._poster.timeout_s)
            if was_slow is not recorded.was_slow:
                webhook_origins.mark(session, claim.origin, is_slow=was_slow)
            if recorded.following is None and self._closed is None:
                self._leave(session, claim, is_held=recorded.was_leased, was_slow=was_slow)
        _tell(claim, attempt, result)
        return recorded

    def _leave(self, session: Connection, claim: Claim, *, is_held: bool, was_slow: bool) -> None:
        """Let somebody else go on at the origin; a slow one stands back while others want its place in the lane."""
        if was_slow and self._poster.slow_lane.is_wanted:
            webhook_attempts.put_off(session, claim.origin)
        else:
            self._comes_next = webhook_attempts.hand_on(session, claim.origin, is_held=is_held)

    def _judge(
        self, session: Connection, claim: Claim, attempt: Attempt, result: Outcome, *, recorded: Recorded, at: datetime
    ) -> None:
        """Draw the conclusions of an attempt for its endpoint, and for what else is on its way there."""
        last = attempt.error or f"HTTP {attempt.status_code}"
        if result.dead_reason is not None:
            bury(self._ctx, session, [claim.delivery], reason=result.dead_reason, last=last)
        if claim.endpoint is not None:
            if result.status is not DeliveryStatus.DELIVERED:
                self._note_failure(session, claim.endpoint, attempt, url=claim.delivery.url, at=at)
            elif recorded.was_failing:
                webhook_endpoints.note_success(session, claim.endpoint.id, url=claim.delivery.url)
        elif result.dead_reason is DeadReason.ENDPOINT_DISABLED and claim.delivery.payment_id is not None:
            ended = webhook_schedules.end_pending_of_payment(
                session, claim.delivery.payment_id, claim.delivery.url, limit=END_BATCH
            )
            bury(self._ctx, session, ended, reason=DeadReason.ENDPOINT_DISABLED, last=last)

    def _note_failure(self, session: Connection, failed: Endpoint, attempt: Attempt, *, url: str, at: datetime) -> None:
        endpoint = webhook_endpoints.lock(session, failed.id)
        # An endpoint that was moved during the attempt is not at fault for what its former URL answers.
        if not endpoint.is_open or endpoint.url != url:
            return
        since, reason = after_failure(endpoint.failing_since, status_code=attempt.status_code, at=at)
        changed = webhook_endpoints.note_failure(session, endpoint, since=since, reason=reason)
        if reason is not None:
            write_to_owner(self._ctx, session, changed, reason=reason)
            log.warning("webhook_endpoint_disabled", endpoint_id=endpoint.id, reason=str(reason))
            self._close(session, changed)

    def _close(self, session: Connection, endpoint: Endpoint) -> None:
        """End a first batch of what is on its way to a closed endpoint; the rest when the turn is over."""
        end_batch(self._ctx, session, endpoint)
        self._closed = endpoint


def _made(claim: Claim, reply: Reply, *, ended_at: datetime) -> Attempt:
    return Attempt(
        number=claim.delivery.attempts + 1,
        at=claim.claimed_at,
        duration_ms=int((ended_at - claim.claimed_at) / timedelta(milliseconds=1)),
        status_code=reply.status_code,
        error=reply.error,
        response=reply.response,
    )


def _tell(claim: Claim, attempt: Attempt, result: Outcome) -> None:
    name = "retry" if result.status is DeliveryStatus.PENDING else str(result.status)
    metrics.WEBHOOK_ATTEMPTS.labels(outcome=name).inc()
    if result.status is DeliveryStatus.PENDING:
        reason = "no_answer" if attempt.status_code is None else "http_error"
        metrics.ACTOR_RETRIES.labels(queue=QUEUE, actor=ACTOR, reason=reason).inc()
    level = log.warning if result.status is DeliveryStatus.DEAD else log.info
    level(
        "webhook_attempted",
        delivery_id=claim.delivery.id,
        event_id=claim.delivery.event_id,
        outcome=name,
        attempt=attempt.number,
        status_code=attempt.status_code,
        error=attempt.error,
        duration_ms=attempt.duration_ms,
        next_attempt_at=result.next_attempt_at and result.next_attempt_at.isoformat(),
    )
