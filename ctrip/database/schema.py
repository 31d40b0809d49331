"""The schema's revisions: which one this code ships, which one the database has, and how it gets there."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import granting, logins
from ctrip.errors import MisconfiguredError, Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER = Path(__file__).resolve().parents[2] / "migrations"
_LOCK = 0x63547269705F6462
"""Any number will do as long as nobody else's advisory lock has it: this one spells cTrip_db."""
_LOCK_TIMEOUT_S = 120
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Upgrade:
    """The revisions before and after; None where there were no tables. `remarks` is what an administrator has to do."""

    before: str | None
    after: str | None
    remarks: tuple[str, ...] = ()


def shipped_revision() -> str | None:
    """Return the newest revision of this code: the number that begins the last file's name, NNNN_verb_noun.py.

    Read from the names alone: importing Alembic would cost every process its memory.
    """
    numbers = sorted(path.name[:4] for path in (FOLDER / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))
    return numbers[-1] if numbers else None


def stored_revision(session: Connection | sa.Connection) -> str | None:
    """Return the database's revision; None where no migration ever ran."""
    if session.scalar(sa.text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = session.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return revision


def upgrade(engine: sa.Engine) -> Upgrade:
    """Bring the database to the newest revision, and its groups of users to what they need there.

    Any number of processes may do this at once: an advisory lock lets them pass one by one, and all but the first find
    nothing to do. Each revision is one transaction, so after a crash in between the next upgrade goes on from there;
    those that build indexes while others write begin with taking away what was left half built.
    Raises Unavailable where another upgrade holds the lock for two minutes, and MisconfiguredError where the database
    belongs to a later version of cTrip, or to another user.
    """
    with _locked(engine) as connection:
        before = stored_revision(connection)
        connection.commit()
        _refuse_newer(before)
        _run(connection)
        after = stored_revision(connection)
        connection.commit()
        return Upgrade(before, after, remarks=tuple(granting.settle(connection)))


def make_logins(engine: sa.Engine, wanted: Iterable[logins.Login]) -> list[str]:
    """Make the groups, and users that processes connect as, each a member of one group. Returns as `granting.prepare`.

    For an administrator of Postgres; before the first upgrade, or after any. Raises as `logins.make` and `upgrade`.
    """
    with _locked(engine) as connection:
        remarks = granting.prepare(connection)
        there = granting.groups(connection)
        for login in wanted:
            if login.group in there:
                logins.make(connection, login)
        return remarks


def draft(engine: sa.Engine, name: str) -> Path:
    """Write a new revision with what the models have and the database, which must be up to date, has not."""
    from alembic import command  # noqa: PLC0415 (a server never migrates, and should not pay for Alembic)

    number = int(shipped_revision() or 0) + 1
    with engine.connect() as connection:
        command.revision(_config(connection), name, autogenerate=True, rev_id=f"{number:04d}")
    return next((FOLDER / "versions").glob(f"{number:04d}_*.py"))


def _lock(connection: sa.Connection) -> None:
    """Take the lock of upgrades. Raises Unavailable.

    It is asked for again and again: whoever waits for it in a statement has a snapshot, and an index that is built
    while others write (CREATE INDEX CONCURRENTLY) waits for all snapshots, so neither would go on.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_LOCK))):
        connection.commit()
        if time.monotonic() > deadline:
            raise Unavailable(f"another upgrade has held the lock for {_LOCK_TIMEOUT_S} s; see what it does")
        time.sleep(_LOOK_EVERY_S)
    connection.commit()


@contextmanager
def _locked(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a connection that alone may change the schema, and as slowly as it takes. Raises Unavailable."""
    with engine.connect() as connection:
        # A migration may take longer than any query of a server may.
        connection.execute(sa.text(f"SET statement_timeout = 0; SET lock_timeout = '{_LOCK_TIMEOUT_S}s'"))
        _lock(connection)
        try:
            yield connection
        finally:
            # The lock belongs to the session: it must not go back into the pool with it.
            connection.rollback()
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK)))
            connection.execute(sa.text("RESET ALL"))
            connection.commit()


def _refuse_newer(revision: str | None) -> None:
    shipped = shipped_revision()
    if revision is not None and shipped is not None and revision > shipped:
        raise MisconfiguredError(
            f"DATABASE_URL: the database is at revision {revision}, and this version of cTrip knows none after "
            f"{shipped}; install the version that it was upgraded with, or a later one"
        )


def _run(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415 (a server never migrates, and should not pay for Alembic)

    command.upgrade(_config(connection), "head")


def _config(connection: sa.Connection) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 (as above)

    config = Config(attributes={"connection": connection})
    # ConfigParser reads % as the start of a placeholder, and a folder's name may hold one.
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.set_main_option("path_separator", "os")
    return config
