"""`ctrip payments`: why one is, or is not, paid."""

from typing import Any

import click

from ctrip.bootstrap import Role, bootstrap
from ctrip.cli import output
from ctrip.domain.addresses import NATIVE, hex_text
from ctrip.domain.events import event_object
from ctrip.domain.evidence import Evidence, explain
from ctrip.domain.money import format_amount
from ctrip.domain.payments import payment_object
from ctrip.domain.sweeps import Intent, IntentKind
from ctrip.domain.times import timestamp
from ctrip.domain.transfers import transfer_object
from ctrip.domain.webhooks import delivery_object
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
    shown = _objects(found)
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
    output.print_pairs("read", shown["read"])


_TABLES = {
    "transfers": ("id", "token", "amount", "status", "confirmations", "counts", "reason", "block_number", "tx_hash"),
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


def _objects(found: Evidence) -> dict[str, Any]:
    read_block = found.read_block(found.payment.chain_id)
    return {
        "payment": payment_object(found.payment, read_block=read_block),
        "transfers": [transfer_object(each, read_block=found.read_block(each.chain_id)) for each in found.transfers],
        "events": [event_object(event) for event in found.events],
        "deliveries": [delivery_object(delivery, attempts) for delivery, attempts in found.deliveries],
        "sweeps": _sweeps(found),
        "read": {}
        if found.cursor is None
        else {
            "chain": found.payment.chain,
            "start_block": found.cursor.start_block,
            "read_block": read_block,
            "head_block": found.cursor.head_block,
            "final_block": read_block - found.payment.required + 1,
            "final_block_time": found.final_block_time and timestamp(found.final_block_time),
            "stopped_reason": found.cursor.stopped_reason,
        },
    }


def _sweeps(found: Evidence) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = []
    for intent, attempts in found.sweeps:
        landed = intent.mined_tx_hash or (attempts[-1].tx_hash if attempts else None)
        shown.append(
            {
                "id": intent.id,
                "kind": str(intent.kind),
                "state": str(intent.state),
                "amount": _amount(found, intent),
                "nonce": intent.nonce,
                "attempts": len(attempts),
                "mined_block": intent.mined_block,
                "held_reason": intent.held_reason and str(intent.held_reason),
                "failure": intent.failure,
                "tx_hash": landed and hex_text(landed),
                "tx_hashes": [hex_text(attempt.tx_hash) for attempt in attempts],
            }
        )
    return shown


def _amount(found: Evidence, intent: Intent) -> str | None:
    if intent.amount is None:
        return None
    # A top-up carries the token of the sweep that it is for, and moves coin.
    moved = NATIVE if intent.kind is IntentKind.TOPUP else intent.token
    token = found.assets.get((intent.chain_id, moved))
    if token is None:
        return f"{intent.amount} base units"
    return f"{format_amount(intent.amount, token.decimals)} {token.symbol}"
