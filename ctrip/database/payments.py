"""Payments: found, locked, assessed; `move` is the one place where a status changes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ctrip.database import cursors, events, sweeps, transfers
from ctrip.database.deadlines import final_block, final_time
from ctrip.database.models import chain_cursors, deposit_addresses, payments
from ctrip.domain.chains import Chain
from ctrip.domain.events import EventType
from ctrip.domain.finality import Finality
from ctrip.domain.ids import Prefix
from ctrip.domain.payments import (
    TRANSITIONS,
    AmountStatus,
    Assessment,
    Facts,
    Payment,
    Settlement,
    Standing,
    Status,
    Step,
    Timing,
    assess,
    payment_object,
    steps,
)
from ctrip.domain.transfers import Reason, TransferStatus, Verdict, transfer_object
from ctrip.errors import IllegalTransition

NewId = Callable[[Prefix], str]
_STANDING = ("status", "received", "amount_status", "timing", "settlement", "completed_block")
_MILESTONES = {Status.DETECTED: "detected_at", Status.CONFIRMED: "confirmed_at", Status.SETTLED: "settled_at"}


def next_index(session: Session) -> tuple[int, datetime]:
    """Take the next BIP-32 child number, and the time by Postgres's clock, in one round trip.

    The number is never given out again, even if this transaction is rolled back.
    """
    row = session.execute(sa.text("SELECT nextval('deposit_index'), now()")).one()
    return int(row[0]), row[1]


def add(
    session: Session, payment: Payment, *, wallet_fingerprint: bytes, index: int, read_block: int, new_id: NewId
) -> list[str]:
    """Store a new payment with its address and its event. Returns the ids of the deliveries."""
    # Values apart from the statement: in it, they would be hashed with it at each execution, which costs a millisecond.
    session.execute(sa.insert(payments), _values(payment))
    issued = {
        "address": payment.address,
        "wallet_fingerprint": wallet_fingerprint,
        "derivation_index": index,
        "payment_id": payment.id,
    }
    session.execute(sa.insert(deposit_addresses), issued)
    body: dict[str, object] = {"payment": payment_object(payment, read_block=read_block), "previous_status": None}
    return events.append(session, EventType.PAYMENT_CREATED, payment=payment, body=body, new_id=new_id)


def find(session: Session, payment_id: str, *, merchant_id: str | None = None) -> Payment | None:
    """Return a payment, that merchant's alone where one is given."""
    query = sa.select(payments).where(payments.c.id == payment_id)
    if merchant_id is not None:
        query = query.where(payments.c.merchant_id == merchant_id)
    row = session.execute(query).one_or_none()
    return None if row is None else payment_of(row)


def matching(
    session: Session, merchant_id: str, *, filters: Mapping[str, Any], limit: int, after: str | None = None
) -> Sequence[Payment]:
    """Return a merchant's payments, newest first, those older than the id `after` where one is given.

    `filters` may hold status, chain, order_id, created_after and created_before.
    """
    query = sa.select(payments).where(payments.c.merchant_id == merchant_id)
    for name in ("status", "chain", "order_id"):
        if filters.get(name) is not None:
            query = query.where(payments.c[name] == filters[name])
    if filters.get("created_after") is not None:
        query = query.where(payments.c.created_at > filters["created_after"])
    if filters.get("created_before") is not None:
        query = query.where(payments.c.created_at < filters["created_before"])
    if after is not None:
        query = query.where(payments.c.id < after)
    return [payment_of(row) for row in session.execute(query.order_by(payments.c.id.desc()).limit(limit))]


def lock(session: Session, payment_ids: Iterable[str], *, keeps_transfers_out: bool = False) -> list[Payment]:
    """Return payments locked for this transaction, in the order of their ids so that two lockers never deadlock.

    A transaction that stored a transfer or an intent of a payment holds that row's key by the foreign key. Two of them
    may each go on to lock the other's payments, so this lock lets keys be, unless `keeps_transfers_out` says that none
    may be stored meanwhile: then it waits for all that are.
    """
    query = sa.select(payments).where(payments.c.id.in_(list(payment_ids))).order_by(payments.c.id)
    locking = query.with_for_update(key_share=not keeps_transfers_out)
    return [payment_of(row) for row in session.execute(locking)]


def reassess(session: Session, payment_ids: Iterable[str], *, chains: Mapping[int, Chain], new_id: NewId) -> list[str]:
    """Lock payments, assess them by the rows of this transaction and store what changed, one event a change.

    Returns the ids of the deliveries made. A payment whose chain was never read, or is not configured, is left alone.
    """
    locked = [payment for payment in lock(session, payment_ids) if payment.chain_id in chains]
    if not locked:
        return []
    arrived = transfers.of_payments(session, [payment.id for payment in locked])
    facts = facts_of(session, locked, chains=chains)
    read_blocks = {chain_id: cursor.read_block for chain_id, cursor in cursors.find_all(session).items()}
    deliveries: list[str] = []
    for payment in locked:
        if payment.id in facts:
            assessment = assess(payment, tuple(arrived[payment.id]), facts[payment.id])
            deliveries += _store(session, payment, assessment, read_blocks=read_blocks, new_id=new_id)
    return deliveries


def facts_of(session: Session, of: Sequence[Payment], *, chains: Mapping[int, Chain]) -> dict[str, Facts]:
    """Return what is known of each payment's chain; a payment whose chain was never read is left out."""
    ids = [payment.id for payment in of]
    swept = dict.fromkeys(ids, sweeps.SweepFacts()) | sweeps.facts_of(session, ids)
    # One statement, so one snapshot: between two, a listener may move the cursor and drop the header that is meant.
    query = (
        sa.select(payments.c.id, final_block().label("final_block"), final_time().label("final_block_time"))
        .join(chain_cursors, chain_cursors.c.chain_id == payments.c.chain_id)
        .where(payments.c.id.in_(ids))
    )
    read = {row.id: row for row in session.execute(query)}
    return {
        payment.id: Facts(
            final_block=read[payment.id].final_block,
            final_block_time=read[payment.id].final_block_time,
            covered=swept[payment.id].covered,
            is_sweep_held=swept[payment.id].is_held,
            threshold=_threshold(payment, chains),
        )
        for payment in of
        if payment.id in read
    }


def store_acceptance(session: Session, payment_id: str, *, amount: int, at: datetime) -> None:
    """Write down that the merchant accepted the final `amount` (base units). `reassess` then says what follows."""
    session.execute(
        sa.update(payments).where(payments.c.id == payment_id).values(accepted_at=at, accepted_amount=amount)
    )


def move(
    session: Session, payment: Payment, step: Step, *, read_block: int, new_id: NewId
) -> tuple[Payment, list[str]]:
    """Store one change of a payment: its row, its version, its one event, the deliveries.

    Raises IllegalTransition where the status has no such arrow, or is not what the caller saw.
    Returns the payment as it stands now and the ids of the deliveries.
    """
    old, new = payment.standing, step.standing
    if new.status is not old.status and new.status not in TRANSITIONS[old.status]:
        raise IllegalTransition(f"payment {payment.id} cannot go from {old.status} to {new.status}")
    milestones = _milestones(payment, new.status)
    row = session.execute(
        sa.update(payments)
        .where(
            payments.c.id == payment.id,
            payments.c.status == old.status,
            payments.c.version == payment.version,
        )
        .values(
            version=payment.version + 1,
            canceled_at=payment.canceled_at,
            accepted_at=payment.accepted_at,
            accepted_amount=payment.accepted_amount,
            confirmed=payment.confirmed,
            **_standing_values(new),
            **milestones,
        )
        .returning(payments)
    ).one_or_none()
    if row is None:
        raise IllegalTransition(f"payment {payment.id} is no longer {old.status} at version {payment.version}")
    moved = payment_of(row)
    shown = payment_object(moved, read_block=read_block)
    body: dict[str, object] = {"payment": shown, "previous_status": str(old.status)}
    return moved, events.append(session, step.event, payment=moved, body=body, new_id=new_id)


def _store(
    session: Session, payment: Payment, assessment: Assessment, *, read_blocks: Mapping[int, int], new_id: NewId
) -> list[str]:
    transfers.store_verdicts(session, assessment.verdicts)
    standing, old = assessment.standing, payment.standing
    if (assessment.confirmed, standing.completed_block) != (payment.confirmed, old.completed_block):
        # What only grows with the confirmations is no change that a client is told of.
        session.execute(
            sa.update(payments)
            .where(payments.c.id == payment.id)
            .values(confirmed=assessment.confirmed, completed_block=standing.completed_block)
        )
    payment = replace(payment, confirmed=assessment.confirmed)
    deliveries: list[str] = []
    for step in steps(old, standing, is_accepted=payment.accepted_at is not None):
        payment, made = move(session, payment, step, read_block=read_blocks[payment.chain_id], new_id=new_id)
        deliveries += made
    for verdict in assessment.verdicts:
        if _is_news(verdict):
            payment, made = _announce(session, payment, verdict, read_blocks=read_blocks, new_id=new_id)
            deliveries += made
    return deliveries


def _is_news(verdict: Verdict) -> bool:
    """True for a final transfer that nobody asked for, unless it is ours or was told of already."""
    transfer = verdict.transfer
    unexpected = not verdict.counts and verdict.reason is not Reason.OWN_TRANSACTION
    return unexpected and transfer.status is TransferStatus.FINAL and not transfer.is_announced


def _announce(
    session: Session, payment: Payment, verdict: Verdict, *, read_blocks: Mapping[int, int], new_id: NewId
) -> tuple[Payment, list[str]]:
    transfer = replace(verdict.transfer, counts=verdict.counts, reason=verdict.reason)
    transfers.mark_announced(session, transfer.id)
    session.execute(sa.update(payments).where(payments.c.id == payment.id).values(version=payments.c.version + 1))
    payment = replace(payment, version=payment.version + 1)
    body: dict[str, object] = {
        # It may be of another chain than the payment, with another head.
        "transfer": transfer_object(transfer, read_block=read_blocks[transfer.chain_id]),
        "payment": payment_object(payment, read_block=read_blocks[payment.chain_id]),
    }
    return payment, events.append(session, EventType.TRANSFER_UNEXPECTED, payment=payment, body=body, new_id=new_id)


def _threshold(payment: Payment, chains: Mapping[int, Chain]) -> int:
    token = chains[payment.chain_id].token_at(payment.token)
    return 0 if token is None else token.threshold


def _milestones(payment: Payment, status: Status) -> dict[str, Any]:
    """Return the moments that a move sets, and clears where it takes them back."""
    reached = [Status.DETECTED, Status.CONFIRMED, Status.SETTLED]
    kept = reached[: reached.index(status) + 1] if status in reached else []
    values: dict[str, Any] = {}
    for milestone, column in _MILESTONES.items():
        if milestone not in kept:
            values[column] = None
        elif milestone is status and getattr(payment, column) is None:
            values[column] = sa.func.now()
    return values


def _standing_values(standing: Standing) -> dict[str, Any]:
    return {
        "status": standing.status,
        "received": standing.received,
        "amount_status": standing.amount_status,
        "timing": standing.timing,
        "settlement": standing.settlement,
        "completed_block": standing.completed_block,
    }


def _values(payment: Payment) -> dict[str, Any]:
    plain = {column.name for column in payments.c} - set(_STANDING)
    return {name: getattr(payment, name) for name in plain} | _standing_values(payment.standing)


def payment_of(row: sa.Row[Any]) -> Payment:
    """Make a payment of its row."""
    values = {key: value for key, value in row._mapping.items() if key not in _STANDING}
    standing = Standing(
        status=Status(row.status),
        received=row.received,
        amount_status=AmountStatus(row.amount_status),
        timing=None if row.timing is None else Timing(row.timing),
        settlement=Settlement(row.settlement),
        completed_block=row.completed_block,
    )
    values["finality"] = Finality(row.finality)
    return Payment(standing=standing, **values)
