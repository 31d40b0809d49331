"""Queue snapshots: what the scheduler last saw of the queues, for those who do not know Redis."""

from collections.abc import Iterable
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.models import queue_snapshots
from ctrip.domain.queues import QueueSnapshot


def store(session: Connection, snapshots: Iterable[QueueSnapshot]) -> None:
    """Store the newest snapshot of each queue; an older one that comes late is dropped."""
    for snapshot in snapshots:
        statement = pg.insert(queue_snapshots).values(**asdict(snapshot))
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["queue"],
                set_={column.name: statement.excluded[column.name] for column in queue_snapshots.c},
                where=queue_snapshots.c.taken_at <= statement.excluded.taken_at,
            )
        )


def find_all(session: Connection) -> list[QueueSnapshot]:
    """Return the stored snapshot of each queue."""
    rows = session.execute(sa.select(queue_snapshots).order_by(queue_snapshots.c.queue))
    return [QueueSnapshot(**row._mapping) for row in rows]
