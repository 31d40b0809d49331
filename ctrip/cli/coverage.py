"""`ctrip coverage`: which blocks of a chain were read, and whether there is a gap."""

import sys

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli import output
from ctrip.domain.coverage import coverage_object, covered_object, in_words
from ctrip.services import coverage


@click.command(
    help="Show which blocks of CHAIN were read, for each asset. The exit code is 1 where there is a gap, or where no "
    "node tells whether there is."
)
@click.argument("chain")
@output.as_json()
def command(chain: str, as_json: bool) -> None:
    """Show it as tables, or as JSON."""
    found = coverage.report(bootstrap(Role.CLI), chain)
    if as_json:
        output.print_json(coverage_object(found))
    else:
        for asset in found.assets:
            output.print_ranges(asset.symbol, [covered_object(each) for each in asset.covered])
            click.echo()
        output.print_lines(f"{chain}, from block {found.first_block} to {found.read_block}", in_words(found))
    sys.exit(0 if found.is_whole else 1)
