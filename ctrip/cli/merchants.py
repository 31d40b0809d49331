"""`ctrip merchants`: who takes payments."""

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli.output import as_json, print_json, print_pairs, who
from ctrip.services import merchants


@click.group(help="Who takes payments.")
def command() -> None:
    """Hold the verbs."""


@command.command()
@click.option("--name", required=True)
@click.option("--email", help="Where the merchant is written to.")
@click.option(
    "--tolerance-bps",
    type=click.IntRange(0, 9999),
    default=0,
    show_default=True,
    help="Basis points by which a payment may fall short.",
)
@as_json()
def create(name: str, email: str | None, tolerance_bps: int, as_json: bool) -> None:
    """Make a merchant. Its webhook secret is shown this once."""
    merchant_id, webhook_secret = merchants.create_merchant(
        bootstrap(Role.CLI), by=who(), name=name, email=email, tolerance_bps=tolerance_bps
    )
    made = {"id": merchant_id, "webhook_secret": webhook_secret}
    print_json(made) if as_json else print_pairs("merchant created", made)
