"""What an operator watches: counts and moments over whole tables, for gauges. Read only."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ctrip.database.models import dead_letters, payments, sweep_intents, webhook_deliveries
from ctrip.domain.sweeps import IntentState
from ctrip.domain.webhooks import DeliveryStatus


@dataclass(frozen=True)
class DeadLetters:
    """The letters of one actor that were not replayed."""

    queue: str
    actor: str
    count: int
    oldest_at: datetime


@dataclass(frozen=True)
class PaymentCount:
    """How many payments of an asset have a status."""

    chain: str
    symbol: str
    status: str
    count: int


@dataclass(frozen=True)
class Outbox:
    """The deliveries that are still to be made. `due_since` is when the most overdue one became due; None: none is."""

    pending: int
    due_since: datetime | None


def open_dead_letters(session: Session) -> list[DeadLetters]:
    """Count the open dead letters by actor."""
    of = dead_letters.c
    counted = sa.select(of.queue, of.actor, sa.func.count(), sa.func.min(of.died_at))
    rows = session.execute(counted.where(of.replayed_at.is_(None)).group_by(of.queue, of.actor))
    return [DeadLetters(*row) for row in rows]


def count_payments(session: Session) -> list[PaymentCount]:
    """Count the payments by chain, asset and status."""
    of = payments.c
    rows = session.execute(
        sa.select(of.chain, of.symbol, of.status, sa.func.count()).group_by(of.chain, of.symbol, of.status)
    )
    return [PaymentCount(*row) for row in rows]


def outbox(session: Session) -> Outbox:
    """Look at the deliveries that are pending."""
    of = webhook_deliveries.c
    due_since = sa.func.min(of.next_attempt_at).filter(of.next_attempt_at <= sa.func.now())
    row = session.execute(
        sa.select(sa.func.count(), due_since).select_from(webhook_deliveries).where(of.status == DeliveryStatus.PENDING)
    ).one()
    return Outbox(*row)


def count_live_sweeps(session: Session) -> dict[int, int]:
    """Count the sweep intents that are neither done nor failed, by chain id."""
    of = sweep_intents.c
    live = of.state.not_in((IntentState.DONE, IntentState.FAILED))
    rows = session.execute(sa.select(of.chain_id, sa.func.count()).where(live).group_by(of.chain_id))
    return {row[0]: row[1] for row in rows}
