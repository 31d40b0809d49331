"""`ctrip rates`: what each source says that coins are worth, and on what they agree."""

import sys

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli import output
from ctrip.domain.rates import plain, quoted_object
from ctrip.domain.times import timestamp
from ctrip.services import rates
from ctrip.services.rates import Report

_COLUMNS = ("chain", "token", "currency", "source", "rate", "age", "agreed on")


@click.command(
    help="Show what each source says that assets are worth, how old that is, and on what they agree, or why they do "
    "not. The exit code is 1 where some asset has no rate."
)
@output.as_json()
def command(as_json: bool) -> None:
    """Show it as tables, or as JSON."""
    ctx = bootstrap(Role.CLI)
    if not ctx.settings.rates.sources:
        click.echo("prices are off: RATE_SOURCES names no source", err=True)
    report = rates.report(ctx)
    if as_json:
        output.print_json([quoted_object(quoted, report.taken_at) for quoted in report.quoted])
    else:
        output.print_table("rates", _COLUMNS, _rows(report))
        for name, source in report.sources.items():
            if source.failing_since is not None:
                since = timestamp(source.failing_since)
                click.echo(f"{name} fails since {since}: {output.clean(source.last_error)}", err=True)
        for quoted in report.quoted:
            if quoted.refusal is not None:
                click.echo(output.clean(quoted.refusal), err=True)
    sys.exit(0 if all(quoted.rate is not None for quoted in report.quoted) else 1)


def _rows(report: Report) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for quoted in report.quoted:
        agreed = "nothing" if quoted.rate is None else plain(quoted.rate.rate)
        asset = (quoted.chain, quoted.symbol, quoted.currency)
        rows += [
            (*asset, told.source, plain(told.rate), f"{int((report.taken_at - told.as_of).total_seconds())} s", agreed)
            for told in quoted.told
        ] or [(*asset, "", "", "", agreed)]
    return rows
