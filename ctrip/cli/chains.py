"""`ctrip chains`: are the nodes there and the tokens as listed, and what to do where a reorg stopped a chain."""

import dataclasses
import sys

import click

from ctrip.bootstrap import Role, bootstrap, endpoint_clients
from ctrip.cli.output import as_json, print_json, print_table, who
from ctrip.services import endpoints, resuming
from ctrip.services.endpoints import ChainReport


@click.group(help="Nodes and tokens.")
def command() -> None:
    """Hold the verbs."""


@command.command()
@as_json()
def check(as_json: bool) -> None:
    """Ask every endpoint of every chain. The exit code is 1 where something is wrong."""
    ctx = bootstrap(Role.CLI)
    reports = endpoints.check(ctx, endpoint_clients(ctx.settings))
    if as_json:
        print_json([dataclasses.asdict(report) | {"is_good": report.is_good} for report in reports])
    else:
        columns = ("chain", "chain id", "endpoint", "head", "read up to", "finding")
        print_table("chains", columns, [row for report in reports for row in _rows(report)])
    sys.exit(0 if all(report.is_good for report in reports) else 1)


@command.command()
@click.argument("name")
@click.option("--from", "from_block", type=click.IntRange(min=0), required=True, help="The last block below the fork.")
def resume(name: str, from_block: int) -> None:
    """Read a chain that a deep reorg stopped again, from the block after BLOCK. What stood above it is taken back."""
    resuming.resume_chain(bootstrap(Role.CLI), name, from_block=from_block, by=who())
    click.echo(f"{name} is read on after block {from_block}")


def _rows(report: ChainReport) -> list[tuple[object, ...]]:
    read = "nothing yet" if report.read_block is None else report.read_block
    rows: list[tuple[object, ...]] = [
        (report.chain, report.chain_id, each.endpoint, each.head_block, read, "; ".join(each.faults) or "good")
        for each in report.endpoints
    ]
    if not report.enabled:
        rows.append((report.chain, report.chain_id, "", "", read, "switched off"))
    rows += [(report.chain, report.chain_id, "", "", read, fault) for fault in report.faults]
    return rows
