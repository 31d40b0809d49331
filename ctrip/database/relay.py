"""Due work whose message must be sent, and the bell that tells of it."""

import select
from datetime import timedelta
from typing import cast

import psycopg2
import sqlalchemy as sa
from psycopg2.extensions import connection
from sqlalchemy.orm import Session

from ctrip.database.engine import Sessions
from ctrip.database.events import DUE_CHANNEL
from ctrip.database.models import webhook_deliveries
from ctrip.domain.webhooks import DeliveryStatus
from ctrip.errors import Unavailable


def claim_due(session: Session, *, limit: int, again_after: timedelta) -> list[str]:
    """Mark up to `limit` due deliveries as kicked and return their ids, the most overdue first.

    Left out: rows that an attempt holds, and rows that were kicked within `again_after`. SKIP LOCKED lets several
    schedulers do this at once, each with rows of its own.
    """
    of = webhook_deliveries.c
    due = (
        sa.select(of.id)
        .where(
            of.status == DeliveryStatus.PENDING,
            of.next_attempt_at <= sa.func.now(),
            sa.or_(of.lease_until.is_(None), of.lease_until < sa.func.now()),
            sa.or_(of.kicked_at.is_(None), of.kicked_at < sa.func.now() - again_after),
        )
        .order_by(of.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        # As a CTE it runs once; as a plain subquery the planner may run it again for each row and pass the limit.
        .cte("due")
    )
    kicked = sa.update(webhook_deliveries).where(of.id.in_(sa.select(due.c.id))).values(kicked_at=sa.func.now())
    rows = session.execute(kicked.returning(of.id, of.next_attempt_at)).all()
    return [row.id for row in sorted(rows, key=lambda row: row.next_attempt_at)]


class Bell:
    """A connection of its own that hears when a transaction made work due.

    A notice can be lost (the connection, a restart): it saves the wait for the next poll, and nothing depends on it.
    """

    def __init__(self, sessions: Sessions) -> None:
        """Connect and listen. Raises Unavailable."""
        with sessions.begin() as session:
            self._pooled = session.connection().engine.raw_connection()
        self._connection = cast("connection", self._pooled.driver_connection)
        # Out of the pool: this connection lives as long as the bell.
        self._pooled.detach()
        self._connection.set_session(autocommit=True)
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(f"LISTEN {DUE_CHANNEL}")
        except psycopg2.Error as error:
            raise Unavailable("the database ended the connection of the bell") from error

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as somebody rings, False after `timeout_s`. Raises Unavailable."""
        try:
            select.select([self._connection], [], [], timeout_s)
            self._connection.poll()
        except psycopg2.Error as error:
            raise Unavailable("the database ended the connection of the bell") from error
        rung = bool(self._connection.notifies)
        self._connection.notifies.clear()
        return rung

    def close(self) -> None:
        """Hang up."""
        self._pooled.close()
