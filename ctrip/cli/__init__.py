"""`ctrip`: the operator's tool. One file per noun; `python -m ctrip.cli` runs it from a checkout."""

import sys
from importlib import import_module
from typing import cast

import click

from ctrip.errors import CtripError, InvalidValue
from ctrip.log import redact

NOUNS = {
    "db": "the schema: upgrade; the users of processes: logins",
    "merchants": "create",
    "keys": "API keys: create, list, revoke",
    "chains": "check nodes and tokens, resume one that stopped",
    "coverage": "which blocks were read, for which asset, when and from which endpoint",
    "rescan": "read blocks of a chain again, and put right what differs",
    "payments": "show the evidence of one",
    "rates": "what each source says that coins are worth, and what they agree on",
    "sweeps": "resume one that is held",
    "wallet": "init, xpub, check, advance",
    "queues": "how full they are",
    "loops": "when each ran last; pause, resume, run",
    "jobs": "what operators asked for: list, show",
    "dlq": "dead letters: list, show, replay, purge",
    "audit-log": "who did what",
    "audit": "check every invariant",
    "secrets": "make a SECRETS_KEY",
}


class _Nouns(click.Group):
    """Imports a noun's file when it is called for: `db upgrade` does not pay for what the wallet tools import."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        if cmd_name not in NOUNS:
            return None
        return cast("click.Command", import_module(f"ctrip.cli.{cmd_name.replace('-', '_')}").command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's signature)
        with formatter.section("Commands"):
            formatter.write_dl(list(NOUNS.items()))


@click.group(cls=_Nouns, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Operate a cTrip: settings come from the environment, as for its servers."""


def main() -> None:
    """Run the tool. What is wrong is one message on stderr and an exit code that is not 0; never a traceback for it."""
    try:
        _check_text(sys.argv)
        cli.main(prog_name="ctrip", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("aborted", err=True)
        sys.exit(1)
    except CtripError as error:
        click.echo(f"ctrip: {redact(error.detail)}", err=True)
        sys.exit(1)


def _check_text(arguments: list[str]) -> None:
    """Raise InvalidValue where an argument is no text: nothing that is stored or printed could hold it."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InvalidValue(f"the argument {argument!a} is not UTF-8") from None
