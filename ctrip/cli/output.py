"""How answers look: tables for people, JSON for programs, and nothing in either that could steer a terminal."""

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])
_PIPE_WIDTH = 240
_RANGE = ("first_block", "last_block", "endpoint", "first_read_at", "last_read_at")


def as_json() -> Callable[[F], F]:
    """Return the option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")


def print_json(content: object) -> None:
    """Write JSON. What came from outside stays escaped."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=True, default=str))


def print_lines(title: str, lines: Iterable[str]) -> None:
    """Write a title and its lines, each with a dash."""
    click.echo(click.style(title, bold=True))
    for line in lines:
        click.echo(f"  - {clean(line)}")


def print_pairs(title: str, pairs: Mapping[str, object]) -> None:
    """Write one object as lines of name and value, without those that have none."""
    click.echo(click.style(title, bold=True))
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        if value not in (None, "", (), {}):
            click.echo(f"  {name.ljust(width)}  {clean(value)}")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; where there are no rows, say so."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # Folded, never cut: an id that is not whole finds nothing. That of the row stays in one piece, to be copied.
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in rows:
        table.add_row(*(clean(value) for value in row))
    if table.row_count == 0:
        click.echo(f"{click.style(title, bold=True)}: none")
        return
    _console().print(table)


def print_ranges(title: str, ranges: Iterable[Mapping[str, object]]) -> None:
    """Write ranges of blocks that were read, as `covered_object` renders them."""
    print_table(title, _RANGE, [[each[column] for column in _RANGE] for each in ranges])


def clean(value: object) -> str:
    """Write a value for a terminal: what a webhook's receiver answered could otherwise move its cursor."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "·" for character in text)


def progress() -> Progress:
    """Return a progress bar on stderr, so that it never gets into what is piped."""
    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _console() -> Console:
    # Rich takes a pipe for a terminal of 80 columns; who reads from one wants a row to be a line.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)


def who() -> str:
    """Name whoever runs this command, for the audit log."""
    return f"cli:{getpass.getuser()}"
