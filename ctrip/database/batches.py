"""Batches: a bounded number of rows that a statement shall change, or that it is given."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg


def batch(query: sa.Select[Any], *, of: sa.Table, limit: int) -> sa.CTE:
    """Lock up to `limit` rows of a table that a query selects; those that somebody else has locked are left to him.

    As a CTE it runs once; as a plain subquery the planner may run it again for each row and pass the limit.
    """
    return query.limit(limit).with_for_update(of=of, skip_locked=True).cte("batch")


def given(name: str, *columns: sa.ColumnClause[Any]) -> sa.TableValuedAlias:
    """Return the rows that a statement is given as its one parameter `name`: a list of mappings of plain JSON values.

    However many they are, the statement's text is the same, and it is one round trip.
    """
    rows = sa.func.jsonb_to_recordset(sa.cast(sa.bindparam(name, type_=pg.JSON), pg.JSONB))
    return rows.table_valued(*columns, name=name).render_derived(with_types=True)


def is_among(column: sa.ColumnElement[bytes], values: Iterable[bytes]) -> sa.ColumnElement[bool]:
    """Say that a column holds one of `values`, thousands maybe."""
    return is_in(column, sa.bindparam(None, byte_array(values)))


def is_in(column: sa.ColumnElement[bytes], values: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Say that a column holds one of the values of a `byte_array`, which is bound when the statement runs."""
    return column == sa.any_(sa.cast(values, pg.ARRAY(sa.LargeBinary)))


def byte_array(values: Iterable[bytes]) -> str:
    """Write an array of bytes as Postgres reads it: the driver takes each element of a list, ten times as slowly."""
    return "{" + ",".join([f'"\\\\x{value.hex()}"' for value in values]) + "}"
