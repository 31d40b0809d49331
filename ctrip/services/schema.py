"""The database's schema brought up to date, with who may do what in it."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import Engine, exc

from ctrip.database import granting, schema, unreachable
from ctrip.database.logins import Login
from ctrip.database.roles import Group
from ctrip.database.schema import Upgrade
from ctrip.errors import MisconfiguredError


def upgrade(engine: Engine, *, place: str) -> Upgrade:
    """Run the migrations that are missing, behind a lock, and grant the groups of users what they need.

    `place` names the database in messages. Raises MisconfiguredError where it cannot be reached or its user may not
    change it, and Unavailable where another upgrade goes on for too long.
    """
    _reach(engine, place)
    try:
        return schema.upgrade(engine)
    except exc.ProgrammingError as error:
        if not granting.is_refused(error):
            raise
        raise MisconfiguredError(
            f"DATABASE_URL: its user may not change the schema of the database {place}; a member of {Group.MIGRATOR}, "
            "or the owner of its tables, may"
        ) from error


def make_logins(engine: Engine, *, place: str, urls: Iterable[tuple[str, str]]) -> list[str]:
    """Make the users that processes connect as, by group (`api`, `worker`, …) and by the DATABASE_URL of the process.

    Returns what is left to an administrator of Postgres; it is nothing for one. Raises as `upgrade`.
    """
    wanted = [_login(group, url) for group, url in urls]
    _reach(engine, place)
    return schema.make_logins(engine, wanted)


def draft(engine: Engine, *, place: str, name: str) -> Path:
    """Write a new migration out of what the models have and the database has not. For who changes the models."""
    _reach(engine, place)
    return schema.draft(engine, name)


def _login(group: str, url: str) -> Login:
    parts = urlsplit(url)
    if not parts.username:
        raise MisconfiguredError(f"the DATABASE_URL for {group} names no user")
    try:
        member_of = Group(f"ctrip_{group}")
    except ValueError:
        known = ", ".join(each.removeprefix("ctrip_") for each in Group)
        raise MisconfiguredError(f"there is no group {group[:60]!r}; there is {known}") from None
    password = None if parts.password is None else unquote(parts.password)
    return Login(unquote(parts.username), member_of, password)


def _reach(engine: Engine, place: str) -> None:
    try:
        engine.connect().close()
    except exc.DBAPIError as error:
        raise MisconfiguredError(unreachable.message(error, place)) from error
