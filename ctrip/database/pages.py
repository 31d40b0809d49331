"""Pages of long lists, read in their order from an index: a page costs as much in a list of a million as of a thousand.

A list is in the order of time, and its index begins with the columns that a filter pins, then the time, then the id.
Not by id alone: the primary key is in that order too, and the planner, who cannot know that somebody's rows are all old
ones, would go back through those of everybody else. Where a filter leaves one of the columns open, the list is looked
at as several, one for each value, and Postgres merges them: it finds the page, and one row more of each.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection


def newest(
    table: sa.Table, lists: Sequence[Sequence[sa.ColumnElement[bool]]], *, limit: int, time: str = "created_at"
) -> sa.Select[Any]:
    """Return what reads the newest rows of a table that meet all conditions of one of `lists`, and no row those of two.

    There is one list at least.
    """
    if len(lists) == 1:
        return sa.select(table).where(*lists[0]).order_by(*_newest_first(table, time)).limit(limit)
    # A limit for each: only so the planner looks for an index in this order. It reads no further than the merge needs.
    ids = sa.select(table.c[time], table.c.id).order_by(*_newest_first(table, time)).limit(limit)
    # The ids alone: SQLAlchemy takes 14 ms to build six times all columns of a payment.
    merged = sa.union_all(*(ids.where(*conditions).subquery().select() for conditions in lists)).subquery("merged")
    page = sa.select(merged.c.id).order_by(*_newest_first(merged, time)).limit(limit).subquery("page")
    return sa.select(table).join(page, page.c.id == table.c.id).order_by(*_newest_first(table, time))


def after(
    session: Connection, table: sa.Table, row_id: str, *, time: str = "created_at", before: datetime | None = None
) -> sa.ColumnElement[bool]:
    """Return the condition of what follows a row in such a list: of one that there is not, nothing does.

    And of what is older than `before`. It is one condition: of two, Postgres may begin at the one that is further away
    and read on to the other.
    """
    of = table.c
    passed: datetime | None = session.scalar(sa.select(of[time]).where(of.id == row_id))
    if passed is None:
        return sa.false()
    if before is not None and before <= passed:
        return of[time] < before
    return sa.tuple_(of[time], of.id) < sa.tuple_(sa.literal(passed, of[time].type), sa.literal(row_id))


def values(session: Connection, column: sa.Column[Any], *where: sa.ColumnElement[bool]) -> list[Any]:
    """Return the few values that a column has, null left out, with one look into the index for each.

    The index begins with the columns that `where` pins, and goes on with this one. DISTINCT would read all of it.
    """
    least = sa.select(sa.func.min(column).label("value")).where(*where).cte("found", recursive=True)
    following = sa.select(sa.func.min(column)).where(*where, column > least.c.value).correlate(least).scalar_subquery()
    found = least.union_all(sa.select(following).where(least.c.value.is_not(None)))
    return list(session.scalars(sa.select(found.c.value).where(found.c.value.is_not(None))))


def _newest_first(of: sa.FromClause, time: str) -> tuple[sa.ColumnElement[Any], sa.ColumnElement[Any]]:
    return of.c[time].desc(), of.c.id.desc()
