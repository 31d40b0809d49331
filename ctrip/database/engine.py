"""The engine and the session factory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import psycopg2
from psycopg2.extensions import connection
from sqlalchemy import Connection, Engine, create_engine, event, exc

from ctrip.errors import Unavailable

IDLE_S = 1.0
"""A connection that was idle for longer is asked whether it lives; to ask each time costs a sixth of a transaction."""

POOL_SIZE = 16
"""Connections of a process, as many as its threads. One beyond the pool would be made anew for each transaction."""

_VANISHED = {"tcp_user_timeout": 30_000, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4}
"""A broken network or a dead machine resets nothing, and Linux waits for it for a quarter of an hour or two hours: this
ends such a connection after 30 s, whether or not a statement is under way (libpq, "Connection Strings")."""

_AFTER_COMMIT: WeakKeyDictionary[Connection, list[Callable[[], None]]] = WeakKeyDictionary()
_BEYOND_LIMITS = "54"
"""The class of SQLSTATEs for rows and statements that are too large: trying them again would help nobody."""


class Sessions:
    """The factory behind `with ctx.sessions.begin() as session:`, the one way in which a service reaches Postgres."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a transaction that commits at the end of the block, or is rolled back by what leaves it.

        Raises Unavailable where Postgres is away, too busy, or ended the connection: nothing is known to be stored.
        What Postgres can never store is no such case, whatever psycopg2 calls it.
        """
        try:
            with self.engine.begin() as session:
                yield session
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            if _is_beyond_limits(error):
                raise
            raise Unavailable("the database cannot be reached just now") from error
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            raise Unavailable("the database ended the connection") from error
        # Outside of what is caught above: it is stored by now, whatever these do.
        for act in _AFTER_COMMIT.pop(session, ()):
            act()

    @contextmanager
    def at_once(self) -> Iterator[Connection]:
        """Open a connection on which each statement is a transaction of its own, and one round trip. Raises as `begin`.

        Where Unavailable is raised, the statement may have been carried out all the same.
        """
        with self.begin() as session:
            driver = cast("connection", session.connection.driver_connection)
            # The driver's own switch: SQLAlchemy's isolation level costs more than the rest of a connection.
            driver.autocommit = True
            try:
                yield session
            finally:
                if not driver.closed:
                    driver.autocommit = False


def after_commit(session: Connection, act: Callable[[], None]) -> None:
    """Have something done when a transaction of `Sessions.begin` is committed, and never where it is not."""
    _AFTER_COMMIT.setdefault(session, []).append(act)


def _is_beyond_limits(error: exc.SQLAlchemyError) -> bool:
    state = getattr(getattr(error, "orig", None), "pgcode", None)
    return isinstance(state, str) and state.startswith(_BEYOND_LIMITS)


def make_engine(database_url: str, *, process: str, pool_size: int = POOL_SIZE) -> Engine:
    """Build an engine whose connections fail fast and name their process to the server.

    A full pool raises sqlalchemy.exc.TimeoutError after 5 s, which is no OperationalError.
    """
    engine = create_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        hide_parameters=True,  # an error in a log must not hold e-mail addresses, or worse
        connect_args={
            "connect_timeout": 5,
            **_VANISHED,
            "application_name": f"ctrip-{process}",
            "options": "-c statement_timeout=30000 -c lock_timeout=10000 -c timezone=UTC"
            " -c idle_in_transaction_session_timeout=60000",
        },
    )
    event.listen(engine, "checkin", _note_idle)
    event.listen(engine, "checkout", _ask_idle)
    return engine


def _note_idle(_: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _ask_idle(connection: Any, record: Any, _: Any) -> None:
    """Raise InvalidatePoolError for a connection that died while nobody used it; the pool then makes new ones."""
    idle_since = record.info.get("idle_since")
    if idle_since is None or time.monotonic() - idle_since < IDLE_S:
        return
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = False
    except psycopg2.Error as error:
        raise exc.InvalidatePoolError from error
