"""Batches: a bounded number of rows that a statement shall change, or that it is given."""

from collections.abc import Callable, Iterable
from types import NoneType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg


def batch(query: sa.Select[Any], *, of: sa.Table, limit: int) -> sa.CTE:
    """Lock up to `limit` rows of a table that a query selects; those that somebody else has locked are left to him.

    As a CTE it runs once; as a plain subquery the planner may run it again for each row and pass the limit.
    """
    return query.limit(limit).with_for_update(of=of, skip_locked=True).cte("batch")


class Given:
    """The rows that a statement is given, as an array for each column.

    However many they are, the statement's text is the same, and it is one round trip. Of all ways to hand over
    thousands of rows that a statement can join, Postgres and we understand this one the soonest.
    """

    def __init__(self, name: str, *columns: sa.ColumnClause[Any]) -> None:
        self._keys = [f"{name}_{column.name}" for column in columns]
        arrays = (
            sa.cast(sa.bindparam(key, type_=sa.Text), pg.ARRAY(column.type))
            for key, column in zip(self._keys, columns, strict=True)
        )
        of = sa.func.unnest(*arrays).table_valued(*(sa.column(each.name, each.type) for each in columns), name=name)
        self.c = of.render_derived(name=name).c

    def rows(self, rows: Iterable[Iterable[object]]) -> dict[str, str]:
        """Return the parameters of at least one row; each holds a value for each column, in their order."""
        return {key: array(values) for key, values in zip(self._keys, zip(*rows, strict=True), strict=True)}


def is_among(column: sa.ColumnElement[Any], values: Iterable[object]) -> sa.ColumnElement[bool]:
    """Say that a column holds one of `values`, thousands maybe."""
    return is_in(column, sa.bindparam(None, array(values)))


def is_in(column: sa.ColumnElement[Any], values: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Say that a column holds one of the values of an `array`, which is bound when the statement runs."""
    return column == sa.any_(sa.cast(values, pg.ARRAY(column.type)))


def array(values: Iterable[object]) -> str:
    """Write an array as Postgres reads it: the driver takes each element of a list, ten times as slowly."""
    column = list(values)
    kinds = set(map(type, column))
    # Nearly every column is of one kind, and then it is written at once, in a fifth of the time.
    return "{" + (_writer(kinds.pop())(column) if len(kinds) == 1 else _one_by_one(column)) + "}"


def _writer(kind: type) -> Callable[[list[Any]], str]:
    """Return what writes elements of one kind, with a comma between two."""
    if issubclass(kind, str):
        return _texts
    if kind is bytes:
        return _bytes
    return _nulls if kind is NoneType else _plain


def _one_by_one(column: list[Any]) -> str:
    return ",".join([_writer(type(value))([value]) for value in column])


def _texts(column: list[str]) -> str:
    written = '","'.join(column)
    if "\\" in written or written.count('"') > 2 * (len(column) - 1):
        written = '","'.join([text.replace("\\", "\\\\").replace('"', '\\"') for text in column])
    return f'"{written}"'


def _bytes(column: list[bytes]) -> str:
    return '"\\\\x' + '","\\\\x'.join([value.hex() for value in column]) + '"'


def _nulls(column: list[None]) -> str:
    return ",".join(["NULL"] * len(column))


def _plain(column: list[object]) -> str:
    """Write numbers, truths and moments, as Python does."""
    return '"' + '","'.join(map(str, column)) + '"'
