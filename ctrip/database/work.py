"""Rows of work: deliveries, e-mails and jobs. What is due, what a dead message leaves, and what a replay revives.

A row is done when its effect is committed, never when Redis took its message. `next_attempt_at` says when it is due and
is null when it is over; a claim adds one to `fence` and holds a lease. The database's clock decides.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import webhook_origins
from ctrip.database.batches import batch
from ctrip.database.leases import is_unleased
from ctrip.database.models import emails, jobs, webhook_deliveries
from ctrip.database.prepared import Prepared
from ctrip.domain import emails as email_rules
from ctrip.domain import webhooks
from ctrip.domain.emails import EmailStatus
from ctrip.domain.ids import Prefix
from ctrip.domain.jobs import JobKind, JobStatus
from ctrip.domain.webhooks import DeliveryStatus

DUE_CHANNEL = "ctrip_due"
"""The NOTIFY channel that tells the relay of due work. A lost notice costs one period of the relay, nothing else."""
_RING = Prepared(sa.select(sa.func.pg_notify(DUE_CHANNEL, "")))
JOB_DIED = "an exception that nobody expected; its dead letter has it"


@dataclass(frozen=True)
class Due:
    """A row whose message must be sent, and the actor that it is for."""

    row_id: str
    actor: str


def _oldest(table: sa.Table, *, limit: int, again_after: timedelta) -> sa.CTE:
    """Select the rows that have been due for longest."""
    of = table.c
    query = (
        sa.select(of.id)
        .where(
            of.next_attempt_at <= sa.func.now(),
            is_unleased(table),
            sa.or_(of.kicked_at.is_(None), of.kicked_at < sa.func.now() - again_after),
        )
        .order_by(of.next_attempt_at)
    )
    return batch(query, of=table, limit=limit)


class _SelectDue(Protocol):
    def __call__(self, *, limit: int, again_after: timedelta) -> sa.CTE: ...


@dataclass(frozen=True)
class _Kind:
    """A table's actor, which of its rows are due, how they begin anew, and how an unexpected exception ends them."""

    table: sa.Table
    actor: sa.ColumnElement[str]
    due: _SelectDue
    revivable: tuple[str, ...]
    revived: Mapping[str, Any]
    failed: Mapping[str, Any]


_KINDS: Mapping[Prefix, _Kind] = {
    Prefix.DELIVERY: _Kind(
        webhook_deliveries,
        sa.literal(webhooks.ACTOR),
        due=webhook_origins.due,
        revivable=(DeliveryStatus.FAILED, DeliveryStatus.DEAD),
        revived={"status": DeliveryStatus.PENDING, "dead_reason": None},
        failed={"status": DeliveryStatus.FAILED},
    ),
    Prefix.EMAIL: _Kind(
        emails,
        sa.literal(email_rules.ACTOR),
        due=partial(_oldest, emails),
        revivable=(EmailStatus.FAILED, EmailStatus.DEAD),
        revived={"status": EmailStatus.PENDING},
        failed={"status": EmailStatus.FAILED},
    ),
    Prefix.JOB: _Kind(
        jobs,
        sa.case({kind: kind.actor for kind in JobKind}, value=jobs.c.kind),
        due=partial(_oldest, jobs),
        revivable=(JobStatus.FAILED,),
        revived={"status": JobStatus.SCHEDULED, "error": None, "started_at": None, "ended_at": None},
        failed={
            "status": JobStatus.FAILED,
            "error": JOB_DIED,
            "ended_at": sa.func.clock_timestamp(),
        },
    ),
}
KINDS = tuple(_KINDS)
"""The prefixes of the rows that the relay wakes."""


def ring(session: Connection) -> None:
    """Tell the relay, when this transaction commits, that work is due."""
    _RING.run(session, {})


def claim_due(session: Connection, kind: Prefix, *, limit: int, again_after: timedelta) -> list[Due]:
    """Mark up to `limit` due rows as kicked and return them, the most overdue first; of deliveries, a few per origin.

    Left out: rows that an attempt holds, and rows that were kicked within `again_after`. SKIP LOCKED lets several
    schedulers do this at once, each with rows of its own.
    """
    of_kind = _KINDS[kind]
    of, due = of_kind.table.c, of_kind.due(limit=limit, again_after=again_after)
    kicked = sa.update(of_kind.table).where(of.id.in_(sa.select(due.c.id))).values(kicked_at=sa.func.now())
    rows = session.execute(kicked.returning(of.id, of_kind.actor, of.next_attempt_at)).all()
    return [Due(row_id, actor) for row_id, actor, _ in sorted(rows, key=lambda row: row.next_attempt_at)]


def fail(session: Connection, row_id: str, *, killed: bool = False) -> None:
    """Let the row of a dead message wait for a replay, so that the relay does not wake it again and again.

    A row that is leased is left to the run that holds it: the dead message was a second one of the same row. Where the
    message has `killed` its process there is no such run any more, and the lease is its own.
    """
    kind = _kind_of(row_id)
    if kind is None:
        return
    of = kind.table.c
    session.execute(
        sa.update(kind.table)
        .where(of.id == row_id, of.next_attempt_at.is_not(None), sa.or_(sa.literal(killed), is_unleased(kind.table)))
        .values(**kind.failed, next_attempt_at=None, lease_until=None, fence=of.fence + 1)
    )


def revive(session: Connection, row_ids: Collection[str]) -> None:
    """Make the rows of replayed letters due again, with a fresh schedule.

    They count as kicked, because the replay sends their messages; should those be lost, the relay sends them again.
    """
    for prefix, kind in _KINDS.items():
        ids = [row_id for row_id in row_ids if row_id.startswith(f"{prefix}_")]
        if not ids:
            continue
        of = kind.table.c
        session.execute(
            sa.update(kind.table)
            .where(of.id.in_(ids), of.status.in_(kind.revivable))
            .values(
                **kind.revived,
                next_attempt_at=sa.func.now(),
                kicked_at=sa.func.clock_timestamp(),
                lease_until=None,
                attempts_before_schedule=of.attempts,
            )
        )


def _kind_of(row_id: str) -> _Kind | None:
    return next((kind for prefix, kind in _KINDS.items() if row_id.startswith(f"{prefix}_")), None)
