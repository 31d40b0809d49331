"""Leases: whether anybody is at a row of work, or at a loop. One that has run out counts for nothing."""

from datetime import timedelta

import sqlalchemy as sa

EARLY = timedelta(milliseconds=50)
"""How long before it is due a row may be claimed.

Delayed messages are sent by the clocks of other machines than the database's, to whole milliseconds. One that came
a moment too early would find nothing due and be gone, and the row would wait for the scheduler to look at it.
"""

ODD = timedelta(minutes=10)
"""Longer than any lease, and any loop's rest beyond its period. What is put off for longer was written by a clock that
has been set back since, by a failover for one; to wait until it has caught up could take days.
"""


def is_unleased(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Say that nobody is at a row."""
    return sa.or_(table.c.lease_until.is_(None), ~is_leased(table))


def is_leased(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Say that somebody is at a row."""
    return table.c.lease_until.between(sa.func.now(), sa.func.now() + ODD)
