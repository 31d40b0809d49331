"""`ctrip queues`: how full they are, as the scheduler saw them last."""

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli.output import as_json, print_json, print_table
from ctrip.domain.queues import OLD_AFTER, snapshot_object
from ctrip.services import queues


@click.command(help="How full the queues are, as the scheduler saw them last.")
@as_json()
def command(as_json: bool) -> None:
    """Show the newest snapshots, and say where they are old: then nobody knows how full the queues are now."""
    ctx = bootstrap(Role.CLI)
    snapshots = queues.snapshots(ctx)
    found = [snapshot_object(snapshot) for snapshot in snapshots]
    if as_json:
        print_json(found)
    else:
        columns = tuple(found[0]) if found else ()
        print_table("queues", columns, [[row[column] for column in columns] for row in found])
    for snapshot in snapshots:
        age = snapshot.age_at(ctx.now())
        if age > OLD_AFTER:
            seconds = int(age.total_seconds())
            click.echo(f"{snapshot.queue}: seen {seconds} s ago; is the scheduler, or Redis, away?", err=True)
