"""Who may do what: what TABLES names runs and all else is refused; what must never be granted is, whatever it says."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from itertools import product

import psycopg2
import pytest
import sqlalchemy as sa
from psycopg2 import errorcodes

from ctrip.database import granting, payments, prices
from ctrip.database.engine import Sessions
from ctrip.database.models import metadata
from ctrip.database.roles import FUNCTIONS, SEQUENCES, TABLES, Group, privileges
from ctrip.domain.payments import Standing, Status
from ctrip.domain.prices import Choice
from ctrip.errors import IllegalTransition
from ctrip.services.audit import audit
from tests.api import make_context
from tests.conftest import engine_of
from tests.factories import NOON, ids, make_payment, make_price, store_payment, store_transfer

pytestmark = pytest.mark.infra

MEMBERS = (Group.API, Group.WORKER, Group.READONLY)
BOOKS = ("events", "transfers", "payments", "webhook_deliveries", "webhook_attempts", "audit_log", "sweep_attempts")
TERMS = ("merchant_id", "chain_id", "token", "amount", "tolerance_bps", "required", "finality", "address", "expires_at")
"""What a payment was asked for."""
SECRETS = {
    "merchants": ("webhook_secret",),
    "api_keys": ("secret_hash",),
    "webhook_endpoints": ("secret", "former_secret"),
    "idempotency_keys": ("response", "request_hash"),
    "sweep_attempts": ("raw",),
}
A_CHOICE = f"SELECT choose_asset({', '.join(['NULL'] * 13)})"

NEVER: dict[Group | None, tuple[str, ...]] = {
    None: (  # for all of them
        *(f"TRUNCATE {table}" for table in TABLES),
        *(f"DELETE FROM {table}" for table in BOOKS),
        *(f"UPDATE payments SET {name} = DEFAULT" for name in TERMS),
        *(f"UPDATE events SET {column.name} = DEFAULT" for column in metadata.tables["events"].c),
        "UPDATE sweep_attempts SET raw = DEFAULT",
        "UPDATE merchants SET webhook_secret = DEFAULT",
        "UPDATE audit_log SET by = DEFAULT",
        "UPDATE alembic_version SET version_num = '0001'",
        "INSERT INTO alembic_version VALUES ('0001')",
        "DELETE FROM alembic_version",
        "SELECT setval('deposit_index', 1)",
        "ALTER SEQUENCE deposit_index RESTART",
        "CREATE TABLE mine (id integer)",
        "CREATE TEMPORARY TABLE mine (id integer)",
        "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA mine",
        "ALTER TABLE payments ADD COLUMN mine integer",
        "ALTER TABLE transfers DISABLE TRIGGER ALL",
        "ALTER TABLE audit_log DISABLE TRIGGER audit_log_only_grows",
        "CREATE INDEX ON payments (order_id)",
        "CREATE TRIGGER mine BEFORE UPDATE ON payments EXECUTE FUNCTION refuse()",
        "DROP TABLE events",
        "DROP FUNCTION set_transfers_aside(text[])",
        "ALTER DEFAULT PRIVILEGES FOR ROLE ctrip_migrator GRANT ALL ON TABLES TO PUBLIC",
        "CREATE ROLE mine",
        "SET ROLE ctrip_migrator",
        "SET session_replication_role = replica",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ),
    Group.API: (
        *(f"DELETE FROM {table}" for table in TABLES),
        *(f"UPDATE transfers SET {column.name} = DEFAULT" for column in metadata.tables["transfers"].c),
        "INSERT INTO transfers DEFAULT VALUES",
        "SELECT 1 FROM transfers FOR UPDATE",
        *(f"SELECT count(*) FROM {table}" for table in ("sweep_attempts", "signers")),
        *(f"INSERT INTO {table} DEFAULT VALUES" for table in ("sweep_attempts", "sweep_intents", "signers")),
        *(
            f"SELECT {column} FROM sweep_intents"
            for column in ("nonce", "sender", "recipient", "held_reason", "failure")
        ),
        *(f"UPDATE sweep_intents SET {column.name} = DEFAULT" for column in metadata.tables["sweep_intents"].c),
        "UPDATE signers SET next_nonce = 0",
        "SELECT webhook_secret FROM merchants",
        "UPDATE merchants SET tolerance_bps = 9999",
        "UPDATE chain_cursors SET read_block = 0",
        "INSERT INTO webhook_attempts DEFAULT VALUES",
        "SELECT text FROM emails",
    ),
    Group.WORKER: (
        "SELECT 1 FROM api_keys",
        "INSERT INTO api_keys DEFAULT VALUES",
        "UPDATE api_keys SET revoked_at = NULL",
        "INSERT INTO merchants DEFAULT VALUES",
        *(f"UPDATE merchants SET {column.name} = DEFAULT" for column in metadata.tables["merchants"].c),
        "INSERT INTO payments DEFAULT VALUES",
        "INSERT INTO deposit_addresses DEFAULT VALUES",
        "UPDATE deposit_addresses SET payment_id = DEFAULT",
        "DELETE FROM deposit_addresses",
        *(
            f"UPDATE webhook_endpoints SET {column} = DEFAULT"
            for column in ("url", "events", "secret", "former_secret")
        ),
        "INSERT INTO idempotency_keys DEFAULT VALUES",
        "UPDATE idempotency_keys SET response = DEFAULT",
        "SELECT nextval('deposit_index')",
        "SELECT set_transfers_aside('{}')",
        A_CHOICE,
    ),
    Group.READONLY: (
        *(f"INSERT INTO {table} DEFAULT VALUES" for table in TABLES),
        *(f"DELETE FROM {table}" for table in TABLES),
        *(f"SELECT 1 FROM {table} FOR KEY SHARE" for table in TABLES),
        *(f"SELECT * FROM {table}" for table in SECRETS),
        *(f"SELECT {column} FROM {table}" for table, columns in SECRETS.items() for column in columns),
        "SELECT nextval('deposit_index')",
        "SELECT set_transfers_aside('{}')",
        A_CHOICE,
    ),
}
FORBIDDEN = [(group, said) for of, every in NEVER.items() for group, said in product((of,) if of else MEMBERS, every)]
Ask = Callable[[Group, str], str | None]


@pytest.fixture(scope="module")
def ask(engine: sa.Engine) -> Iterator[Ask]:
    """Runs a statement as a member of a group and undoes it. Returns the SQLSTATE of the refusal; None where it ran."""
    with ExitStack() as stack:
        connections = {group: stack.enter_context(engine_of(group, engine).connect()) for group in MEMBERS}

        def run(group: Group, statement: str) -> str | None:
            try:
                connections[group].exec_driver_sql(statement)
            except sa.exc.DBAPIError as error:
                assert isinstance(error.orig, psycopg2.Error)
                return error.orig.pgcode
            finally:
                connections[group].rollback()
            return None

        yield run


@pytest.mark.parametrize(("group", "statement"), FORBIDDEN, ids=str)
def test_what_must_never_be_granted_is_refused(ask: Ask, group: Group, statement: str) -> None:
    assert ask(group, statement) == errorcodes.INSUFFICIENT_PRIVILEGE


def statements() -> Iterator[tuple[tuple[str, str, str | None], str]]:
    """Each verb for each table, or for each of its columns, with a statement that needs it alone."""
    for table in TABLES:
        columns = ["version_num"] if table == "alembic_version" else metadata.tables[table].c.keys()
        yield (table, "INSERT", None), f"INSERT INTO {table} SELECT (NULL::{table}).* WHERE false"
        yield (table, "DELETE", None), f"DELETE FROM {table} WHERE false"
        for column in columns:
            yield (table, "SELECT", column), f'SELECT "{column}" FROM {table} LIMIT 0'
            yield (table, "UPDATE", column), f'UPDATE {table} SET "{column}" = DEFAULT WHERE false'
    for sequence in SEQUENCES:
        yield (sequence, "USAGE", None), f"SELECT nextval('{sequence}')"


@pytest.mark.parametrize("group", MEMBERS)
def test_what_is_granted_runs_and_all_else_is_refused(ask: Ask, group: Group) -> None:
    granted = {(each.name, each.verb, column) for each in privileges(group) for column in each.columns or (None,)}
    for what, statement in statements():
        may = what in granted or (*what[:2], None) in granted
        assert ask(group, statement) == (None if may else errorcodes.INSUFFICIENT_PRIVILEGE), (what, statement)


def test_every_table_sequence_and_function_has_its_line(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        relations = connection.execute(
            sa.text("SELECT relkind::text, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        ).all()
        functions = connection.scalars(
            sa.text("SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        ).all()
    assert {name for kind, name in relations if kind in "rpvmf"} == set(TABLES)
    assert {name for kind, name in relations if kind == "S"} == set(SEQUENCES)
    assert set(functions) == set(FUNCTIONS)


def test_the_migrator_owns_everything_and_can_change_it(engine: sa.Engine) -> None:
    with engine_of(Group.MIGRATOR, engine).connect() as connection:
        owners = connection.scalars(
            sa.text("SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        ).all()
        assert owners == [Group.MIGRATOR]
        connection.exec_driver_sql("ALTER TABLE payments ADD COLUMN mine integer; CREATE TABLE yours (id integer)")
        connection.rollback()


@pytest.mark.parametrize("group", MEMBERS)
def test_what_a_group_lacks_is_told(engine: sa.Engine, group: Group) -> None:
    with engine_of(group, engine).connect() as connection:
        assert granting.lacking(connection, group) == []
    other = Group.WORKER if group is Group.API else Group.API
    with engine_of(group, engine).connect() as connection:
        lacking = {str(each) for each in granting.lacking(connection, other)}
    told = {
        Group.API: "INSERT ON transfers",
        Group.WORKER: "SELECT (id) ON api_keys",
        Group.READONLY: "INSERT ON events",
    }
    granted = {str(each) for each in privileges(other)}
    assert lacking <= granted | lacking
    assert lacking, told


def test_the_function_of_an_acceptance_changes_nothing_else(sessions: Sessions, ask: Ask) -> None:
    new_id = ids()
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        transfer = store_transfer(session, asked)
        call = sa.select(sa.func.set_transfers_aside(sa.literal([transfer.id], sa.ARRAY(sa.Text))))

        def counts() -> bool:
            session.execute(call)
            return bool(session.scalar(sa.text("SELECT counts FROM transfers")))

        assert counts(), "of a payment that nobody accepted"
        session.execute(sa.text("UPDATE payments SET accepted_at = now(), accepted_amount = 1"))
        session.execute(sa.text("UPDATE transfers SET status = 'final'"))
        assert counts(), "that is final"
        session.execute(sa.text("UPDATE transfers SET status = 'seen'"))
        assert not counts()


def test_the_function_of_a_choice_chooses_once_and_never_later_than_the_deadline(sessions: Sessions) -> None:
    new_id = ids()
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id, asked=None, price=make_price())
        later = replace(
            asked,
            asked=make_payment().asked,
            choice=Choice(NOON, NOON, {"rate": "1"}),
            expires_at=asked.expires_at + timedelta(days=9),
        )
        prices.store_choice(session, later)
        stored = payments.find(session, asked.id)
        assert stored == replace(later, expires_at=asked.expires_at)
        with pytest.raises(IllegalTransition):
            prices.store_choice(session, later)
        for made in (
            store_payment(session, new_id=new_id),
            store_payment(
                session,
                new_id=new_id,
                asked=None,
                price=make_price(),
                standing=Standing(Status.CANCELED),
                canceled_at=NOON,
            ),
        ):
            with pytest.raises(IllegalTransition):
                prices.store_choice(session, replace(later, id=made.id))


def test_a_worker_may_audit(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        store_payment(session, new_id=ids())
    assert audit(make_context(Sessions(engine_of(Group.WORKER, engine)))) == []
