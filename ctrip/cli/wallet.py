"""`ctrip wallet`: the seed phrase and what is derived from it. Best run on a machine that is no server."""

import sys
from pathlib import Path

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli import output
from ctrip.cli.files import new_secret_file
from ctrip.services import wallet
from ctrip.services.wallet import WalletReport
from ctrip.settings import read_mnemonic

_NEW_FILE = click.Path(path_type=Path, dir_okay=False)
_OLD_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.group(help="The seed phrase and what is derived from it.")
def command() -> None:
    """Hold the verbs."""


@command.command()
@click.option(
    "--mnemonic-file", type=_NEW_FILE, help="Write the phrase to a new file of mode 0600, and do not show it."
)
@click.option("--xpub-file", type=_NEW_FILE, help="Write the public key to a new file.")
def init(mnemonic_file: Path | None, xpub_file: Path | None) -> None:
    """Make a new wallet: 24 words that are shown this once, or written to a file."""
    with new_secret_file(mnemonic_file) as keep_mnemonic, new_secret_file(xpub_file) as keep_xpub:
        made = wallet.create()
        keep_mnemonic(made.mnemonic)
        keep_xpub(made.xpub)
    if mnemonic_file is None:
        click.echo("Write these words down and keep them where no server is. Who has them has the money:\n")
        click.echo(f"  {made.mnemonic}\n")
    else:
        click.echo(f"the seed phrase is in {mnemonic_file}; the sweeper reads it as WALLET_MNEMONIC_FILE")
    if xpub_file is None:
        click.echo(f"WALLET_XPUB={made.xpub}")
    else:
        click.echo(f"the public key is in {xpub_file}; api and sweeper read it as WALLET_XPUB_FILE")


@command.command()
@click.option("--mnemonic-file", type=_OLD_FILE, help="Where the phrase is; else WALLET_MNEMONIC, else you are asked.")
def xpub(mnemonic_file: Path | None) -> None:
    """Print the WALLET_XPUB of a seed phrase."""
    mnemonic = _mnemonic(mnemonic_file) or click.prompt("seed phrase", hide_input=True, err=True)
    click.echo(wallet.xpub_of(mnemonic))


@command.command()
@click.option("--mnemonic-file", type=_OLD_FILE, help="Also see that this phrase is WALLET_XPUB's.")
@output.as_json()
def check(mnemonic_file: Path | None, as_json: bool) -> None:
    """Derive every issued address again and compare. The exit code is 1 where one differs."""
    ctx = bootstrap(Role.CLI)
    mnemonic = _mnemonic(mnemonic_file)
    with output.progress() as progress:
        task = progress.add_task("addresses", total=None)
        report = wallet.check(
            ctx, mnemonic=mnemonic, on_progress=lambda done, of: progress.update(task, completed=done, total=of)
        )
    if as_json:
        output.print_json(vars(report))
    else:
        _show(report, has_phrase=mnemonic is not None)
    sys.exit(0 if report.is_good else 1)


@command.command()
@click.argument("count", type=click.IntRange(1, wallet.MAX_SKIP))
def advance(count: int) -> None:
    """Skip COUNT indexes, after a backup was restored: addresses issued since it was made are in use.

    The API must not run meanwhile: it has some indexes in hand.
    """
    last = wallet.advance(bootstrap(Role.CLI), count, by=output.who())
    click.echo(f"{count} indexes are skipped; the next address is at index {last + 1}")


def _mnemonic(path: Path | None) -> str | None:
    """Return the phrase of the file, or of the environment; None where there is none."""
    return read_mnemonic() if path is None else read_mnemonic({"WALLET_MNEMONIC_FILE": str(path)})


def _show(report: WalletReport, *, has_phrase: bool) -> None:
    if has_phrase:
        click.echo("the seed phrase is WALLET_XPUB's")
    click.echo(f"{report.checked} addresses of wallet {report.fingerprint} checked, {report.wrong} are wrong")
    for fingerprint, count in report.others.items():
        click.echo(f"{count} addresses are of another wallet, {fingerprint}: this wallet's sweeper cannot empty them")
    if report.mismatches:
        rows = [(each.index, each.issued, each.derived) for each in report.mismatches]
        output.print_table("wrong", ("index", "issued", "derived"), rows)
