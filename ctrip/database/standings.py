"""What an assessment changes of payments is stored, of many at once; `move` is the one place where a status changes.

Each step on the way from one standing to another is a round: one statement for the rows of all payments that take it,
one for their events, one for the deliveries. So a block that pays thousands costs no more round trips than one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import events, transfers
from ctrip.database.batches import Given, is_among
from ctrip.database.events import News
from ctrip.database.models import payments
from ctrip.database.prepared import Prepared, is_one_of
from ctrip.database.rows import reader, writer
from ctrip.domain.events import EventType
from ctrip.domain.ids import Prefix
from ctrip.domain.payments import (
    TRANSITIONS,
    Assessment,
    Payment,
    Standing,
    Status,
    Step,
    payment_object,
    steps,
)
from ctrip.domain.transfers import Reason, TransferStatus, Verdict, transfer_object
from ctrip.errors import IllegalTransition

NewId = Callable[[Prefix], str]
STANDING = ("status", "received", "amount_status", "timing", "settlement", "completed_block")
_MILESTONES = {Status.DETECTED: "detected_at", Status.CONFIRMED: "confirmed_at", Status.SETTLED: "settled_at"}
_RENEWED = ("version", *_MILESTONES.values())
"""What the database itself makes of a move."""

_of = payments.c
_MOVED = ("canceled_at", "accepted_at", "accepted_amount", "confirmed", *STANDING)
_moves = Given("moves", _of.id, sa.column("was", sa.Text), _of.version, *(_of[name] for name in _MOVED))
_GROWN = ("confirmed", "completed_block")
_growth = Given("growth", _of.id, *(_of[name] for name in _GROWN))


@dataclass(frozen=True)
class Change:
    """One change of a payment, as the caller saw it before. `read_block` is the newest block read of its chain."""

    payment: Payment
    step: Step
    read_block: int


@dataclass(frozen=True)
class Assessed:
    """A locked payment, and what the facts say of it."""

    payment: Payment
    assessment: Assessment


def move(session: Connection, changes: Sequence[Change], *, new_id: NewId) -> tuple[list[Payment], list[str]]:
    """Store one change of each payment: its row, its version, its one event, the deliveries.

    Raises IllegalTransition where a status has no such arrow, or is not what the caller saw.
    Returns the payments as they stand now, in the order of the changes, and the ids of the deliveries.
    """
    for change in changes:
        _check_arrow(change)
    rows = _MOVE.rows(session, _moves.rows(map(_moved, changes)))
    stored = {payment_id: dict(zip(_RENEWED, renewed, strict=True)) for payment_id, *renewed in rows}
    news = []
    for change in changes:
        payment, old = change.payment, change.payment.standing
        if payment.id not in stored:
            raise IllegalTransition(f"payment {payment.id} is no longer {old.status} at version {payment.version}")
        moved = replace(payment, standing=change.step.standing, **stored[payment.id])
        shown = payment_object(moved, read_block=change.read_block)
        body: dict[str, object] = {"payment": shown, "previous_status": str(old.status)}
        news.append(News(change.step.event, moved, body))
    return [each.payment for each in news], events.append(session, news, new_id=new_id)


def store(
    session: Connection, assessed: Sequence[Assessed], *, read_blocks: Mapping[int, int], new_id: NewId
) -> list[str]:
    """Store what assessments changed, one event a change. Returns the ids of the deliveries."""
    transfers.store_verdicts(session, [verdict for each in assessed for verdict in each.assessment.verdicts])
    ways = [_way(each) for each in assessed]
    _store_growth(session, [each for each, way in zip(assessed, ways, strict=True) if not way])
    now = {each.payment.id: _grown(each) for each in assessed}
    deliveries: list[str] = []
    for steps_of_all in zip_longest(*ways):
        changes = [
            Change(now[each.payment.id], step, _read_block(each.payment, read_blocks))
            for each, step in zip(assessed, steps_of_all, strict=True)
            if step is not None
        ]
        moved, made = move(session, changes, new_id=new_id)
        now.update((payment.id, payment) for payment in moved)
        deliveries += made
    for verdicts in zip_longest(*(_news(each) for each in assessed)):
        told = [(now[v.transfer.payment_id], v) for v in verdicts if v is not None]
        announced, made = _announce(session, told, read_blocks=read_blocks, new_id=new_id)
        now.update((payment.id, payment) for payment in announced)
        deliveries += made
    return deliveries


payment_of = reader(payments, Payment)
"""Make a payment of its row."""
payment_values = writer(Payment)
"""Return what a payment's row holds of it."""


def standing_values(standing: Standing) -> dict[str, Any]:
    """Return the columns of a standing."""
    return {name: getattr(standing, name) for name in STANDING}


def _check_arrow(change: Change) -> None:
    old, new = change.payment.standing.status, change.step.standing.status
    if new is not old and new not in TRANSITIONS[old]:
        raise IllegalTransition(f"payment {change.payment.id} cannot go from {old} to {new}")


def _moved(change: Change) -> tuple[object, ...]:
    payment = change.payment
    return (
        payment.id,
        payment.standing.status,
        payment.version,
        payment.canceled_at,
        payment.accepted_at,
        payment.accepted_amount,
        payment.confirmed,
        *standing_values(change.step.standing).values(),
    )


def _move() -> sa.UpdateBase:
    to = _moves.c
    return (
        sa.update(payments)
        .where(_of.id == to.id, _of.status == to.was, _of.version == to.version)
        .values(version=_of.version + 1, **{name: to[name] for name in _MOVED}, **_milestones(to.status))
        .returning(_of.id, *(_of[name] for name in _RENEWED))
    )


def _milestones(status: sa.ColumnElement[str]) -> dict[str, sa.ColumnElement[Any]]:
    """Say which moments a move to a status sets, and which it clears because it takes them back."""
    values: dict[str, sa.ColumnElement[Any]] = {}
    reached = list(_MILESTONES)
    for place, (milestone, column) in enumerate(_MILESTONES.items()):
        values[column] = sa.case(
            (status == milestone, sa.func.coalesce(_of[column], sa.func.now())),
            (is_one_of(status, reached[place:]), _of[column]),
            else_=None,
        )
    return values


def _read_block(payment: Payment, read_blocks: Mapping[int, int]) -> int:
    """Return the newest block read of a payment's chain; one without a chain has none."""
    return 0 if payment.asked is None else read_blocks[payment.asked.chain_id]


def _grown(each: Assessed) -> Payment:
    is_same = each.payment.confirmed == each.assessment.confirmed
    return each.payment if is_same else replace(each.payment, confirmed=each.assessment.confirmed)


def _way(each: Assessed) -> list[Step]:
    payment = each.payment
    return list(steps(payment.standing, each.assessment.standing, is_accepted=payment.accepted_at is not None))


def _store_growth(session: Connection, assessed: Sequence[Assessed]) -> None:
    """Store what only grows with the confirmations, where no step does: no client is told of it."""
    grown = [
        (payment.id, assessment.confirmed, assessment.standing.completed_block)
        for payment, assessment in ((each.payment, each.assessment) for each in assessed)
        if (assessment.confirmed, assessment.standing.completed_block)
        != (payment.confirmed, payment.standing.completed_block)
    ]
    if grown:
        _GROW.run(session, _growth.rows(grown))


def _news(each: Assessed) -> list[Verdict]:
    """Return the final transfers that nobody asked for, without those that are ours or were told of already."""
    return [
        verdict
        for verdict in each.assessment.verdicts
        if not verdict.counts
        and verdict.reason is not Reason.OWN_TRANSACTION
        and verdict.transfer.status is TransferStatus.FINAL
        and not verdict.transfer.is_announced
    ]


def _announce(
    session: Connection, told: Sequence[tuple[Payment, Verdict]], *, read_blocks: Mapping[int, int], new_id: NewId
) -> tuple[list[Payment], list[str]]:
    """Tell of one transfer of each payment. Returns the payments as they stand now, and the ids of the deliveries."""
    transfers.mark_announced(session, [verdict.transfer.id for _, verdict in told])
    session.execute(
        sa.update(payments).where(is_among(_of.id, [payment.id for payment, _ in told])).values(version=_of.version + 1)
    )
    news = []
    for payment, verdict in told:
        transfer = replace(verdict.transfer, counts=verdict.counts, reason=verdict.reason)
        newer = replace(payment, version=payment.version + 1)
        body: dict[str, object] = {
            # It may be of another chain than the payment, with another head.
            "transfer": transfer_object(transfer, read_block=read_blocks[transfer.chain_id]),
            "payment": payment_object(newer, read_block=_read_block(newer, read_blocks)),
        }
        news.append(News(EventType.TRANSFER_UNEXPECTED, newer, body))
    return [each.payment for each in news], events.append(session, news, new_id=new_id)


# Built once: to build it anew takes as long as to run it for one payment.
_MOVE = Prepared(_move())
_GROW = Prepared(sa.update(payments).where(_of.id == _growth.c.id).values(**{name: _growth.c[name] for name in _GROWN}))
