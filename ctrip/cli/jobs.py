"""`ctrip jobs`: what operators asked for over HTTP (POST /admin/scan-now and the like), and what came of it."""

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli.output import as_json, print_json, print_pairs, print_table
from ctrip.domain.jobs import JobKind, JobStatus, job_object
from ctrip.services import jobs

_COLUMNS = ("id", "kind", "status", "requested_by", "created_at", "ended_at", "error")


@click.group(help="What operators asked for, and what came of it.")
def command() -> None:
    """Hold the verbs."""


@command.command("list")
@click.option("--kind", type=click.Choice([str(kind) for kind in JobKind]))
@click.option("--status", type=click.Choice([str(status) for status in JobStatus]))
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@as_json()
def list_(kind: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    found = [job_object(job) for job in jobs.matching(bootstrap(Role.CLI), kind=kind, status=status, limit=limit)]
    if as_json:
        print_json(found)
        return
    print_table("jobs", _COLUMNS, [[job[column] for column in _COLUMNS] for job in found])


@command.command()
@click.argument("job_id")
@as_json()
def show(job_id: str, as_json: bool) -> None:
    """Show one job, with its result."""
    found = jobs.find(bootstrap(Role.CLI), job_id)
    if as_json:
        print_json(found)
        return
    result = found.pop("result")
    print_pairs(f"job {job_id}", found)
    if result is not None:
        print_json(result)
