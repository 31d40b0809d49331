"""`ctrip loops`: the work that is done over and over, when it was done last, and whether it is done at all."""

from collections.abc import Mapping

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli.output import as_json, print_json, print_table, who
from ctrip.services import loops


@click.group(invoke_without_command=True, help="The loops, and when each ran last.")
@as_json()
@click.pass_context
def command(click_ctx: click.Context, as_json: bool) -> None:
    """Show every loop's row, unless a verb says otherwise."""
    if click_ctx.invoked_subcommand is not None:
        return
    found = loops.overview(bootstrap(Role.CLI))
    if as_json:
        print_json(found)
        return
    columns = tuple(found[0]) if found else ()
    print_table("loops", columns, [[row[column] for column in columns] for row in found])


@command.command()
@click.argument("name")
def pause(name: str) -> None:
    """Let a loop rest until it is resumed; the run at hand ends first."""
    _say(loops.pause(bootstrap(Role.CLI), name, by=who()), "is paused; ctrip loops resume lets it run again")


@command.command()
@click.argument("name")
def resume(name: str) -> None:
    """Let a paused loop run again, from where it stopped."""
    _say(loops.resume(bootstrap(Role.CLI), name, by=who()), "runs again")


@command.command()
@click.argument("name")
def run(name: str) -> None:
    """Make a loop run within two seconds, also when it is not due."""
    _say(loops.run(bootstrap(Role.CLI), name, by=who()), "runs within two seconds")


def _say(loop: Mapping[str, object], what: str) -> None:
    click.echo(f"{loop['name']} {what}")
