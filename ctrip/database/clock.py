"""Postgres's clock: it decides what is due, and when a deadline is."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection


def read(session: Connection) -> datetime:
    """Return the time of this transaction."""
    now: datetime = session.execute(sa.select(sa.func.now())).scalar_one()
    return now
