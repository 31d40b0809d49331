"""One of everything that has an id, for the tests that ask every route for something that is there."""

import json
import re
from typing import Any

from ctrip.context import Context
from ctrip.database import payments as payment_rows
from ctrip.domain.ids import Prefix
from ctrip.services.loops import ensure_loops
from ctrip.web.schemas.jobs import AN_ADDRESS
from tests.api import READ_BLOCK, Api
from tests.contract import ID
from tests.factories import make_chain, read_to, store_rates, store_transfer
from tests.web.test_admin_dead_letters import bury

PREFIXES = {
    "payment_id": "pay",
    "event_id": "evt",
    "delivery_id": "whd",
    "endpoint_id": "whe",
    "key_id": "key",
    "letter_id": "dlt",
    "job_id": "job",
    "merchant_id": "mer",
}
"""What kind of object a parameter names."""


def make_merchants_objects(shop: Api, ctx: Context) -> dict[str, str]:
    """Make one of everything that a merchant has; returns ids by their prefix. The payment has two transfers.

    `price` is a payment whose asset can be chosen.
    """
    payment = shop.ask(webhook_url="https://shop.example/hooks", metadata={"a": 1, "b": 0.5, "c": True, "d": "e"})
    shop.ask(token=None, order_id="2")
    transfer = ctx.new_id(Prefix.TRANSFER)
    with ctx.sessions.begin() as session:
        stored = payment_rows.find(session, payment["id"])
        assert stored is not None
        store_rates(session, USDC_EUR="0.9", ETH_EUR="3000")
        store_transfer(session, stored, 12_500_000, 18, id=transfer)
        store_transfer(session, stored, 5, 18, id=ctx.new_id(Prefix.TRANSFER), log_index=1, token=b"\0" * 20)
        read_to(session, READ_BLOCK)
        payment_rows.reassess(session, [stored.id], chains={31337: make_chain()}, new_id=ctx.new_id)
    assets = [{"chain": "anvil", "token": "USDC"}, {"chain": "anvil"}]
    priced = shop.post("/api/v1/payments", {"price": {"amount": "49.90", "currency": "EUR"}, "assets": assets}).json
    endpoint = shop.post("/api/v1/webhook_endpoints", {"url": "https://shop.example/hooks", "events": ["*"]}).json
    shop.post(f"/api/v1/webhook_endpoints/{endpoint['id']}/test")
    return {
        "pay": payment["id"],
        "price": priced["id"],
        "trf": transfer,
        "evt": shop.get("/api/v1/events").json["data"][0]["id"],
        "whd": shop.get("/api/v1/webhook_deliveries").json["data"][0]["id"],
        "whe": endpoint["id"],
        "mer": shop.merchant_id,
        "address": payment["address"],
    }


def make_operators_objects(operator: Api, ctx: Context) -> dict[str, str]:
    """Make one of everything that operators see alone; returns ids by their prefix."""
    ensure_loops(ctx)
    bury(ctx, "one")
    return {
        "key": operator.post("/admin/keys", {"scopes": ["admin"]}).json["id"],
        "dlt": operator.get("/admin/dead-letters").json["data"][0]["id"],
        "loop": "listener:31337",
        "job": operator.post("/admin/scan-now", {"chain": "anvil"}).json["id"],
    }


def fill(template: str, made: dict[str, str]) -> str:
    """A path of the document with ids of what was made; of what was not made with one that nothing has."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "name":
            return made.get("loop", "listener:1")
        prefix = PREFIXES[match[1]] if not template.endswith(("quotes", "choose")) else "price"
        return made.get(prefix, f"{PREFIXES[match[1]]}_{ID}")

    return re.sub(r"\{(\w+)\}", value, template)


def fit(example: Any, made: dict[str, str]) -> Any:
    """An example of the document with what was made in the place of what it only names."""
    text = re.sub(rf"(\w{{3}})_{ID}", lambda match: made[match[1]], json.dumps(example))
    return json.loads(text.replace(AN_ADDRESS, made["address"]))
