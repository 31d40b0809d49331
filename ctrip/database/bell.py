"""The bell that tells of due work."""

import select
from typing import cast

import psycopg2
from psycopg2.extensions import connection

from ctrip.database.engine import Sessions
from ctrip.database.work import DUE_CHANNEL
from ctrip.errors import Unavailable


class Bell:
    """A connection of its own that hears when a transaction made work due.

    A notice can be lost (the connection, a restart): it saves the wait for the next poll, and nothing depends on it.
    """

    def __init__(self, sessions: Sessions) -> None:
        """Connect and listen. Raises Unavailable."""
        with sessions.begin() as session:
            pooled = session.engine.raw_connection()
        self._connection = cast("connection", pooled.driver_connection)
        # Out of the pool: this connection lives as long as the bell.
        pooled.detach()
        try:
            self._connection.set_session(autocommit=True)
            with self._connection.cursor() as cursor:
                cursor.execute(f"LISTEN {DUE_CHANNEL}")
        except psycopg2.Error as error:
            self.close()
            raise Unavailable("the database ended the connection of the bell") from error

    def wait(self, timeout_s: float) -> bool:
        """Return True as soon as somebody rings, False after `timeout_s`. Raises Unavailable."""
        try:
            select.select([self._connection], [], [], timeout_s)
            self._connection.poll()
        except psycopg2.Error as error:
            raise Unavailable("the database ended the connection of the bell") from error
        rung = bool(self._connection.notifies)
        self._connection.notifies.clear()
        return rung

    def close(self) -> None:
        """Hang up."""
        # Not by way of the pool: it would roll back first, and say at length of a dead connection that it cannot.
        self._connection.close()
