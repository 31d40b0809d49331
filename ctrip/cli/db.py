"""`ctrip db`: the schema."""

import click

from ctrip.bootstrap import Role, open_database
from ctrip.services import schema


@click.group(help="The database's schema.")
def command() -> None:
    """Hold the verbs."""


@command.command()
def upgrade() -> None:
    """Bring the database to the newest revision. Any number of machines may do it at once."""
    settings, engine = open_database(Role.CLI)
    before, after = schema.upgrade(engine, place=settings.database_place)
    if before == after:
        click.echo(f"{settings.database_place} is at revision {after} already")
    else:
        click.echo(f"{settings.database_place}: revision {before or 'none'} -> {after}")


@command.command()
@click.argument("name")
def draft(name: str) -> None:
    """Write migrations/versions/NNNN_NAME.py from what the models have and the database has not."""
    settings, engine = open_database(Role.CLI)
    click.echo(schema.draft(engine, place=settings.database_place, name=name))
