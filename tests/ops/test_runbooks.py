"""What docs/operations.md tells an operator to type exists: commands, their verbs and options."""

import re
import shlex

import click
import pytest

from ctrip.cli import cli
from tests.stack import ROOT

TEXT = (ROOT / "docs" / "operations.md").read_text()
TYPED = sorted(
    {found.split("#")[0].strip() for found in re.findall(r"(?:`|^)ctrip ([a-z][^`\n]*)(?:`|$)", TEXT, re.MULTILINE)}
)


@pytest.mark.parametrize("typed", TYPED)
def test_a_command_that_is_told_exists(typed: str) -> None:
    found: click.Command = cli
    words = shlex.split(typed.split(">", maxsplit=1)[0])
    context = click.Context(cli)
    while words and isinstance(found, click.Group) and not words[0].startswith(("-", "…")):
        below = found.get_command(context, words.pop(0))
        assert below is not None, typed
        found = below
    options = {option for parameter in found.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, typed


def test_there_are_commands_to_look_at() -> None:
    assert {"dlq", "loops", "chains", "sweeps", "queues", "jobs"} <= {typed.split()[0] for typed in TYPED}


def test_each_link_within_the_page_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
