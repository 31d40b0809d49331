"""`ctrip rescan`: blocks of a chain, read again."""

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli import output
from ctrip.services.rereading import Rescanned, rescan_chain

_BLOCK = click.IntRange(min=0)


@click.command(help="Read blocks of CHAIN again, whole and for every asset. What is right stays as it is.")
@click.argument("chain")
@click.option("--from", "first", type=_BLOCK, required=True, help="The first block.")
@click.option("--to", "last", type=_BLOCK, required=True, help="The last block, one that was read.")
def command(chain: str, first: int, last: int) -> None:
    """Rescan with a progress bar on stderr. Where it is left off, the rows are right as far as it came."""
    done = Rescanned(first)
    going = rescan_chain(bootstrap(Role.CLI), chain, first=first, last=last, by=output.who())
    with output.progress() as progress:
        bar = progress.add_task(f"blocks of {chain}", total=last - first + 1)
        try:
            for done in going:
                progress.update(bar, completed=done.blocks)
        except BaseException:
            click.echo(f"left off; go on with: ctrip rescan {chain} --from {done.next_block} --to {last}", err=True)
            raise
    stored, orphaned = done.transfers_stored, done.transfers_orphaned
    click.echo(f"{done.blocks} blocks read again: {stored} transfers stored, {orphaned} orphaned")
