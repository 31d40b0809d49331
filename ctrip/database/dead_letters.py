"""Dead letters, and the rows that they spoke of."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import Session

from ctrip.database.events import DUE_CHANNEL
from ctrip.database.models import dead_letters, webhook_deliveries
from ctrip.domain.dead_letters import DeadLetter, Filter, Reason
from ctrip.domain.webhooks import DeliveryStatus


def add(session: Session, letter: DeadLetter, *, letter_id: str) -> bool:
    """Store a letter under this id. Returns False where the same death is stored already."""
    values = asdict(letter) | {"id": letter_id}
    statement = (
        pg.insert(dead_letters).values(**values).on_conflict_do_nothing(index_elements=["message_id", "died_at"])
    )
    return session.scalar(statement.returning(dead_letters.c.id)) is not None


def fail_row(session: Session, row_id: str) -> None:
    """Let the work row of a dead message wait for a replay, so that the relay does not wake it again and again."""
    session.execute(
        sa.update(webhook_deliveries)
        .where(webhook_deliveries.c.id == row_id, webhook_deliveries.c.status == DeliveryStatus.PENDING)
        .values(status=DeliveryStatus.FAILED, next_attempt_at=None, lease_until=None)
    )


def revive_rows(session: Session, row_ids: Sequence[str]) -> None:
    """Make the work rows of replayed letters due again, with a fresh schedule.

    They count as kicked, because the replay sends their messages; should those be lost, the relay sends them again.
    """
    ended = (DeliveryStatus.FAILED, DeliveryStatus.DEAD)
    session.execute(
        sa.update(webhook_deliveries)
        .where(webhook_deliveries.c.id.in_(list(row_ids)), webhook_deliveries.c.status.in_(ended))
        .values(
            status=DeliveryStatus.PENDING,
            next_attempt_at=sa.func.now(),
            kicked_at=sa.func.clock_timestamp(),
            dead_reason=None,
            lease_until=None,
            attempts_before_schedule=webhook_deliveries.c.attempts,
        )
    )


def find(session: Session, letter_id: str) -> DeadLetter | None:
    """Return one letter."""
    row = session.execute(sa.select(dead_letters).where(dead_letters.c.id == letter_id)).one_or_none()
    return None if row is None else _letter(row)


def matching(session: Session, wanted: Filter, *, limit: int, after: str | None = None) -> list[DeadLetter]:
    """Return letters, newest first, those older than the id `after` where one is given."""
    query = sa.select(dead_letters).where(*_conditions(wanted))
    if after is not None:
        query = query.where(dead_letters.c.id < after)
    return [_letter(row) for row in session.execute(query.order_by(dead_letters.c.id.desc()).limit(limit))]


def count_replayable(session: Session, wanted: Filter) -> int:
    """Count the letters that a replay of this filter would send."""
    query = sa.select(sa.func.count()).select_from(dead_letters).where(*_conditions(wanted), *_is_replayable())
    return session.scalar(query) or 0


def request_replay(session: Session, wanted: Filter, *, limit: int) -> int:
    """Mark up to `limit` letters for replay, oldest first, and ring. Returns how many; none is marked twice."""
    batch = (
        sa.select(dead_letters.c.id)
        .where(*_conditions(wanted), *_is_replayable())
        .order_by(dead_letters.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("batch")  # which runs once; the planner may run a plain subquery again for each row and pass the limit
    )
    marked = session.execute(
        sa.update(dead_letters)
        .where(dead_letters.c.id.in_(sa.select(batch.c.id)))
        .values(replay_requested_at=sa.func.now())
        .returning(dead_letters.c.id)
    ).all()
    session.execute(sa.select(sa.func.pg_notify(DUE_CHANNEL, "replay")))
    return len(marked)


def take_requested(session: Session, *, limit: int) -> list[DeadLetter]:
    """Close up to `limit` letters whose replay was asked for and return them: whoever gets a letter sends it."""
    batch = (
        sa.select(dead_letters.c.id)
        .where(dead_letters.c.replay_requested_at.is_not(None), dead_letters.c.replayed_at.is_(None))
        .order_by(dead_letters.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("batch")
    )
    rows = session.execute(
        sa.update(dead_letters)
        .where(dead_letters.c.id.in_(sa.select(batch.c.id)))
        .values(replayed_at=sa.func.now(), replays=dead_letters.c.replays + 1)
        .returning(dead_letters)
    )
    return [_letter(row) for row in rows]


def count_open(session: Session) -> dict[tuple[str, str], int]:
    """Count the letters that were not replayed, by (queue, actor)."""
    of = dead_letters.c
    query = sa.select(of.queue, of.actor, sa.func.count().label("n")).where(of.replayed_at.is_(None))
    return {(row.queue, row.actor): row.n for row in session.execute(query.group_by(of.queue, of.actor))}


def _is_replayable() -> tuple[sa.ColumnElement[bool], ...]:
    return dead_letters.c.replay_requested_at.is_(None), dead_letters.c.replayed_at.is_(None)


def _conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    of = dead_letters.c
    conditions: list[sa.ColumnElement[bool]] = []
    for name in ("queue", "actor", "reason"):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(of[name] == value)
    if wanted.exception is not None:
        conditions.append(of.exception.startswith(wanted.exception, autoescape=True))
    if wanted.q is not None:
        places = (of.exception, of.message, of.row_id)
        conditions.append(sa.or_(*(place.icontains(wanted.q, autoescape=True) for place in places)))
    if wanted.ids:
        conditions.append(of.id.in_(wanted.ids))
    return conditions


def _letter(row: sa.Row[Any]) -> DeadLetter:
    values = dict(row._mapping)
    return DeadLetter(**values | {"reason": Reason(row.reason)})
