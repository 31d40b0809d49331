"""`ctrip payments`: why one is, or is not, paid."""

from typing import Any

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli import output
from ctrip.domain.evidence import evidence_object, explain
from ctrip.services import evidence


@click.group(help="Why one is, or is not, paid.")
def command() -> None:
    """Hold the verbs."""


@command.command()
@click.argument("payment_id")
@output.as_json()
def show(payment_id: str, as_json: bool) -> None:
    """Show all that is stored of a payment, and what it means."""
    found = evidence.gather(bootstrap(Role.CLI), payment_id)
    shown: dict[str, Any] = evidence_object(found)
    if as_json:
        output.print_json(shown | {"in_words": explain(found)})
        return
    output.print_pairs(f"payment {payment_id}", shown["payment"])
    click.echo()
    output.print_lines("in words", explain(found))
    click.echo()
    for title, columns in _TABLES.items():
        output.print_table(title, columns, [[each.get(column) for column in columns] for each in shown[title]])
        click.echo()
    read: dict[str, Any] = dict(shown["read"])
    ranges = read.pop("covered", [])
    output.print_pairs("read", read)
    click.echo()
    output.print_ranges("blocks read for its asset", ranges)


_TABLES = {
    "transfers": ("id", "token", "amount", "status", "confirmations", "counts", "reason", "block_number", "tx_hash"),
    "refused": ("reason", "chain", "block_number", "amount_atomic", "tx_hash", "endpoint"),
    "events": ("version", "type", "created_at", "id"),
    "deliveries": ("id", "event_id", "status", "attempts", "next_attempt_at", "last_status_code", "url"),
    "sweeps": (
        "id",
        "kind",
        "state",
        "amount",
        "nonce",
        "attempts",
        "mined_block",
        "held_reason",
        "failure",
        "tx_hash",
    ),
}
