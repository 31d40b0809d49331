"""Payments over HTTP: what an answer holds, lists page by page, the evidence, and whose it is."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from ctrip.context import Context
from ctrip.database import payments as payment_rows
from ctrip.database import webhooks
from ctrip.database.models import deposit_addresses, webhook_attempts, webhook_deliveries
from ctrip.database.models import payments as payment_table
from ctrip.domain.addresses import checksum_address
from ctrip.domain.ids import Prefix
from ctrip.web import create_app
from tests.api import READ_BLOCK, Api, problem
from tests.factories import OTHER_TOKEN, TOKEN, make_chain, read_to, store_transfer

pytestmark = pytest.mark.infra


def test_a_new_payment_is_answered_as_the_contract_says(shop: Api) -> None:
    asked = {
        "chain": "anvil",
        "token": "USDC",
        "amount": "12.50",
        "order_id": "1001",
        "expires_in": 1800,
        "confirmations": 5,
        "customer_email": "buyer@example.com",
        "metadata": {"plan": "pro", "seats": 3, "rate": 0.5, "trial": False, "größe": "XL"},
        "webhook_url": "https://shop.example/hooks",
    }
    answer = shop.post("/api/v1/payments", asked)
    assert (answer.status_code, answer.content_type) == (201, "application/json")
    payment = answer.json
    created = datetime.fromisoformat(payment["created_at"])
    assert abs(datetime.now(UTC) - created) < timedelta(seconds=10)
    assert payment == {
        "id": payment["id"],
        "object": "payment",
        "status": "pending",
        "amount_status": "none",
        "timing": None,
        "settlement": "none",
        "version": 1,
        "chain": "anvil",
        "chain_id": 31337,
        "token": "USDC",
        "token_address": checksum_address(TOKEN),
        "decimals": 6,
        "amount": "12.5",
        "amount_atomic": "12500000",
        "received": "0",
        "received_atomic": "0",
        "confirmed": "0",
        "confirmed_atomic": "0",
        "address": payment["address"],
        "payment_uri": None,
        "checkout_url": None,
        "confirmations": 0,
        "confirmations_required": 5,
        "price": None,
        "assets": None,
        "quote": None,
        "order_id": "1001",
        "customer_email": "buyer@example.com",
        "metadata": asked["metadata"],
        "webhook_url": "https://shop.example/hooks",
        "created_at": payment["created_at"],
        "expires_at": (created + timedelta(seconds=1800)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "detected_at": None,
        "confirmed_at": None,
        "settled_at": None,
    }
    assert shop.get(f"/api/v1/payments/{payment['id']}").json == payment


def test_the_native_coin_is_asked_for_by_null_or_by_its_symbol(shop: Api) -> None:
    for token in (None, "ETH", "eth"):
        payment = shop.ask("0.000000000000000001", token=token)
        assert (payment["token"], payment["token_address"], payment["amount_atomic"]) == (None, None, "1")
        assert payment["payment_uri"] == f"ethereum:{payment['address']}@31337?value=1"


def test_an_amount_may_be_anything_that_fits_into_256_bits(shop: Api) -> None:
    most = str(2**256 - 1)
    whole, fraction = most[:-18], most[-18:]
    assert shop.ask(f"{whole}.{fraction}", token=None)["amount_atomic"] == most


def test_a_payment_takes_the_merchants_tolerance_unless_it_names_its_own(
    api_ctx: Context, as_merchant: Callable[..., Api]
) -> None:
    patient = as_merchant(tolerance_bps=100)
    default, own = patient.ask(), patient.ask(underpayment_tolerance=0)
    with api_ctx.sessions.begin() as session:
        stored = [payment_rows.find(session, payment["id"]) for payment in (default, own)]
    assert [payment and payment.tolerance_bps for payment in stored] == [100, 0]


def test_a_creation_owes_the_created_event_to_the_payments_url(shop: Api) -> None:
    payment = shop.ask(webhook_url="https://shop.example/hooks")
    (event,) = shop.get(f"/api/v1/payments/{payment['id']}/events").json["data"]
    assert (event["type"], event["version"]) == ("payment.created", 1)
    assert event["data"] == {"payment": payment, "previous_status": None}
    (delivery,) = shop.get(f"/api/v1/payments/{payment['id']}/deliveries").json["data"]
    assert (delivery["event_id"], delivery["status"], delivery["history"]) == (event["id"], "pending", [])


def test_a_list_is_read_page_by_page_newest_first(shop: Api, rival: Api) -> None:
    made = [shop.ask(order_id=str(n))["id"] for n in range(5)]
    rival.ask()
    seen, path = [], "/api/v1/payments?limit=2"
    while True:
        page = shop.get(path).json
        assert page["object"] == "list" and len(page["data"]) <= 2
        seen += [payment["id"] for payment in page["data"]]
        if not page["has_more"]:
            break
        assert page["next_cursor"] == seen[-1]
        path = f"/api/v1/payments?limit=2&starting_after={page['next_cursor']}"
    assert seen == made[::-1]
    assert page["next_cursor"] is None


def test_a_page_that_is_exactly_full_is_the_last(shop: Api) -> None:
    shop.ask(), shop.ask()
    page = shop.get("/api/v1/payments?limit=2").json
    assert (len(page["data"]), page["has_more"], page["next_cursor"]) == (2, False, None)


def test_lists_are_filtered(shop: Api, api_ctx: Context) -> None:
    first, second = shop.ask(order_id="a"), shop.ask(order_id="b")
    shop.post(f"/api/v1/payments/{second['id']}/cancel")
    with api_ctx.sessions.begin() as session:
        moved = sa.update(payment_table).where(payment_table.c.id == first["id"])
        session.execute(moved.values(created_at=datetime(2026, 1, 1, tzinfo=UTC)))
    cases = {
        "status=pending": [first],
        "status=canceled": [second],
        "status=settled": [],
        "order_id=a": [first],
        "order_id=c": [],
        "chain=anvil": [second, first],
        "chain=elsewhere": [],
        "created_before=2026-01-01T00:00:01Z": [first],
        "created_before=2026-01-01T01:00:01%2B01:00": [first],
        "created_before=2026-01-01T00:00:00Z": [],
        "created_after=2026-01-01T00:00:00Z": [second],
        "status=pending&order_id=b": [],
    }
    for query, expected in cases.items():
        found = [payment["id"] for payment in shop.get(f"/api/v1/payments?{query}").json["data"]]
        assert found == [payment["id"] for payment in expected], query


def test_a_pending_payment_is_canceled_once(shop: Api) -> None:
    payment = shop.ask()
    canceled = shop.post(f"/api/v1/payments/{payment['id']}/cancel")
    assert (canceled.status_code, canceled.json["status"], canceled.json["version"]) == (200, "canceled", 2)
    assert problem(shop.post(f"/api/v1/payments/{payment['id']}/cancel"))[:2] == (409, "conflict")
    types = [event["type"] for event in shop.get(f"/api/v1/payments/{payment['id']}/events").json["data"]]
    assert types == ["payment.created", "payment.canceled"]


def test_transfers_are_the_evidence_in_the_order_of_the_blocks(shop: Api, api_ctx: Context) -> None:
    payment = shop.ask()
    with api_ctx.sessions.begin() as session:
        stored = payment_rows.find(session, payment["id"])
        assert stored is not None
        for block, log_index in ((19, 1), (18, 7), (18, 2)):
            store_transfer(session, stored, 5_000_000, block, id=api_ctx.new_id(Prefix.TRANSFER), log_index=log_index)
        other = {"token": OTHER_TOKEN, "symbol": "DAI", "decimals": 18, "is_payable": True}
        store_transfer(session, stored, 7, 20, id=api_ctx.new_id(Prefix.TRANSFER), **other)
        read_to(session, READ_BLOCK)
        payment_rows.reassess(session, [stored.id], chains={31337: make_chain()}, new_id=api_ctx.new_id)
    path = f"/api/v1/payments/{payment['id']}/transfers"
    seen = shop.get(path).json["data"]
    assert [(t["block_number"], t["log_index"]) for t in seen] == [(18, 2), (18, 7), (19, 1), (20, 0)]
    assert [t["confirmations"] for t in seen] == [3, 3, 2, 1]
    assert [t["status"] for t in seen] == ["final", "final", "seen", "seen"]
    assert [(t["counts"], t["reason"]) for t in seen] == [(True, None)] * 3 + [(False, "asset")]
    first = shop.get(f"{path}?limit=3").json
    rest = shop.get(f"{path}?limit=3&starting_after={first['next_cursor']}").json
    assert (first["data"] + rest["data"], first["has_more"], rest["has_more"]) == (seen, True, False)
    assert shop.get(f"/api/v1/payments/{payment['id']}").json["status"] == "detected"


def test_events_of_a_payment_are_paged_by_version(shop: Api) -> None:
    payment = shop.ask()
    shop.post(f"/api/v1/payments/{payment['id']}/cancel")
    path = f"/api/v1/payments/{payment['id']}/events?limit=1"
    first = shop.get(path).json
    second = shop.get(f"{path}&starting_after={first['next_cursor']}").json
    assert [page["data"][0]["version"] for page in (first, second)] == [1, 2]
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_events_of_a_merchant_are_listed_newest_first(shop: Api, rival: Api) -> None:
    payment = shop.ask()
    shop.post(f"/api/v1/payments/{payment['id']}/cancel")
    rival.ask()
    events = shop.get("/api/v1/events").json["data"]
    assert [event["type"] for event in events] == ["payment.canceled", "payment.created"]
    older = shop.get(f"/api/v1/events?starting_after={events[0]['id']}").json["data"]
    assert older == events[1:]
    assert shop.get(f"/api/v1/events/{events[0]['id']}").json == events[0]


def test_a_delivery_tells_all_its_attempts(shop: Api, api_ctx: Context) -> None:
    payment = shop.ask(webhook_url="https://shop.example/hooks")
    (pending,) = shop.get("/api/v1/webhook_deliveries").json["data"]
    with api_ctx.sessions.begin() as session:
        assert webhooks.find(session, pending["id"], merchant_id=shop.merchant_id) is not None
        for number, status_code in ((1, 503), (2, None)):
            values = {"number": number, "at": datetime(2026, 11, 22, 14, number, tzinfo=UTC), "duration_ms": 41}
            more = {"status_code": status_code, "error": None if status_code else "timed out", "response": "busy"}
            session.execute(webhook_attempts.insert().values(delivery_id=pending["id"], **values, **more))
        row = sa.update(webhook_deliveries).where(webhook_deliveries.c.id == pending["id"])
        session.execute(row.values(status="failed", next_attempt_at=None, attempts=2, last_status_code=503))
    delivery = shop.get(f"/api/v1/webhook_deliveries/{pending['id']}").json
    assert (delivery["status"], delivery["attempts"], delivery["next_attempt_at"]) == ("dead", 2, None)
    assert [(a["at"], a["status_code"], a["error"]) for a in delivery["history"]] == [
        ("2026-11-22T14:01:00Z", 503, None),
        ("2026-11-22T14:02:00Z", None, "timed out"),
    ]
    assert shop.get(f"/api/v1/payments/{payment['id']}/deliveries").json["data"] == [delivery]


def test_another_merchants_objects_are_not_there_on_any_route(shop: Api, rival: Api) -> None:
    payment = shop.ask(webhook_url="https://shop.example/hooks")
    event = shop.get("/api/v1/events").json["data"][0]
    delivery = shop.get("/api/v1/webhook_deliveries").json["data"][0]
    answers: list[Any] = [
        rival.get(f"/api/v1/payments/{payment['id']}"),
        rival.post(f"/api/v1/payments/{payment['id']}/cancel"),
        rival.post(f"/api/v1/payments/{payment['id']}/accept"),
        rival.get(f"/api/v1/payments/{payment['id']}/transfers"),
        rival.get(f"/api/v1/payments/{payment['id']}/events"),
        rival.get(f"/api/v1/payments/{payment['id']}/deliveries"),
        rival.get(f"/api/v1/events/{event['id']}"),
        rival.get(f"/api/v1/webhook_deliveries/{delivery['id']}"),
    ]
    assert [problem(answer)[:2] for answer in answers] == [(404, "not_found")] * len(answers)
    for path in ("payments", "events", "webhook_deliveries", f"payments?starting_after={payment['id'][:-1]}Z"):
        assert rival.get(f"/api/v1/{path}").json["data"] == []
    assert shop.get(f"/api/v1/payments/{payment['id']}").json == payment, "and nothing happened to them"


def test_chains_tell_their_assets_and_how_far_they_were_read(shop: Api) -> None:
    anvil, fresh, resting = shop.get("/api/v1/chains").json["data"]
    assert (anvil["name"], anvil["status"], anvil["read_block"]) == ("anvil", "ready", READ_BLOCK)
    assert (anvil["final_block"], anvil["lag_blocks"], anvil["confirmations"]) == (READ_BLOCK - 2, 0, 3)
    assert {token["symbol"]: token["payable"] for token in anvil["tokens"]} == {
        "USDC": True,
        "DAI": True,
        "ODD": False,
        "OFF": False,
    }
    assert {token["symbol"]: token["currencies"] for token in anvil["tokens"]} == {
        "USDC": ["EUR", "JPY"],
        "DAI": [],
        "ODD": [],
        "OFF": [],
    }
    assert (anvil["native"]["currencies"], fresh["native"]["currencies"]) == (["EUR", "JPY"], [])
    assert (fresh["status"], fresh["head_block"], resting["enabled"]) == ("not_ready", None, False)


def test_an_address_is_stored_with_the_index_that_it_was_derived_at(shop: Api, api_ctx: Context) -> None:
    addresses = [shop.ask()["address"] for _ in range(3)]
    with api_ctx.sessions.begin() as session:
        rows = session.execute(sa.select(deposit_addresses).order_by(deposit_addresses.c.derivation_index)).all()
    assert [checksum_address(row.address) for row in rows] == addresses
    wallet = api_ctx.wallet
    assert wallet is not None
    assert [wallet.address(row.derivation_index) for row in rows] == [row.address for row in rows]
    assert {row.wallet_fingerprint for row in rows} == {wallet.fingerprint}


def test_answers_carry_a_request_id_of_their_own_and_what_browsers_obey(shop: Api) -> None:
    first, second = shop.get("/api/v1/payments"), shop.get("/api/v1/nothing")
    assert first.headers["X-Request-Id"].startswith("req_")
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
    for answer in (first, second):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "Strict-Transport-Security" not in answer.headers


def test_a_trusted_proxy_tells_that_the_client_came_by_https(serving: Context) -> None:
    settings = replace(serving.settings, trusted_proxies=1)
    behind: Flask = create_app(replace(serving, settings=settings))
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}
    assert "Strict-Transport-Security" in behind.test_client().get("/livez", headers=headers).headers
    direct: Flask = create_app(serving)
    assert "Strict-Transport-Security" not in direct.test_client().get("/livez", headers=headers).headers
