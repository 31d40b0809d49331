"""`ctrip loops`: the work that is done over and over, and when it was done last."""

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli.output import as_json, print_json, print_table
from ctrip.services import loops


@click.command(help="The loops, and when each ran last.")
@as_json()
def command(as_json: bool) -> None:
    """Show every loop's row."""
    found = loops.overview(bootstrap(Role.CLI))
    if as_json:
        print_json(found)
        return
    columns = tuple(found[0]) if found else ()
    print_table("loops", columns, [[row[column] for column in columns] for row in found])
