"""`ctrip secrets`: fresh secrets."""

import click

from ctrip.box import new_secrets_key


@click.group(help="Fresh secrets.")
def command() -> None:
    """Hold the verbs."""


@command.command()
def key() -> None:
    """Print a new SECRETS_KEY. To rotate, put it in front of the old ones, with a comma between."""
    click.echo(new_secrets_key())
