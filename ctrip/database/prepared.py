"""Prepared statements: parsed once per connection, and planned seldom, instead of each time.

psycopg2 sends every statement as text. For the few that run hundreds of times in a second, understanding that text
costs Postgres more than all the rest; those are marked `prepared`.
"""

from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPICursor, ExceptionContext, ExecutionContext

S = TypeVar("S", bound=sa.Executable)
_OPTION = "prepared"
_STALE = ("0A000", "26000", "42P05")
"""SQLSTATEs of a plan whose columns have changed, and of names that the server knows and we do not, or the reverse."""


def prepared(statement: S) -> S:
    """Mark a statement that is made once, with its values in bound parameters, and run often.

    Postgres finds out what types the parameters have, and says so where it cannot: then a cast tells it.
    """
    return statement.execution_options(**{_OPTION: True})


def prepare_marked(engine: Engine) -> None:
    """Let this engine's connections prepare what is marked when they first run it."""
    event.listen(engine, "do_execute", _execute)
    event.listen(engine, "handle_error", _give_up_stale)


def _execute(cursor: DBAPICursor, statement: str, parameters: dict[str, Any], context: ExecutionContext) -> bool:
    """Run a marked statement; answer False for any other, which SQLAlchemy then runs itself."""
    if not context.execution_options.get(_OPTION):
        return False
    known: dict[str, str] = context.root_connection.info.setdefault(_OPTION, {})
    name = known.get(statement)
    if name is None:
        name = f"ctrip_{len(known) + 1}"
        numbers = {key: f"${number}" for number, key in enumerate(parameters, start=1)}
        cursor.execute(f"PREPARE {name} AS {statement % numbers}")
        known[statement] = name
    values = ", ".join(f"%({key})s" for key in parameters)
    cursor.execute(f"EXECUTE {name} {f'({values})' if values else ''}", parameters)
    return True


def _give_up_stale(error: ExceptionContext) -> None:
    """Have connections replaced that cannot run a marked statement any more: they never could again."""
    is_marked = error.execution_context is not None and error.execution_context.execution_options.get(_OPTION)
    if is_marked and getattr(error.original_exception, "pgcode", None) in _STALE:
        error.is_disconnect = True
