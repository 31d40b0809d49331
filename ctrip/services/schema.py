"""The database's schema brought up to date."""

from pathlib import Path

from sqlalchemy import Engine, exc

from ctrip.database import schema, unreachable
from ctrip.errors import MisconfiguredError


def upgrade(engine: Engine, *, place: str) -> tuple[str | None, str | None]:
    """Run the migrations that are missing, behind a lock. Returns the revisions before and after.

    `place` names the database in messages. Raises MisconfiguredError where it cannot be reached, and Unavailable where
    another upgrade goes on for too long.
    """
    _reach(engine, place)
    return schema.upgrade(engine)


def draft(engine: Engine, *, place: str, name: str) -> Path:
    """Write a new migration out of what the models have and the database has not. For who changes the models."""
    _reach(engine, place)
    return schema.draft(engine, name)


def _reach(engine: Engine, place: str) -> None:
    try:
        engine.connect().close()
    except exc.DBAPIError as error:
        raise MisconfiguredError(unreachable.message(error, place)) from error
