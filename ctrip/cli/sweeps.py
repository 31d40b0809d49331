"""`ctrip sweeps`: let one go on that waits for a human."""

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli.output import who
from ctrip.services import sweeping


@click.group(help="Sweeps that are held.")
def command() -> None:
    """Hold the verbs."""


@command.command()
@click.argument("sweep_id")
def resume(sweep_id: str) -> None:
    """Let a held sweep go on, because you have looked at why it is held (`ctrip payments show`)."""
    sweeping.resume_sweep(bootstrap(Role.CLI), sweep_id, by=who())
    click.echo(f"{sweep_id} goes on at the sweeper's next look")
