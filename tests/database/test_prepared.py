from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, exc

from ctrip.database.engine import Sessions, make_engine
from ctrip.database.prepared import Prepared
from ctrip.errors import Unavailable

_NAMES = sa.text("SELECT name, statement FROM pg_prepared_statements ORDER BY name")
_SUM = Prepared(sa.select(sa.cast(sa.bindparam("one"), sa.Integer) + sa.bindparam("other", type_=sa.Integer)))


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    engine = make_engine(postgres_url, process="prepared")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def _known(connection: Connection) -> list[str]:
    return [statement for _, statement in connection.execute(_NAMES)]


def test_a_statement_is_prepared_once_and_runs_with_each_time_s_values(connection: Connection) -> None:
    sums = [_SUM.scalar(connection, {"one": one, "other": 2}) for one in (1, 2, 3)]
    assert sums == [3, 4, 5]
    assert len(_known(connection)) == 1


def test_any_other_statement_is_sent_as_text(connection: Connection) -> None:
    assert connection.scalar(sa.select(sa.bindparam("one", 7, type_=sa.Integer))) == 7
    assert _known(connection) == []


def test_statements_that_differ_are_prepared_apart(connection: Connection) -> None:
    longer = Prepared(sa.select(sa.cast(sa.bindparam("one"), sa.Integer) + 10))
    assert _SUM.scalar(connection, {"one": 1, "other": 2}) == 3
    assert longer.scalar(connection, {"one": 1}) == 11
    assert _SUM.scalar(connection, {"one": 5, "other": 2}) == 7
    assert len(_known(connection)) == 2


def test_a_statement_stays_prepared_after_a_rollback_and_for_who_has_the_connection_next(postgres_url: str) -> None:
    engine = make_engine(postgres_url, process="prepared", pool_size=1)
    for _ in range(2):
        with engine.connect() as connection:
            assert _SUM.scalar(connection, {"one": 1, "other": 2}) == 3
            connection.rollback()
            with pytest.raises(exc.DataError):
                _SUM.scalar(connection, {"one": 2**31 - 1, "other": 1})
            connection.rollback()
            assert len(_known(connection)) == 1
    engine.dispose()


def test_a_connection_that_was_replaced_prepares_anew(postgres_url: str) -> None:
    engine = make_engine(postgres_url, process="prepared", pool_size=1)
    with engine.connect() as connection:
        assert _SUM.scalar(connection, {"one": 1, "other": 2}) == 3
        connection.invalidate()
    with engine.connect() as connection:
        assert _SUM.scalar(connection, {"one": 1, "other": 2}) == 3
    engine.dispose()


def test_a_plan_that_a_migration_has_spoilt_costs_one_attempt_and_not_the_connection_s_life(
    sessions: Sessions, postgres_url: str
) -> None:
    engine = make_engine(postgres_url, process="prepared", pool_size=1)
    own = Sessions(engine)
    with sessions.begin() as session:
        session.execute(sa.text("CREATE TABLE spoilt (number integer)"))
    try:
        read = Prepared(sa.select(sa.table("spoilt", sa.column("number", sa.BigInteger))))
        with own.begin() as session:
            read.execute(session, {})
        with sessions.begin() as session:
            session.execute(sa.text("ALTER TABLE spoilt ALTER number TYPE bigint"))
        with pytest.raises(Unavailable), own.begin() as session:
            read.execute(session, {})
        with own.begin() as session:
            assert read.execute(session, {}).all() == []
    finally:
        with sessions.begin() as session:
            session.execute(sa.text("DROP TABLE spoilt"))
        engine.dispose()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (sa.Text, None),
        (sa.Text, ""),
        (sa.Text, "it's 100 % of $1 and %(value)s"),
        (sa.Text, "\\"),
        (sa.BigInteger, 2**63 - 1),
        (sa.DateTime(timezone=True), datetime(2026, 1, 2, tzinfo=UTC)),
        (sa.Interval, timedelta(days=3)),
    ],
)
def test_every_value_arrives_as_it_is(connection: Connection, kind: Any, value: object) -> None:
    echo = Prepared(sa.select(sa.cast(sa.bindparam("value"), kind), sa.literal_column("'100%'")))
    assert tuple(echo.execute(connection, {"value": value}).one()) == (value, "100%")
