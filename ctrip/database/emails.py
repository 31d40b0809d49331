"""E-mail rows: owed in the transaction of what they tell of, claimed for one attempt, and what came of it.

    UPDATE … SET fence = fence + 1, lease_until = … WHERE due AND not leased RETURNING fence

The fence is the claim's number: a run that was overtaken records nothing. The database's clock decides what is due.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database import work
from ctrip.database.batches import Given, array, batch, is_in
from ctrip.database.leases import EARLY, is_unleased
from ctrip.database.models import dead_letters, emails, merchants
from ctrip.database.prepared import Prepared
from ctrip.domain.emails import (
    QUEUE,
    Content,
    Email,
    EmailKind,
    EmailStatus,
    Mourned,
    confirmed_to_buyer,
    confirmed_to_merchant,
)
from ctrip.domain.ids import Prefix
from ctrip.domain.payments import Payment
from ctrip.errors import LostFence

NewId = Callable[[Prefix], str]
LEASE = timedelta(seconds=60)
"""Twice the longest attempt. It must end after the attempt, or two processes would send at once."""

_DIGEST_LOCK = 0x63547269705F6467
"""Any number that nobody else's advisory lock has: this one spells cTrip_dg."""
_EXCEPTION_CHARACTERS = 80
_of = emails.c
_OWED = ("id", "kind", "merchant_id", "payment_id", "recipient", "subject", "text", "html")
_owed = Given("owed", *(_of[name] for name in _OWED))
_OWE = Prepared(
    pg.insert(emails)
    .from_select(
        [*_OWED, "status", "next_attempt_at"], sa.select(*_owed.c, sa.literal(EmailStatus.PENDING), sa.func.now())
    )
    .on_conflict_do_nothing(index_elements=["payment_id", "kind"])
    .returning(_of.id)
)
_MERCHANTS = Prepared(
    sa.select(merchants.c.id, merchants.c.name, merchants.c.email).where(
        is_in(merchants.c.id, sa.bindparam("merchant_ids", type_=sa.Text))
    )
)


@dataclass(frozen=True)
class Claim:
    """The right to send an e-mail once. `attempt` counts from the schedule's start."""

    email: Email
    fence: int
    attempt: int


def add(
    session: Connection,
    *,
    kind: EmailKind,
    content: Content,
    recipient: str | None,
    merchant_id: str | None = None,
    payment_id: str | None = None,
    new_id: NewId,
) -> str | None:
    """Store an e-mail that is due now and ring. A recipient of None is the operator.

    Returns its id; None where a payment's e-mail of this kind was stored before.
    """
    about = {"merchant_id": merchant_id, "payment_id": payment_id}
    return next(iter(_add(session, [_pending(new_id, kind=kind, content=content, recipient=recipient) | about])), None)


def owe_confirmed(session: Connection, confirmed: Sequence[Payment], *, new_id: NewId) -> None:
    """Write to the buyer and to the merchant of payments that are confirmed, each where there is an address, once."""
    if not confirmed:
        return
    wanted = array({payment.merchant_id for payment in confirmed})
    known = {row.id: row for row in _MERCHANTS.execute(session, {"merchant_ids": wanted})}
    owed: list[dict[str, Any]] = []
    for payment in confirmed:
        merchant, about = known[payment.merchant_id], {"merchant_id": payment.merchant_id, "payment_id": payment.id}
        if payment.customer_email is not None:
            content = confirmed_to_buyer(payment, merchant_name=merchant.name)
            kind, recipient = EmailKind.PAYMENT_CONFIRMED_BUYER, payment.customer_email
            owed.append(_pending(new_id, kind=kind, content=content, recipient=recipient) | about)
        if merchant.email is not None:
            content = confirmed_to_merchant(payment)
            kind, recipient = EmailKind.PAYMENT_CONFIRMED_MERCHANT, merchant.email
            owed.append(_pending(new_id, kind=kind, content=content, recipient=recipient) | about)
    _add(session, owed)


def claim(session: Connection, email_id: str) -> Claim | None:
    """Claim a pending e-mail that is due and not leased; None where it is not, and then the caller must die."""
    row = session.execute(
        sa.update(emails)
        .where(_of.id == email_id, _of.next_attempt_at <= sa.func.now() + EARLY, is_unleased(emails))
        .values(fence=_of.fence + 1, lease_until=sa.func.now() + LEASE)
        .returning(emails)
    ).one_or_none()
    return None if row is None else Claim(_email(row), row.fence, row.attempts - row.attempts_before_schedule + 1)


def hold(session: Connection, claim: Claim) -> datetime:
    """Lock the claimed row for this transaction and return the database's time. Raises LostFence."""
    query = sa.select(sa.func.clock_timestamp()).where(_of.id == claim.email.id, _of.fence == claim.fence)
    held_at: datetime | None = session.scalar(query.with_for_update())
    if held_at is None:
        raise LostFence(f"e-mail {claim.email.id} was claimed again after fence {claim.fence}")
    return held_at


def record(
    session: Connection,
    claim: Claim,
    *,
    status: EmailStatus,
    error: str | None = None,
    next_attempt_at: datetime | None = None,
) -> None:
    """Store what came of a claim, and end it. An e-mail that was skipped was not attempted. The caller holds it."""
    session.execute(
        sa.update(emails)
        .where(_of.id == claim.email.id, _of.fence == claim.fence)
        .values(
            status=status,
            attempts=claim.email.attempts + (status is not EmailStatus.SKIPPED),
            next_attempt_at=next_attempt_at,
            lease_until=None,
            last_error=error,
            sent_at=sa.func.clock_timestamp() if status is EmailStatus.SENT else None,
        )
    )


def release(session: Connection, claim: Claim) -> None:
    """Give a claim back without an attempt, so that the next run need not wait for the lease to end."""
    session.execute(
        sa.update(emails).where(_of.id == claim.email.id, _of.fence == claim.fence).values(lease_until=None)
    )


def may_digest(session: Connection, *, gap: timedelta) -> bool:
    """Say whether this transaction may store a digest: no other one is about to, and none was stored for a while."""
    if not session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_DIGEST_LOCK))):
        return False
    recent = sa.select(_of.id).where(_of.kind == EmailKind.DEAD_LETTERS, _of.created_at > sa.func.now() - gap)
    return session.scalar(recent.limit(1)) is None


def take_untold(session: Connection, *, limit: int) -> tuple[list[Mourned], int]:
    """Lock up to `limit` dead letters that no digest told of, the newest first, and count those that are left.

    Those of the e-mail queue are left out: they tell that e-mails do not arrive. So are those that were purged.
    """
    of = dead_letters.c
    wanted = (of.digest_id.is_(None), of.queue != QUEUE, of.purged_at.is_(None))
    kind = sa.func.left(sa.func.split_part(of.exception, ":", 1), _EXCEPTION_CHARACTERS).label("kind")
    query = sa.select(of.id, of.queue, of.actor, of.reason, kind).where(*wanted).order_by(of.died_at.desc())
    rows = session.execute(query.limit(limit).with_for_update(skip_locked=True))
    taken = [Mourned(row.id, row.queue, row.actor, row.reason, row.kind or "") for row in rows]
    if len(taken) < limit:
        return taken, 0
    untold = session.scalar(sa.select(sa.func.count()).select_from(dead_letters).where(*wanted)) or 0
    return taken, untold - len(taken)


def add_digest(session: Connection, mourned: list[Mourned], *, content: Content, new_id: NewId) -> str | None:
    """Store an e-mail to the operator, as `add` does, and that it tells of these letters. Returns its id."""
    email_id = add(session, kind=EmailKind.DEAD_LETTERS, content=content, recipient=None, new_id=new_id)
    ids = [each.id for each in mourned]
    session.execute(sa.update(dead_letters).where(dead_letters.c.id.in_(ids)).values(digest_id=email_id))
    return email_id


def forget(session: Connection, *, older_than: timedelta, limit: int) -> int:
    """Delete up to `limit` e-mails that are over and of which no dead letter speaks. Returns how many."""
    letter = dead_letters.c
    query = (
        sa.select(_of.id)
        .where(
            _of.created_at < sa.func.now() - older_than,
            _of.next_attempt_at.is_(None),
            ~sa.exists().where(letter.row_id == _of.id),
            ~sa.exists().where(letter.digest_id == _of.id),
        )
        .order_by(_of.created_at)
    )
    old = batch(query, of=emails, limit=limit)
    gone = session.execute(sa.delete(emails).where(_of.id.in_(sa.select(old.c.id))).returning(_of.id)).all()
    return len(gone)


def _email(row: sa.Row[Any]) -> Email:
    return Email(
        id=row.id,
        kind=EmailKind(row.kind),
        recipient=row.recipient,
        content=Content(subject=row.subject, text=row.text, html=row.html),
        attempts=row.attempts,
        created_at=row.created_at,
    )


def _pending(new_id: NewId, *, kind: EmailKind, content: Content, recipient: str | None) -> dict[str, Any]:
    return {
        "id": new_id(Prefix.EMAIL),
        "kind": kind,
        "recipient": recipient,
        "subject": content.subject,
        "text": content.text,
        "html": content.html,
    }


def _add(session: Connection, owed: Sequence[dict[str, Any]]) -> list[str]:
    """Store e-mails that are due now, and ring. Returns the ids of those that were not stored before."""
    if not owed:
        return []
    stored = _OWE.scalars(session, _owed.rows([list(map(each.get, _OWED)) for each in owed]))
    if stored:
        work.ring(session)
    return stored
