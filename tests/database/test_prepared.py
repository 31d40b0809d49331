from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection, exc

from ctrip.database.columns import Uint256
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


def test_a_known_value_stands_in_the_text_as_it_is(connection: Connection) -> None:
    known = "50 %(one)s $1 of it's \\ value"
    query: Any = sa.select(sa.bindparam("one", type_=sa.Text), sa.literal(known), sa.literal(None))
    statement = Prepared(query)
    assert statement.rows(connection, {"one": "given"}) == [("given", known, None)]
    [text] = _known(connection)
    assert "$1 of it''s" in text
    assert "$2" not in text


@pytest.mark.parametrize("count", [0, 1, 500, 501, 1201])
def test_rows_whose_columns_are_converted_come_whole_and_in_their_order(connection: Connection, count: int) -> None:
    numbers = sa.func.generate_series(1, sa.cast(sa.bindparam("count"), sa.Integer)).column_valued("n")
    amount, text = sa.cast(numbers, sa.Numeric), sa.cast(numbers, sa.Text)
    query: Any = sa.select(sa.type_coerce(amount, Uint256()), text).order_by(numbers)
    statement = Prepared(query)
    assert statement.rows(connection, {"count": count}) == [(n, str(n)) for n in range(1, count + 1)]


def test_a_plan_for_any_value_goes_by_an_index_of_some_rows_alone(connection: Connection) -> None:
    connection.execute(sa.text("CREATE TEMPORARY TABLE work (id bigint, state text)"))
    connection.execute(sa.text("INSERT INTO work SELECT n, 'over' FROM generate_series(1, 5000) n"))
    connection.execute(sa.text("CREATE INDEX open_work ON work (id) WHERE state = 'open'"))
    connection.execute(sa.text("ANALYZE work"))
    connection.execute(sa.text("SET plan_cache_mode = force_generic_plan"))
    work = sa.table("work", sa.column("id", sa.BigInteger), sa.column("state", sa.Text))
    statement = Prepared(sa.select(work.c.id).where(work.c.state == "open", work.c.id == sa.bindparam("wanted")))
    assert statement.scalar(connection, {"wanted": 7}) is None
    [name] = connection.scalars(sa.text("SELECT name FROM pg_prepared_statements"))
    plan = " ".join(connection.scalars(sa.text(f"EXPLAIN EXECUTE {name} (7)")))
    assert "open_work" in plan


def test_what_columns_hold_is_converted_in_each_row(connection: Connection) -> None:
    rows = sa.values(sa.column("blob", sa.LargeBinary), sa.column("number", sa.Integer), name="rows")
    statement = Prepared(sa.select(rows.data([(b"a", 1), (None, 2), (b"", 3)])))
    assert statement.rows(connection, {}) == [(b"a", 1), (None, 2), (b"", 3)]
    assert [type(blob) for blob in statement.scalars(connection, {})] == [bytes, type(None), bytes]


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
