"""`ctrip audit`: every invariant, against the database and the chains."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli import output
from ctrip.services import audit

_LOG = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(help="Check every invariant, against database and chains. The exit code is 1 where one does not hold.")
@click.option("--log", "logs", multiple=True, type=_LOG, help="Also look for secrets in this file; several times.")
@output.as_json()
def command(logs: tuple[Path, ...], as_json: bool) -> None:
    """Audit, with progress on stderr."""
    ctx = bootstrap(Role.CLI)
    with output.progress() as progress:
        tasks = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what)
            progress.update(tasks[what], completed=done, total=total or None)

        found = audit.audit(ctx, on_progress=tell, texts=_lines(logs))
    if as_json:
        output.print_json([dataclasses.asdict(violation) for violation in found])
    elif not found:
        click.echo("every invariant holds")
    else:
        rows = [(each.invariant, each.sentence, " ".join(each.ids)) for each in found]
        output.print_table(f"{len(found)} violations", ("invariant", "what was found", "ids"), rows)
    sys.exit(1 if found else 0)


def _lines(logs: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    """Read files line by line: they may be large. A line is named by its file and number."""
    for path in logs:
        with path.open(errors="replace") as file:
            for number, line in enumerate(file, start=1):
                yield f"{path}:{number}", line
