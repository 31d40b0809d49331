"""Prepared statements: written once, read by Postgres once per connection, and planned seldom, instead of each time.

psycopg2 sends every statement as text, and understanding that costs Postgres more than all the rest of a statement that
runs hundreds of times in a second. What SQLAlchemy does at each run costs us thrice what the driver does. So the few
such statements are `Prepared`: what can be known of them is found out once, and they go straight to the driver.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, cast

import psycopg2
import sqlalchemy as sa
from psycopg2.extensions import cursor as Cursor
from sqlalchemy import Connection, Result, exc
from sqlalchemy.dialects.postgresql.psycopg2 import dialect
from sqlalchemy.engine import Dialect, IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData

_DIALECT: Dialect = dialect()  # type: ignore[no-untyped-call]
_KNOWN = "prepared"
_STALE = ("0A000", "26000", "42P05")
"""SQLSTATEs of a plan whose columns have changed, and of names that the server knows and we do not, or the reverse."""

_CONVERTED_AT_ONCE = 500
"""Rows of which there are several copies for a moment."""

_Convert = Callable[[Any], Any]
_Row = tuple[Any, ...]
_Parameter = tuple[str, str, _Convert | None]
"""The name of a value in the statement, the key under which it is given, and what converts it."""
_Columns = tuple[list[str], list[tuple[int, _Convert]]]
"""The columns' names, and what converts the values of some of them, by their place."""


class Prepared:
    """A statement with its values in bound parameters, which are given at each run.

    Those that are known stand in its text, or no plan could go by an index of some rows alone. Postgres finds out what
    types the others have, and says so where it cannot: then a cast tells it. Errors are SQLAlchemy's, as those of any
    other statement are.
    """

    def __init__(self, statement: sa.Select[Any] | sa.CompoundSelect[Any] | sa.UpdateBase) -> None:
        self._statement = statement
        self._known_columns: _Columns | None = None

    def execute(self, session: Connection, values: Mapping[str, Any]) -> Result[Any]:
        """Run the statement and return its rows."""
        names, rows = self._run(session, values)
        return IteratorResult(SimpleResultMetaData(names), iter(rows))

    def rows(self, session: Connection, values: Mapping[str, Any]) -> list[_Row]:
        """Run the statement and return its rows as plain tuples, which costs the least where they are thousands."""
        return self._run(session, values)[1]

    def run(self, session: Connection, values: Mapping[str, Any]) -> None:
        """Run the statement, of which no row is wanted."""
        self._run(session, values)

    def scalars(self, session: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Run the statement and return the first column of its rows."""
        return [row[0] for row in self._run(session, values)[1]]

    def scalar(self, session: Connection, values: Mapping[str, Any]) -> Any:
        """Run the statement and return the first column of its first row; None where there is no row."""
        _, rows = self._run(session, values)
        return rows[0][0] if rows else None

    # --- how it runs ------------------------------------------------------------------------------------------------

    def _run(self, session: Connection, values: Mapping[str, Any]) -> tuple[list[str], list[_Row]]:
        arguments = [values[key] if convert is None else convert(values[key]) for _, key, convert in self._parameters]
        if not session.in_transaction():
            session.begin()
        pooled = session.connection
        known: dict[Prepared, str] = pooled.info.setdefault(_KNOWN, {})
        cursor = cast("Cursor", pooled.cursor())
        try:
            if self not in known:
                known[self] = self._prepare(cursor, name=f"ctrip_{len(known) + 1}")
            cursor.execute(known[self], arguments)
            return self._read(cursor)
        except psycopg2.Error as error:
            raise _told(session, str(self._compiled), error) from error
        finally:
            cursor.close()

    def _prepare(self, cursor: Cursor, *, name: str) -> str:
        """Have Postgres prepare the statement. Returns what runs it."""
        numbers = {name: f"${number}" for number, (name, *_) in enumerate(self._parameters, start=1)}
        known = {name: cursor.mogrify("%s", (value,)).decode() for name, value in self._constants.items()}
        cursor.execute(f"PREPARE {name} AS {str(self._compiled) % (numbers | known)}")
        return f"EXECUTE {name} ({', '.join(['%s'] * len(numbers))})" if numbers else f"EXECUTE {name}"

    def _read(self, cursor: Cursor) -> tuple[list[str], list[_Row]]:
        if cursor.description is None:
            return [], []
        self._known_columns = self._known_columns or self._columns(cursor)
        names, converts = self._known_columns
        if not converts:
            return names, cursor.fetchall()
        converted = list[_Row]()
        while rows := cursor.fetchmany(_CONVERTED_AT_ONCE):
            # Column by column: most need no word, and thousands of rows have dozens of them.
            columns = list[Iterable[Any]](zip(*rows, strict=True))
            for place, convert in converts:
                columns[place] = map(convert, columns[place])
            converted += zip(*columns, strict=True)
        return names, converted

    # --- what is found out once -------------------------------------------------------------------------------------

    @cached_property
    def _compiled(self) -> Any:
        return self._statement.compile(dialect=_DIALECT)

    @cached_property
    def _bound(self) -> dict[str, sa.BindParameter[Any]]:
        # Several of one name are one.
        return {name: bound for bound, name in self._compiled.bind_names.items()}

    @cached_property
    def _parameters(self) -> list[_Parameter]:
        return [(name, bound.key, _converter(bound)) for name, bound in self._bound.items() if bound.required]

    @cached_property
    def _constants(self) -> dict[str, Any]:
        """What the driver takes for each value that is never given."""
        told = {name: (bound.value, _converter(bound)) for name, bound in self._bound.items() if not bound.required}
        return {name: value if convert is None else convert(value) for name, (value, convert) in told.items()}

    def _columns(self, cursor: Cursor) -> _Columns:
        """Return the columns' names, and what makes of the driver's values those that SQLAlchemy's types are in Python.

        What the driver returns is only known when it has: a number may come as one of several types.
        """
        types = [column.type.dialect_impl(_DIALECT) for column in self._statement.exported_columns]
        described = cursor.description or ()
        converts = [
            (place, convert)
            for place, (kind, column) in enumerate(zip(types, described, strict=True))
            if (convert := cast("_Convert | None", kind.result_processor(_DIALECT, column.type_code))) is not None
        ]
        return [column.name for column in described], converts


def is_one_of(column: sa.ColumnElement[Any], values: Iterable[object]) -> sa.ColumnElement[bool]:
    """Say that a column holds one of a few values that are known when a `Prepared` is written; IN is written later."""
    return sa.or_(*(column == value for value in values))


def _converter(bound: sa.BindParameter[Any]) -> _Convert | None:
    return bound.type.dialect_impl(_DIALECT).bind_processor(_DIALECT)


def _told(session: Connection, statement: str, error: psycopg2.Error) -> exc.StatementError:
    """Make SQLAlchemy's error of the driver's. A connection that is gone, or has a stale plan, is replaced."""
    is_gone = error.pgcode in _STALE or session.dialect.is_disconnect(cast("Any", error), session.connection, None)
    if is_gone:
        session.invalidate(error)
    return exc.DBAPIError.instance(
        statement,
        None,
        error,
        psycopg2.Error,
        hide_parameters=True,
        connection_invalidated=is_gone,
        dialect=session.dialect,
    )
