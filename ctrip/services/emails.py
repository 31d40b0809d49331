"""E-mails: one attempt at one of them, and the digest of dead letters that the operator gets.

    claim the row │ hand it to the server, no transaction open │ one transaction: hold the fence, store what came of it:
    sent, skipped, due again, or dead with its letter

A crash between the server's acceptance and the record leaves the lease to end; then the same bytes are sent again under
the same Message-ID. E-mails arrive at least once.
"""

from datetime import timedelta

from ctrip import metrics
from ctrip.context import Context
from ctrip.database import dead_letters, emails
from ctrip.domain import emails as rules
from ctrip.domain.dead_letters import Reason, row_died
from ctrip.domain.emails import ACTOR, DIGEST_GAP, DIGEST_LETTERS, QUEUE, EmailStatus, next_attempt_at
from ctrip.domain.ids import Prefix
from ctrip.errors import DeliveryFailed, LostFence
from ctrip.log import get_logger

NO_SERVER = "SMTP_URL is not set"
NO_OPERATOR = "OPERATOR_EMAIL is not set"
log = get_logger()


def send(ctx: Context, email_id: str) -> timedelta | None:
    """Make one attempt at an e-mail that is due. Returns the time until the next one, None where there is none.

    Does nothing for an e-mail that is not due, is over, or is in another run's hands. What the server does is an
    outcome and never raises. An exception gives the claim back and goes on to the caller.
    """
    with ctx.sessions.begin() as session:
        claim = emails.claim(session, email_id)
    if claim is None:
        return None
    try:
        return _attempt(ctx, claim)
    except LostFence:
        log.warning("email_fenced_out", email_id=email_id, fence=claim.fence)
        return None
    except Exception:
        with ctx.sessions.begin() as session:
            emails.release(session, claim)
        raise


def digest(ctx: Context) -> str | None:
    """Store an e-mail to the operator that tells of the dead letters which no digest told of yet.

    At most one each DIGEST_GAP, however many schedulers ask. Returns its id; None where there is nothing to tell.
    """
    with ctx.sessions.begin() as session:
        if not emails.may_digest(session, gap=DIGEST_GAP):
            return None
        mourned, more = emails.take_untold(session, limit=DIGEST_LETTERS)
        if not mourned:
            return None
        content = rules.dead_letters(mourned, more=more)
        email_id = emails.add_digest(session, mourned, content=content, new_id=ctx.new_id)
    log.info("dead_letters_told", email_id=email_id, count=len(mourned), more=more)
    return email_id


def _attempt(ctx: Context, claim: emails.Claim) -> timedelta | None:
    recipient = claim.email.recipient or ctx.settings.operator_email
    if ctx.mailer is None or recipient is None:
        return _record(ctx, claim, status=EmailStatus.SKIPPED, error=NO_SERVER if ctx.mailer is None else NO_OPERATOR)
    try:
        ctx.mailer.send(claim.email, recipient=recipient)
    except DeliveryFailed as error:
        return _record(ctx, claim, status=EmailStatus.PENDING, error=error.detail)
    return _record(ctx, claim, status=EmailStatus.SENT)


def _record(ctx: Context, claim: emails.Claim, *, status: EmailStatus, error: str | None = None) -> timedelta | None:
    """Store what came of an attempt. One that is to be made again, but has no time left in the schedule, is dead."""
    due = None
    with ctx.sessions.begin() as session:
        ended_at = emails.hold(session, claim)
        if status is EmailStatus.PENDING:
            due = next_attempt_at(claim.attempt, ended_at=ended_at)
            status = EmailStatus.DEAD if due is None else status
        emails.record(session, claim, status=status, error=error, next_attempt_at=due)
        if status is EmailStatus.DEAD:
            letter = row_died(
                queue=QUEUE,
                actor=ACTOR,
                row_id=claim.email.id,
                reason=Reason.SCHEDULE,
                exception=error,
                first_at=claim.email.created_at,
                died_at=ended_at,
            )
            dead_letters.add(session, letter, letter_id=ctx.new_id(Prefix.DEAD_LETTER))
    _tell(claim, status, error=error)
    return None if due is None else due - ended_at


def _tell(claim: emails.Claim, status: EmailStatus, *, error: str | None) -> None:
    name = "retry" if status is EmailStatus.PENDING else str(status)
    metrics.EMAIL_ATTEMPTS.labels(outcome=name).inc()
    if status is EmailStatus.PENDING:
        metrics.ACTOR_RETRIES.labels(queue=QUEUE, actor=ACTOR, reason="not_accepted").inc()
    if status is EmailStatus.DEAD:
        metrics.DEAD_LETTERS.labels(queue=QUEUE, actor=ACTOR, reason=str(Reason.SCHEDULE)).inc()
    # A worker without a server has said so at its start, and once is enough.
    levels = {EmailStatus.DEAD: log.warning, EmailStatus.SKIPPED: log.debug}
    levels.get(status, log.info)(
        "email_attempted",
        email_id=claim.email.id,
        kind=str(claim.email.kind),
        outcome=name,
        attempt=claim.attempt,
        error=error,
    )
