"""The users that processes connect as: each a member of one group of `roles.py`, and nothing by itself."""

from dataclasses import dataclass, field
from typing import cast

import sqlalchemy as sa
from psycopg2.extensions import connection as DriverConnection
from psycopg2.extensions import encrypt_password

from ctrip.database.granting import is_refused, quoted
from ctrip.database.roles import Group
from ctrip.errors import MisconfiguredError


@dataclass(frozen=True)
class Login:
    """A user of a group. Without a password it connects where Postgres asks for none, by a socket or a certificate."""

    user: str
    group: Group
    password: str | None = field(default=None, repr=False)


def make(connection: sa.Connection, login: Login) -> None:
    """Make a user, or give one that is there this password and this group alone.

    Raises MisconfiguredError for the name of an administrator, who would stay one whatever the group, and where who is
    connected may not make users.
    """
    _refuse_administrator(connection, login.user)
    user = quoted(login.user)
    database = quoted(connection.execute(sa.text("SELECT current_database()")).scalar_one())
    is_there = connection.scalar(sa.text("SELECT true FROM pg_roles WHERE rolname = :user"), {"user": login.user})
    statements = [
        f"{'ALTER' if is_there else 'CREATE'} ROLE {user} LOGIN",
        *(f"REVOKE {group} FROM {user}" for group in _groups_of(connection, login.user) if group is not login.group),
        f"GRANT {login.group} TO {user}",
        f"GRANT CONNECT ON DATABASE {database} TO {user}",
    ]
    connection.commit()
    try:
        with connection.begin():
            connection.execute(sa.text("; ".join(statements)))
            if login.password is not None:
                # What is sent is what Postgres would store: no log of its statements holds a password.
                verifier = _verifier(connection, login.user, login.password)
                connection.execute(sa.text(f"ALTER ROLE {user} PASSWORD :verifier"), {"verifier": verifier})
    except sa.exc.DBAPIError as error:
        if not is_refused(error):
            raise
        raise MisconfiguredError(
            f"DATABASE_URL: its user may not make the user {login.user} a member of {login.group}; an administrator may"
        ) from error


def _refuse_administrator(connection: sa.Connection, user: str) -> None:
    query = sa.text(
        "SELECT rolsuper OR rolcreaterole OR rolreplication OR rolbypassrls OR rolname = current_user"
        " FROM pg_roles WHERE rolname = :user"
    )
    if connection.scalar(query, {"user": user}) or user in list(Group):
        raise MisconfiguredError(
            f"{user} is an administrator of Postgres, or a group; name a user that is nothing by itself"
        )


def _groups_of(connection: sa.Connection, user: str) -> set[Group]:
    query = sa.text(
        "SELECT pg_get_userbyid(roleid)::text FROM pg_auth_members"
        " WHERE pg_get_userbyid(member) = :user AND pg_get_userbyid(roleid) = ANY (:groups)"
    )
    return {Group(name) for name in connection.scalars(query, {"user": user, "groups": list(Group)})}


def _verifier(connection: sa.Connection, user: str, password: str) -> str:
    driver = cast("DriverConnection", connection.connection.driver_connection)
    return encrypt_password(password, user, scope=driver, algorithm="scram-sha-256")
