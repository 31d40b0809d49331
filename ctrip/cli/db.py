"""`ctrip db`: the schema, and who may do what in it."""

from collections.abc import Iterable
from pathlib import Path

import click

from ctrip.bootstrap import Role, open_database
from ctrip.services import schema
from ctrip.settings import read_database_url


@click.group(help="The database's schema, and its users.")
def command() -> None:
    """Hold the verbs."""


@command.command()
def upgrade() -> None:
    """Bring the database to the newest revision. Any number of machines may do it at once."""
    settings, engine = open_database(Role.CLI)
    done = schema.upgrade(engine, place=settings.database_place)
    if done.before == done.after:
        click.echo(f"{settings.database_place} is at revision {done.after} already")
    else:
        click.echo(f"{settings.database_place}: revision {done.before or 'none'} -> {done.after}")
    _tell(done.remarks)


@command.command()
@click.argument("logins", nargs=-1, required=True, metavar="GROUP=FILE ...")
def logins(logins: tuple[str, ...]) -> None:
    """Make the users that processes connect as.

    GROUP is migrator, api, worker or readonly; FILE holds the DATABASE_URL of a process, with its user and password.
    DATABASE_URL is an administrator's of Postgres. Done again, it renews the passwords.
    """
    wanted = [each.partition("=") for each in logins]
    if not all(path for _, _, path in wanted):
        raise click.UsageError("each is GROUP=FILE, such as api=/run/secrets/database_url_api")
    settings, engine = open_database(Role.CLI)
    urls = [(group, read_database_url(Path(path))) for group, _, path in wanted]
    remarks = schema.make_logins(engine, place=settings.database_place, urls=urls)
    _tell(remarks)
    if remarks:
        raise click.exceptions.Exit(1)
    click.echo(f"{settings.database_place}: {len(urls)} users are members of their groups")


def _tell(remarks: Iterable[str]) -> None:
    for remark in remarks:
        click.echo(f"users: {remark}", err=True)


@command.command()
@click.argument("name")
def draft(name: str) -> None:
    """Write migrations/versions/NNNN_NAME.py from what the models have and the database has not."""
    settings, engine = open_database(Role.CLI)
    click.echo(schema.draft(engine, place=settings.database_place, name=name))
