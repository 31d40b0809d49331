"""`ctrip audit-log`: who did what."""

import json

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli.output import as_json, print_json, print_table
from ctrip.domain.audit_log import deed_object
from ctrip.services import audit_log


@click.command(help="List what operators did, newest first.")
@click.option("--by", help="Only by this one: an API key's id, cli:USER, or scheduler.")
@click.option("--action", help="Only this, or what begins so: dead_letters.replay, keys.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--after", help="Only what is older than this id.")
@as_json()
def command(by: str | None, action: str | None, limit: int, after: str | None, as_json: bool) -> None:
    """Print a page of the audit log."""
    found = audit_log.matching(bootstrap(Role.CLI), by=by, action=action, limit=limit, after=after)
    shown = [deed_object(deed) for deed in found]
    if as_json:
        print_json(shown)
        return
    columns = ("at", "by", "action", "target", "detail")
    rows = [[*(deed[name] for name in columns[:-1]), json.dumps(deed["detail"])] for deed in shown]
    print_table("audit log", columns, rows)
