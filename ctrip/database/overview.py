"""What an operator watches: counts and moments over whole tables, for gauges. Read only."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.leases import is_leased, is_unleased
from ctrip.database.models import (
    dead_letters,
    emails,
    jobs,
    payments,
    sweep_intents,
    webhook_deliveries,
    webhook_endpoints,
    webhook_origins,
)
from ctrip.domain.sweeps import IntentState
from ctrip.domain.webhook_endpoints import EndpointStatus
from ctrip.domain.webhooks import AT_ONCE


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
    """Rows of work that are still to be done. `due_since` is when the most overdue one became due; None: none is.

    A row that an actor is at work on is not overdue. Neither is a delivery whose turn it is not at its origin, because
    that is slow or as many attempts as there may be are made there: the wait is the other side's then, not ours.
    """

    pending: int
    due_since: datetime | None


@dataclass(frozen=True)
class LiveSweeps:
    """The sweeps and top-ups of a chain that are not over; the oldest was planned at `oldest_at`."""

    count: int
    oldest_at: datetime


@dataclass(frozen=True)
class Destinations:
    """Where webhooks go: endpoints that were disabled, and origins whose newest attempt was slow, with what waits."""

    disabled_endpoints: int
    slow_origins: int
    slow_pending: int


def open_dead_letters(session: Connection) -> list[DeadLetters]:
    """Count the open dead letters by actor."""
    of = dead_letters.c
    counted = sa.select(of.queue, of.actor, sa.func.count(), sa.func.min(of.died_at))
    is_open = sa.and_(of.replayed_at.is_(None), of.purged_at.is_(None))
    rows = session.execute(counted.where(is_open).group_by(of.queue, of.actor))
    return [DeadLetters(*row) for row in rows]


def count_payments(session: Connection) -> list[PaymentCount]:
    """Count the payments by chain, asset and status. Reads the whole table: half a second for a million."""
    of = payments.c
    chain, symbol = (sa.func.coalesce(column, "") for column in (of.chain, of.symbol))
    rows = session.execute(sa.select(chain, symbol, of.status, sa.func.count()).group_by(chain, symbol, of.status))
    return [PaymentCount(*row) for row in rows]


def deliveries(session: Connection) -> Outbox:
    """Look at the webhooks that are still to be delivered."""
    of, origin = webhook_deliveries.c, webhook_origins.c
    full = sa.select(of.origin).where(is_leased(webhook_deliveries)).group_by(of.origin)
    slow = sa.select(origin.origin).where(origin.slow_since.is_not(None))
    kept = full.having(sa.func.count() >= AT_ONCE).union_all(slow)
    return _outbox(session, webhook_deliveries, of.origin.not_in(kept))


def mails(session: Connection) -> Outbox:
    """Look at the e-mails that are still to be sent."""
    return _outbox(session, emails)


def open_jobs(session: Connection) -> Outbox:
    """Look at the operators' jobs that are not over."""
    return _outbox(session, jobs)


def destinations(session: Connection) -> Destinations:
    """Look at the places that webhooks go to."""
    endpoint, origin, delivery = webhook_endpoints.c, webhook_origins.c, webhook_deliveries.c
    disabled = sa.select(sa.func.count()).where(
        endpoint.status == EndpointStatus.DISABLED, endpoint.deleted_at.is_(None)
    )
    slow = sa.select(sa.func.count()).select_from(webhook_origins).where(origin.slow_since.is_not(None))
    waiting = (
        sa.select(sa.func.count())
        .select_from(webhook_deliveries.join(webhook_origins, delivery.origin == origin.origin))
        .where(origin.slow_since.is_not(None), delivery.next_attempt_at.is_not(None))
    )
    row = session.execute(
        sa.select(disabled.scalar_subquery(), slow.scalar_subquery(), waiting.scalar_subquery())
    ).one()
    return Destinations(*row)


def live_sweeps(session: Connection) -> dict[int, LiveSweeps]:
    """Look at the sweep intents that are neither done nor failed, by chain id."""
    of = sweep_intents.c
    live = of.state.not_in((IntentState.DONE, IntentState.FAILED))
    rows = session.execute(
        sa.select(of.chain_id, sa.func.count(), sa.func.min(of.created_at)).where(live).group_by(of.chain_id)
    )
    return {chain_id: LiveSweeps(count, oldest_at) for chain_id, count, oldest_at in rows}


def _outbox(session: Connection, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> Outbox:
    due = sa.and_(
        *conditions,
        table.c.next_attempt_at <= sa.func.now(),
        is_unleased(table),
    )
    due_since = sa.func.min(table.c.next_attempt_at).filter(due)
    # Rows that are over have no next attempt; the partial index holds the others alone.
    row = session.execute(sa.select(sa.func.count(), due_since).where(table.c.next_attempt_at.is_not(None))).one()
    return Outbox(*row)
