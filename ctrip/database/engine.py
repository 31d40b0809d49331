"""The engine and the session factory."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, exc
from sqlalchemy.orm import Session, sessionmaker

from ctrip.errors import Unavailable


class Sessions(sessionmaker[Session]):
    """The factory behind `with ctx.sessions.begin() as session:`, the one way in which a service reaches Postgres."""

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Open a transaction that commits at the end of the block, or is rolled back by what leaves it.

        Raises Unavailable where Postgres is away, too busy, or ended the connection: nothing is known to be stored.
        """
        try:
            with super().begin() as session:
                yield session
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            raise Unavailable("the database cannot be reached just now") from error
        except exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            raise Unavailable("the database ended the connection") from error


def make_engine(database_url: str, *, process: str, pool_size: int = 8) -> Engine:
    """Build an engine whose connections fail fast and name their process to the server.

    A full pool raises sqlalchemy.exc.TimeoutError after 5 s, which is no OperationalError.
    """
    return create_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=4,
        pool_timeout=5,
        pool_pre_ping=True,
        hide_parameters=True,  # an error in a log must not hold e-mail addresses, or worse
        connect_args={
            "connect_timeout": 5,
            "application_name": f"ctrip-{process}",
            "options": "-c statement_timeout=30000 -c lock_timeout=10000 -c timezone=UTC"
            " -c idle_in_transaction_session_timeout=60000",
        },
    )


def make_sessions(engine: Engine) -> Sessions:
    """Build the factory behind `with ctx.sessions.begin() as session:`."""
    return Sessions(engine, expire_on_commit=False)
