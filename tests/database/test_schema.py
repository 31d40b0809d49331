"""Migrations: they make exactly the tables of the models, any number at once, and only ever forward."""

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from ctrip.database import schema
from ctrip.database.engine import make_engine
from ctrip.database.models import metadata
from ctrip.database.schema import Upgrade
from ctrip.errors import MisconfiguredError, Unavailable
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

NewDatabase = Callable[[], sa.Engine]


@pytest.fixture
def new_database(engine: sa.Engine) -> Iterator[NewDatabase]:
    """Makes empty databases on the session's server, with the limits that every process has; gone after the test."""
    made: list[sa.Engine] = []

    def make() -> sa.Engine:
        # A % in the name: Alembic's configuration reads it as the start of a placeholder.
        name = f"ctrip%20{secrets.token_hex(4)}"
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
        made.append(make_engine(engine.url.set(database=name), process="tests"))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.dispose()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(f'DROP DATABASE "{each.url.database}"'))


CATALOGUE = {
    "tables": "SELECT relname, reloptions::text FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
    "columns": "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, collname,"
    " pg_get_expr(adbin, adrelid), col_description(attrelid, attnum) FROM pg_attribute"
    " JOIN pg_class ON pg_class.oid = attrelid LEFT JOIN pg_collation ON pg_collation.oid = attcollation"
    " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
    " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0",
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "sequences": "SELECT sequencename, data_type::text, start_value, min_value, max_value, increment_by, cycle"
    " FROM pg_sequences WHERE schemaname = 'public'",
}


def catalogue(engine: sa.Engine) -> set[tuple[object, ...]]:
    """Everything that a schema is made of, save Alembic's own table. The order of columns is nobody's business."""
    with engine.connect() as connection:
        found = {(kind, *row) for kind, query in CATALOGUE.items() for row in connection.execute(sa.text(query))}
    return {row for row in found if row[1] != "alembic_version"}


def test_the_migrations_make_what_the_models_say(new_database: NewDatabase) -> None:
    modelled, migrated = new_database(), new_database()
    metadata.create_all(modelled)
    schema.upgrade(migrated)
    assert catalogue(migrated) == catalogue(modelled)


@pytest.fixture
def older_database(
    new_database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], sa.Engine]:
    """Makes databases that the first migrations alone have made, up to one's number."""

    def make(last: str) -> sa.Engine:
        (tmp_path / "versions").mkdir()
        first = [path for path in (schema.FOLDER / "versions").glob("*.py") if path.name[:4] <= last]
        for path in (schema.FOLDER / "env.py", *first):
            (tmp_path / path.relative_to(schema.FOLDER)).write_text(path.read_text())
        older = new_database()
        with monkeypatch.context() as patched:
            patched.setattr(schema, "FOLDER", tmp_path)
            assert schema.upgrade(older) == Upgrade(None, last)
        return older

    return make


def test_indexes_are_built_while_others_write(older_database: Callable[[str], sa.Engine]) -> None:
    older = older_database("0011")
    writes = sa.text("SET LOCAL lock_timeout = '5s'; LOCK TABLE webhook_deliveries, payments IN ROW EXCLUSIVE MODE")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool, older.connect().execution_options(isolation_level="AUTOCOMMIT") as looker:
        with older.begin() as writer:
            writer.execute(writes)
            upgraded = pool.submit(schema.upgrade, older)
            wait_until(
                lambda: bool(looker.scalar(sa.text(waiting))), within_s=20, what="the upgrade waits for a writer"
            )
            with older.begin() as another:
                another.execute(writes)
        assert upgraded.result(60) == Upgrade("0011", schema.shipped_revision())


def test_an_index_that_a_crash_left_half_built_is_built_anew(
    older_database: Callable[[str], sa.Engine], new_database: NewDatabase
) -> None:
    older, modelled = older_database("0011"), new_database()
    with older.begin() as connection:
        for statement in ("CREATE INDEX ix_payments_status ON payments (id)", "DROP INDEX ix_payments_open"):
            connection.execute(sa.text(statement))
    schema.upgrade(older)
    metadata.create_all(modelled)
    assert catalogue(older) == catalogue(modelled)


def test_what_was_read_before_notes_were_taken_is_noted_by_the_upgrade(
    older_database: Callable[[str], sa.Engine],
) -> None:
    older = older_database("0002")
    with older.begin() as connection:
        for statement in OLD_ROWS:
            connection.execute(sa.text(statement))
    schema.upgrade(older)
    with older.connect() as connection:
        noted = connection.execute(
            sa.text("SELECT left(encode(token, 'hex'), 2), first_block, last_block, endpoint FROM coverage ORDER BY 1")
        )
        assert [tuple(row) for row in noted] == [("00", 6, 40, "unknown"), ("70", 10, 20, "unknown")]


OLD_ROWS = [
    "SET session_replication_role = replica",  # no foreign keys
    "INSERT INTO chain_cursors (chain_id, start_block, read_block, read_hash, head_block)"
    " VALUES (1, 5, 40, decode(repeat('28', 32), 'hex'), 40)",
    *(
        "INSERT INTO transfers (id, payment_id, chain_id, chain, token, symbol, decimals, amount, sender, recipient,"
        " tx_hash, log_index, block_number, block_hash, block_time, source, status, required, is_own, is_payable,"
        f" counts) SELECT 'trf_{number}', 'pay_1', 1, 'one', decode(repeat('{token}', 20), 'hex'), 'USDC', 6, 1, a, a,"
        f" h, {number}, {number}, h, now(), 'erc20', '{status}', 1, false, true, true"
        " FROM (SELECT decode(repeat('aa', 20), 'hex') AS a, decode(repeat('bb', 32), 'hex') AS h) AS bytes"
        for number, token, status in (
            (10, "70", "final"),
            (20, "70", "seen"),
            (30, "70", "orphaned"),
            (35, "00", "final"),
        )
    ),
]


def test_an_upgrade_tells_where_it_came_from_and_does_nothing_twice(new_database: NewDatabase) -> None:
    empty = new_database()
    assert schema.upgrade(empty) == Upgrade(None, schema.shipped_revision())
    assert schema.upgrade(empty) == Upgrade(schema.shipped_revision(), schema.shipped_revision())
    with empty.connect() as connection:
        assert schema.stored_revision(connection) == schema.shipped_revision()
        limits = [connection.scalar(sa.text(f"SHOW {name}")) for name in ("statement_timeout", "lock_timeout")]
        locks = connection.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
    assert limits == ["30s", "10s"], "the connection went back into the pool with the migration's limits"
    assert locks == 0


def test_eight_upgrades_at_once_are_one(new_database: NewDatabase) -> None:
    empty = new_database()
    engines = [make_engine(empty.url, process="tests") for _ in range(8)]  # type: ignore[arg-type]
    ready = threading.Barrier(8)

    def upgrade(engine: sa.Engine) -> Upgrade:
        ready.wait()
        return schema.upgrade(engine)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(upgrade, engines))
    for engine in engines:
        engine.dispose()
    head = schema.shipped_revision()
    assert sorted(results, key=str) == [*[Upgrade(head, head)] * 7, Upgrade(None, head)]


def test_an_upgrade_behind_one_that_hangs_says_so(new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = new_database()
    monkeypatch.setattr(schema, "_LOCK_TIMEOUT_S", 1)
    with empty.connect() as hanging:
        hanging.execute(sa.select(sa.func.pg_advisory_lock(schema._LOCK)))
        with pytest.raises(Unavailable, match="another upgrade"):
            schema.upgrade(empty)
    with empty.connect() as connection:
        assert schema.stored_revision(connection) is None


BROKEN = '''"""Break."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade() -> None:
    op.create_table("half", sa.Column("id", sa.Integer))
    op.execute("SELECT 1 / 0")
'''


def test_a_migration_that_fails_leaves_nothing_and_no_lock(
    new_database: NewDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = schema.shipped_revision()
    revision = f"{int(before or 0) + 1:04d}"
    folder = tmp_path / "100%"
    (folder / "versions").mkdir(parents=True)
    for path in (schema.FOLDER / "env.py", *(schema.FOLDER / "versions").glob("*.py")):
        (folder / path.relative_to(schema.FOLDER)).write_text(path.read_text())
    (folder / "versions" / f"{revision}_break.py").write_text(BROKEN.format(revision=revision, before=before))
    monkeypatch.setattr(schema, "FOLDER", folder)
    empty = new_database()
    for _ in range(2):
        with pytest.raises(sa.exc.DBAPIError, match="division by zero"):
            schema.upgrade(empty)
        with empty.connect() as connection:
            assert schema.stored_revision(connection) == before
            assert connection.scalar(sa.text("SELECT to_regclass('half')")) is None
            assert connection.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")) == 0


def test_the_names_of_the_files_tell_what_alembic_finds_in_them() -> None:
    scripts = ScriptDirectory(str(schema.FOLDER))
    assert schema.shipped_revision() == scripts.get_current_head()
    for script in scripts.walk_revisions():
        assert Path(script.path).name.startswith(f"{script.revision}_")


def test_no_migration_offers_a_way_down() -> None:
    for path in (schema.FOLDER / "versions").glob("*.py"):
        assert "def downgrade" not in path.read_text(), path


def test_a_database_of_a_later_version_is_left_as_it_is(new_database: NewDatabase) -> None:
    engine = new_database()
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(MisconfiguredError, match="at revision 9999, and this version of cTrip knows none after"):
        schema.upgrade(engine)
