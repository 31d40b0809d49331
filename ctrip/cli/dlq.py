"""`ctrip dlq`: dead letters, which wait until somebody has looked."""

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli.output import as_json, clean, print_json, print_pairs, print_table
from ctrip.domain.dead_letters import Filter, Reason, dead_letter_object
from ctrip.services import dead_letters


@click.group(help="Dead letters.")
def command() -> None:
    """Hold the verbs."""


@command.command("list")
@click.option("--queue")
@click.option("--actor")
@click.option("--reason", type=click.Choice([str(reason) for reason in Reason]))
@click.option("--text", help="What stands in exception, arguments or ids.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@as_json()
def list_(
    queue: str | None,
    actor: str | None,
    reason: str | None,
    text: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List dead letters, newest first."""
    wanted = Filter(queue=queue, actor=actor, reason=reason, q=text)
    found = [dead_letter_object(letter) for letter in dead_letters.matching(bootstrap(Role.CLI), wanted, limit=limit)]
    if as_json:
        print_json(found)
        return
    columns = ("id", "queue", "actor", "reason", "row_id", "died_at", "replays", "replayed_at", "exception")
    print_table("dead letters", columns, [[_short(letter[column]) for column in columns] for letter in found])


@command.command()
@click.argument("letter_id")
@as_json()
def show(letter_id: str, as_json: bool) -> None:
    """Show one dead letter, with its traceback."""
    letter = dead_letter_object(dead_letters.show(bootstrap(Role.CLI), letter_id))
    if as_json:
        print_json(letter)
        return
    traceback = str(letter.pop("traceback") or "")
    print_pairs(f"dead letter {letter_id}", letter)
    for line in traceback.splitlines():
        click.echo(f"  {clean(line)}")


@command.command()
@click.argument("letter_ids", nargs=-1)
@click.option("--queue")
@click.option("--actor")
@click.option("--reason", type=click.Choice([str(reason) for reason in Reason]))
@click.option("--all", "everything", is_flag=True, help="Replay whatever was not replayed yet.")
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
def replay(
    letter_ids: tuple[str, ...],
    queue: str | None,
    actor: str | None,
    reason: str | None,
    everything: bool,
    dry_run: bool,
) -> None:
    """Ask for dead letters to be sent again; the scheduler does it."""
    wanted = Filter(queue=queue, actor=actor, reason=reason, ids=letter_ids)
    if wanted == Filter() and not everything:
        raise click.UsageError("say which: ids, --queue, --actor, --reason, or --all")
    count = dead_letters.request_replay(bootstrap(Role.CLI), wanted, dry_run=dry_run)
    click.echo(f"{count.matched} match, {count.done} will be sent again")


def _short(value: object) -> object:
    return value[:80] if isinstance(value, str) else value
