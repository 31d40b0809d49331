"""`ctrip queues`: how full they are, as the scheduler saw them last."""

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli.output import as_json, print_json, print_table
from ctrip.domain.queues import snapshot_object
from ctrip.services import queues


@click.command(help="How full the queues are, as the scheduler saw them last.")
@as_json()
def command(as_json: bool) -> None:
    """Show the newest snapshots."""
    found = [snapshot_object(snapshot) for snapshot in queues.snapshots(bootstrap(Role.CLI))]
    if as_json:
        print_json(found)
        return
    columns = tuple(found[0]) if found else ()
    print_table("queues", columns, [[row[column] for column in columns] for row in found])
