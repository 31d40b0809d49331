"""Groups on a server of their own: made by whoever may, asked of an administrator by whoever may not, given anew."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import sqlalchemy as sa

from ctrip.bootstrap import bootstrap
from ctrip.database import granting, schema
from ctrip.database.engine import make_engine
from ctrip.database.logins import Login
from ctrip.database.roles import Group
from ctrip.errors import MisconfiguredError
from ctrip.local.postgres import embedded_postgres
from ctrip.services import schema as service
from ctrip.settings import Role
from tests.conftest import ROOT, running

pytestmark = pytest.mark.infra

MEMBERS = (Group.API, Group.WORKER, Group.READONLY)
Database = Callable[..., str]
Open = Callable[..., sa.Engine]


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    program, url = embedded_postgres(folder, durable=False)
    with running(program, folder):
        yield url.replace("postgresql://", "postgresql+psycopg2://")


@pytest.fixture
def open_as(server_url: str) -> Iterator[Open]:
    """Opens a database of the server as one of its users; `ctrip` is an administrator, in `postgres`."""
    opened: list[sa.Engine] = []

    def make(user: str = "ctrip", database: str = "postgres") -> sa.Engine:
        url = sa.make_url(server_url).set(username=user, database=database)
        opened.append(make_engine(url, process="tests"))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for engine in opened:
        engine.dispose()


def run(engine: sa.Engine, *statements: str) -> None:
    """Run statements, each by itself."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.fixture
def database(open_as: Open) -> Iterator[Database]:
    """Makes databases, each with an owner of these attributes who has its name. After the test no group is left."""
    numbers, made = count(1), list[str]()

    def make(attributes: str = "") -> str:
        name = f"of_{next(numbers)}"
        run(open_as(), f"CREATE ROLE {name} LOGIN {attributes}", f"CREATE DATABASE {name} OWNER {name}")
        made.append(name)
        return name

    yield make
    administrator = open_as()
    run(administrator, *(f"DROP DATABASE {name} WITH (FORCE)" for name in made))
    with administrator.connect() as connection:
        query = "SELECT quote_ident(rolname) FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'ctrip'"
        users = connection.scalars(sa.text(query)).all()
    run(administrator, *(f"DROP OWNED BY {user}" for user in users), *(f"DROP ROLE {user}" for user in users))


def url_of(engine: sa.Engine) -> str:
    """What a process of its own is told."""
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


def owners(engine: sa.Engine) -> set[str]:
    query = "SELECT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    with engine.connect() as connection:
        return set(connection.scalars(sa.text(query)))


def lacking(engine: sa.Engine) -> list[str]:
    """What members lack of their groups' privileges."""
    with engine.connect() as connection:
        return [str(each) for group in MEMBERS for each in granting.lacking(connection, group, user=group)]


def test_who_may_make_users_makes_the_groups_and_leaves_everything_to_the_migrator(
    database: Database, open_as: Open
) -> None:
    name = database("CREATEROLE")
    owner = open_as(name, name)
    upgraded = schema.upgrade(owner)
    assert (upgraded.after, upgraded.remarks) == (schema.shipped_revision(), ())
    assert owners(owner) == {Group.MIGRATOR}
    assert lacking(owner) == []
    assert schema.upgrade(owner).remarks == ()
    run(owner, "INSERT INTO merchants (id, name, webhook_secret) VALUES ('mer_1', 'A shop', '')")


def test_who_may_make_no_users_upgrades_and_is_told_what_an_administrator_does(
    database: Database, open_as: Open
) -> None:
    name = database()
    owner = open_as(name, name)
    upgraded = schema.upgrade(owner)
    assert upgraded.after == schema.shipped_revision()
    (remark,) = upgraded.remarks
    assert owners(owner) == {name}
    said = [line.strip() for line in remark.splitlines()[1:]]
    assert said == [*(f"CREATE ROLE {group} NOLOGIN;" for group in sorted(Group)), f'GRANT ctrip_migrator TO "{name}";']
    run(open_as(), *said)
    assert schema.upgrade(owner).remarks == ()
    assert owners(owner) == {Group.MIGRATOR}
    assert lacking(owner) == []


def test_an_owner_who_is_no_member_of_the_migrator_grants_all_the_same(database: Database, open_as: Open) -> None:
    name = database()
    run(open_as(), *(f"CREATE ROLE {group}" for group in Group))
    owner = open_as(name, name)
    (remark,) = schema.upgrade(owner).remarks
    assert f'GRANT ctrip_migrator TO "{name}";' in remark
    assert owners(owner) == {name}
    assert lacking(owner) == []


def test_a_database_from_before_there_were_groups_is_taken_over(database: Database, open_as: Open) -> None:
    name = database()
    schema.upgrade(open_as(name, name))  # no groups are made by one who may not
    administrator = open_as("ctrip", name)
    schema.make_logins(administrator, [Login("the_migrator", Group.MIGRATOR)])
    assert owners(administrator) == {Group.MIGRATOR}
    assert schema.upgrade(open_as("the_migrator", name)).remarks == ()
    assert lacking(administrator) == []


def test_the_statements_of_the_handbook_are_all_that_an_administrator_runs(database: Database, open_as: Open) -> None:
    name = database()
    (block,) = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    run(open_as("ctrip", name), *block.replace("ON DATABASE ctrip", f"ON DATABASE {name}").splitlines())
    assert schema.upgrade(open_as("migrator", name)).remarks == ()
    assert owners(open_as("ctrip", name)) == {Group.MIGRATOR}
    for user, group in (("api", Group.API), ("scheduler", Group.WORKER), ("reader", Group.READONLY)):
        with open_as(user, name).connect() as connection:
            assert granting.lacking(connection, group) == []


def test_four_databases_of_a_server_upgrade_at_once(
    database: Database, open_as: Open, environment: dict[str, str]
) -> None:
    names = [database("CREATEROLE") for _ in range(4)]
    command = [sys.executable, "-m", "ctrip.cli", "db", "upgrade"]
    upgrades = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment | {"DATABASE_URL": url_of(open_as(name, name)), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    said = [upgrade.communicate(timeout=60) for upgrade in upgrades]
    assert [upgrade.returncode for upgrade in upgrades] == [0] * 4, said
    # One of them made the groups; the others' owners are no members of the migrator, and are told so.
    assert sorted(err.count("GRANT ctrip_migrator TO") for _, err in said) == [0, 1, 1, 1]
    assert [lacking(open_as(name, name)) for name in names] == [[]] * 4


def test_what_was_granted_by_hand_is_taken_back_and_what_was_taken_is_granted_again(
    database: Database, open_as: Open
) -> None:
    name = database("CREATEROLE")
    owner = open_as(name, name)
    schema.upgrade(owner)
    run(
        owner,
        "GRANT DELETE, TRUNCATE ON events TO ctrip_api",
        "GRANT UPDATE (amount) ON payments TO ctrip_worker",
        "GRANT SELECT ON api_keys TO PUBLIC",
        "REVOKE INSERT ON payments FROM ctrip_api",
    )
    assert lacking(owner) == ["INSERT ON payments"]
    assert schema.upgrade(owner).remarks == ()
    assert lacking(owner) == []
    with owner.connect() as connection:
        for group, privilege in ((Group.API, "events', 'DELETE"), (Group.WORKER, "api_keys', 'SELECT")):
            assert not connection.scalar(sa.text(f"SELECT has_table_privilege('{group}', '{privilege}')"))
        may = sa.text("SELECT has_column_privilege('ctrip_worker', 'payments', 'amount', 'UPDATE')")
        assert not connection.scalar(may)


def test_one_who_may_not_change_the_schema_is_told_so(database: Database, open_as: Open) -> None:
    name = database("CREATEROLE")
    schema.make_logins(open_as("ctrip", name), [Login("the_api", Group.API)])
    with pytest.raises(MisconfiguredError, match="its user may not change the schema of the database there; a member"):
        service.upgrade(open_as("the_api", name), place="there")


# --- users ----------------------------------------------------------------------------------------------------------


def memberships(engine: sa.Engine, user: str) -> set[str]:
    query = "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = CAST(:user AS regrole)"
    with engine.connect() as connection:
        return set(connection.scalars(sa.text(query), {"user": user}))


def test_a_user_is_made_a_member_of_one_group_with_a_password_that_no_log_holds(
    database: Database, open_as: Open
) -> None:
    administrator = open_as("ctrip", database())
    said: list[str] = []
    sa.event.listen(administrator, "before_cursor_execute", lambda *told: said.append(f"{told[2]} {told[3]}"))
    urls = [("api", "postgresql://the%20api:a%3Ab%40c@there/x")]
    assert service.make_logins(administrator, place="there", urls=urls) == []
    assert service.make_logins(administrator, place="there", urls=urls) == []
    assert memberships(administrator, '"the api"') == {Group.API}
    with administrator.connect() as connection:
        stored = connection.scalar(sa.text("SELECT rolpassword FROM pg_authid WHERE rolname = 'the api'"))
    assert stored.startswith("SCRAM-SHA-256$")
    assert "a:b@c" not in " ".join(said)
    service.make_logins(administrator, place="there", urls=[("worker", "postgresql://the%20api@there/x")])
    assert memberships(administrator, '"the api"') == {Group.WORKER}


@pytest.mark.parametrize(
    ("group", "url", "words"),
    [
        ("api", "postgresql://ctrip@there/x", "ctrip is an administrator of Postgres"),
        ("api", "postgresql://ctrip_api@there/x", "ctrip_api is an administrator of Postgres, or a group"),
        ("api", "postgresql:///x", "names no user"),
        ("owner", "postgresql://a@there/x", "no group 'owner'; there is migrator, api, worker, readonly"),
    ],
)
def test_a_user_that_would_be_none_is_refused(
    database: Database, open_as: Open, group: str, url: str, words: str
) -> None:
    with pytest.raises(MisconfiguredError, match=words):
        service.make_logins(open_as("ctrip", database()), place="there", urls=[(group, url)])


def test_one_who_is_no_administrator_makes_no_user(database: Database, open_as: Open) -> None:
    name = database()
    run(open_as(), *(f"CREATE ROLE {group}" for group in Group), f"GRANT {Group.MIGRATOR} TO {name}")
    with pytest.raises(MisconfiguredError, match="its user may not make the user the_api a member of ctrip_api"):
        schema.make_logins(open_as(name, name), [Login("the_api", Group.API)])


# --- the start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.CLI])
def test_a_process_whose_user_lacks_a_privilege_does_not_start(
    environment: dict[str, str], database: Database, open_as: Open, role: Role
) -> None:
    name = database("CREATEROLE")
    schema.upgrade(open_as(name, name))
    group = Group.API if role is Role.API else Group.WORKER
    schema.make_logins(open_as("ctrip", name), [Login("a_user", group)])
    environment = environment | {"DATABASE_URL": url_of(open_as("a_user", name))}
    bootstrap(role, environment).sessions.engine.dispose()
    run(open_as("ctrip", name), f"REVOKE INSERT ON events FROM {group}")
    with pytest.raises(MisconfiguredError, match=f"its user lacks INSERT ON events; make it a member of {group}"):
        bootstrap(role, environment)
