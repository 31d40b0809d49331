import os
import socket
from contextlib import ExitStack
from typing import cast

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from ctrip.database import engine as engines
from ctrip.database.engine import Sessions, after_commit, make_engine
from ctrip.errors import Unavailable
from tests.postgres_line import PostgresLine

pytestmark = pytest.mark.infra
_LIMITS = {"TCP_USER_TIMEOUT": 30_000, "TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


def kill_all(sessions: Sessions, process: str) -> int:
    """End every connection of a process, as a restart of Postgres does."""
    of = sa.text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = :name")
    with sessions.begin() as session:
        return session.scalar(of, {"name": f"ctrip-{process}"}) or 0


@pytest.fixture
def pooled(postgres_url: str):
    """Sessions with two connections in their pool."""
    engine = make_engine(postgres_url, process="pooled")
    with engine.connect(), engine.connect():
        pass
    yield Sessions(engine)
    engine.dispose()


def test_connections_that_died_while_they_were_idle_are_replaced_unseen(
    pooled: Sessions, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "IDLE_S", 0.0)
    assert kill_all(sessions, "pooled") == 2
    for _ in range(2):
        with pooled.begin() as session:
            assert session.scalar(sa.text("SELECT 1")) == 1


def test_connections_that_died_in_use_are_said_to_be_unavailable_once(
    pooled: Sessions, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "IDLE_S", 3600.0)
    assert kill_all(sessions, "pooled") == 2
    with pytest.raises(Unavailable), pooled.begin() as session:
        session.scalar(sa.text("SELECT 1"))
    for _ in range(2):
        with pooled.begin() as session:
            assert session.scalar(sa.text("SELECT 1")) == 1


def test_the_connections_of_a_busy_moment_serve_the_next(postgres_url: str) -> None:
    engine = make_engine(postgres_url, process="busy")

    def backends() -> set[int]:
        with ExitStack() as stack:
            taken = [stack.enter_context(engine.connect()) for _ in range(engines.POOL_SIZE)]
            return {connection.scalar(sa.text("SELECT pg_backend_pid()")) for connection in taken}

    assert backends() == backends()
    engine.dispose()


def test_what_is_to_be_done_after_a_commit_is_done_then_and_not_where_it_is_rolled_back(sessions: Sessions) -> None:
    done: list[str] = []
    with sessions.begin() as session:
        after_commit(session, lambda: done.append("committed"))
        assert not done
    with pytest.raises(ZeroDivisionError), sessions.begin() as session:
        after_commit(session, lambda: done.append("rolled back"))
        raise ZeroDivisionError
    assert done == ["committed"]


def test_what_fails_after_a_commit_is_not_said_to_be_the_databases_fault(sessions: Sessions) -> None:
    def fail() -> None:
        raise exc.OperationalError("a statement of another database", None, OSError())

    with pytest.raises(exc.OperationalError, match="of another database"), sessions.begin() as session:
        after_commit(session, fail)


def test_a_connection_whose_other_end_has_vanished_ends_within_half_a_minute(postgres_url: str) -> None:
    """Nobody resets what a broken network or a dead machine swallows: Linux would wait for a quarter of an hour."""
    line = PostgresLine(postgres_url)
    engine = make_engine(line.url, process="far")
    with engine.connect() as connection:
        driver = cast("psycopg2.extensions.connection", connection.connection.driver_connection)
        with socket.socket(fileno=os.dup(driver.fileno())) as side:
            told = {name: side.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in _LIMITS}
    assert told == _LIMITS
    engine.dispose()
    line.close()
