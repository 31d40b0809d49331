"""`ctrip dlq`: dead letters, which wait until somebody has looked."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli import output
from ctrip.cli.spans import Span
from ctrip.domain.dead_letters import (
    MOST_IDS,
    OLDEST,
    Count,
    DeadLetter,
    Filter,
    Reason,
    State,
    dead_letter_object,
)
from ctrip.services import dead_letters

F = TypeVar("F", bound=Callable[..., Any])
_AGE = Span(name="age", most=OLDEST)


def _filtered(command: F) -> F:
    """Add the options that say which letters are meant."""
    options = (
        click.option("--queue", help="The queue it died in."),
        click.option("--actor", help="The actor it was for."),
        click.option("--reason", type=click.Choice([str(reason) for reason in Reason]), help="Why it died."),
        click.option("--exception", help="The exception's class, or its beginning."),
        click.option("--older-than", type=_AGE, help="It died at least that long ago: 30m, 12h, 7d."),
        click.option("--newer-than", type=_AGE, help="It died less than that long ago."),
        click.option("--text", "q", help="What stands in its exception, arguments or ids."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(help="Dead letters.")
def command() -> None:
    """Hold the verbs."""


@command.command("list")
@click.argument("letter_ids", nargs=-1)
@_filtered
@click.option("--state", type=click.Choice([str(state) for state in State]), help="Unless given, all but the purged.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--after", help="Only letters older than this id.")
@output.as_json()
def list_(
    letter_ids: tuple[str, ...], state: str | None, limit: int, after: str | None, as_json: bool, **wanted: Any
) -> None:
    """List dead letters, newest first."""
    chosen = _filter(letter_ids, state=state and State(state), **wanted)
    found = dead_letters.matching(bootstrap(Role.CLI), chosen, limit=limit, after=after)
    if as_json:
        output.print_json([dead_letter_object(letter) for letter in found])
        return
    columns = ("id", "died at", "queue", "actor", "row", "reason", "state", "exception")
    output.print_table("dead letters", columns, [_row(letter) for letter in found])


@command.command()
@click.argument("letter_id")
@output.as_json()
def show(letter_id: str, as_json: bool) -> None:
    """Show one dead letter, with its traceback."""
    letter = dead_letters.show(bootstrap(Role.CLI), letter_id)
    shown = dead_letter_object(letter)
    if as_json:
        output.print_json(shown)
        return
    traceback = str(shown.pop("traceback") or "")
    # What cannot be read as arguments is shown as it came.
    shown["message"] = None if letter.args is not None else letter.message
    output.print_pairs(f"dead letter {letter_id}", shown)
    for line in traceback.splitlines():
        click.echo(f"  {output.clean(line)}")


@command.command()
@click.argument("letter_ids", nargs=-1)
@_filtered
@click.option("--all", "everything", is_flag=True, help="Every open letter.")
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
def replay(letter_ids: tuple[str, ...], everything: bool, dry_run: bool, **wanted: Any) -> None:
    """Ask for dead letters to be sent again; the scheduler does it, each once."""
    count = _act(dead_letters.request_replay, _some(letter_ids, everything, **wanted), dry_run=dry_run)
    sendable = count.matched - count.unreadable
    click.echo(
        f"{count.matched} match, " + (f"{sendable} would" if dry_run else f"{count.done} will") + " be sent again"
    )
    if count.unreadable:
        click.echo(f"{count.unreadable} cannot be sent: nobody can read their messages (--reason undecodable)")


@command.command()
@click.argument("letter_ids", nargs=-1)
@_filtered
@click.option("--all", "everything", is_flag=True, help="Every open letter.")
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
def purge(letter_ids: tuple[str, ...], everything: bool, dry_run: bool, **wanted: Any) -> None:
    """Close dead letters that nobody needs; what they concerned stays as it is."""
    count = _act(dead_letters.purge, _some(letter_ids, everything, **wanted), dry_run=dry_run)
    click.echo(f"{count.matched} match, " + (f"{count.matched} would be purged" if dry_run else f"{count.done} purged"))


def _act(act: Callable[..., Count], wanted: Filter, *, dry_run: bool) -> Count:
    ctx = bootstrap(Role.CLI)
    with output.progress() as progress:
        task = progress.add_task("dead letters", total=None)
        return act(
            ctx,
            wanted,
            by=output.who(),
            dry_run=dry_run,
            on_progress=lambda done, of: progress.update(task, completed=done, total=of),
        )


def _some(letter_ids: tuple[str, ...], everything: bool, **wanted: Any) -> Filter:
    chosen = _filter(letter_ids, **wanted)
    if chosen == Filter() and not everything:
        raise click.UsageError("say which: ids, --queue, --actor, --reason, --exception, an age or --text; or --all")
    return chosen


def _filter(letter_ids: tuple[str, ...], **wanted: Any) -> Filter:
    if len(letter_ids) > MOST_IDS:
        raise click.UsageError(f"{MOST_IDS} ids at a time")
    return Filter(ids=letter_ids, **wanted)


def _row(letter: DeadLetter) -> tuple[object, ...]:
    state = "replay asked" if letter.state is State.OPEN and letter.replay_requested_at else letter.state
    died_at = f"{letter.died_at:%Y-%m-%d %H:%M:%S}"
    exception = (letter.exception or "")[:80]
    return letter.id, died_at, letter.queue, letter.actor, letter.row_id, letter.reason, state, exception
