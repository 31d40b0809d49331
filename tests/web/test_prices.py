"""Prices in fiat over HTTP: asked for, quoted, chosen, and every refusal by its field."""

from typing import Any

import pytest

from ctrip.context import Context
from tests.api import Api, problem
from tests.factories import store_rates

pytestmark = pytest.mark.infra

PRICE = {"amount": "49.90", "currency": "EUR"}
ASSETS = [{"chain": "anvil", "token": "USDC"}, {"chain": "anvil"}]
GOOD: dict[str, Any] = {"price": PRICE, "assets": ASSETS}
BOTH = ("price", "assets")


@pytest.fixture(autouse=True)
def _rates(api_ctx: Context) -> None:
    with api_ctx.sessions.begin() as session:
        store_rates(session, USDC_EUR="0.9", ETH_EUR="3000", ETH_JPY="500000")


def asked(shop: Api, **fields: Any) -> dict[str, Any]:
    answer = shop.post("/api/v1/payments", GOOD | fields)
    assert answer.status_code == 201, answer.text
    return dict(answer.json)


def test_the_documents_example_of_a_price_works_to_the_end(shop: Api, nobody: Api) -> None:
    (example,) = nobody.get("/openapi.json").json["components"]["schemas"]["CreatePayment"]["examples"]
    made = shop.post("/api/v1/payments", example)
    assert made.status_code == 201, made.text
    url = f"/api/v1/payments/{made.json['id']}"
    unchosen = [
        made.json[name] for name in ("chain", "chain_id", "token", "decimals", "amount", "amount_atomic", "quote")
    ]
    assert unchosen == [None] * 7
    assert made.json["price"] == {"amount": "49.90", "currency": "EUR"}
    quotes = shop.get(f"{url}/quotes").json
    assert [(each["token"], each["amount"]) for each in quotes["data"]] == [
        ("USDC", "55.444445"),
        (None, "0.016633333333333334"),
    ]
    chosen = shop.post(f"{url}/choose", {"chain": "anvil", "token": "USDC"})
    assert (chosen.status_code, chosen.json["amount"], chosen.json["status"]) == (200, "55.444445", "pending")
    assert chosen.json["address"] == made.json["address"]
    assert chosen.json["quote"]["rate"] == "0.9"
    assert [each["source"] for each in chosen.json["quote"]["sources"]] == ["static"]
    assert chosen.json == shop.get(url).json
    assert problem(shop.post(f"{url}/choose", {"chain": "anvil", "token": "USDC"})) == (409, "conflict", None)
    assert problem(shop.get(f"{url}/quotes")) == (409, "conflict", None)
    told = [each["type"] for each in shop.get(f"{url}/events").json["data"]]
    assert told == ["payment.created", "payment.updated"]
    listed = shop.get("/api/v1/payments").json["data"]
    assert listed == [chosen.json]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"chain": "anvil"}, "chain"),
        ({"token": "USDC"}, "token"),
        ({"amount": "1"}, "amount"),
        ({"price": None}, "price"),
        ({"assets": None}, "assets"),
        ({"assets": []}, "assets"),
        ({"assets": ASSETS * 11}, "assets"),
        ({"assets": [{"chain": "anvil", "tokn": "USDC"}]}, "assets"),
        ({"assets": ["anvil"]}, "assets"),
        ({"assets": ASSETS + ASSETS[:1]}, "assets"),
        ({"assets": [{"chain": "nowhere"}]}, "assets"),
        ({"price": PRICE | {"amount": 49.9}}, "price"),
        ({"price": PRICE | {"amount": "49.901"}}, "price"),
        ({"price": PRICE | {"amount": "-1"}}, "price"),
        ({"price": PRICE | {"currency": "usd"}}, "price"),
        ({"price": PRICE | {"currency": "CHF"}}, "price"),
        ({"price": PRICE | {"of": 1}}, "price"),
        ({"price": "49.90 EUR"}, "price"),
    ],
)
def test_a_price_that_cannot_be_is_refused_by_its_field(shop: Api, fields: dict[str, Any], param: str) -> None:
    status, _, named = problem(shop.post("/api/v1/payments", GOOD | fields))
    assert (status, named) == (422, param)
    assert shop.get("/api/v1/payments").json["data"] == []


def test_neither_an_amount_nor_a_price_is_refused(shop: Api) -> None:
    assert problem(shop.post("/api/v1/payments", {})) == (422, "invalid_value", "chain")


@pytest.mark.parametrize("body", [{"chain": "anvil", "token": "DAI"}, {"chain": "nowhere"}, {"chain": "fresh"}])
def test_only_what_is_accepted_can_be_chosen(shop: Api, body: dict[str, Any]) -> None:
    payment = asked(shop)
    assert problem(shop.post(f"/api/v1/payments/{payment['id']}/choose", body)) == (422, "invalid_value", "token")
    assert shop.get(f"/api/v1/payments/{payment['id']}").json == payment


def test_without_a_rate_it_is_503_and_may_be_tried_again(shop: Api, api_ctx: Context) -> None:
    payment = asked(shop, price={"amount": "100", "currency": "JPY"})
    url = f"/api/v1/payments/{payment['id']}/choose"
    refused = shop.post(url, {"chain": "anvil", "token": "USDC"})
    assert problem(refused) == (503, "rate_unavailable", None)
    assert int(refused.headers["Retry-After"]) > 0
    with api_ctx.sessions.begin() as session:
        store_rates(session, USDC_JPY="150")
    assert shop.post(url, {"chain": "anvil", "token": "USDC"}).json["amount"] == "0.666667"


def test_another_merchants_price_is_not_there(shop: Api, rival: Api) -> None:
    payment = asked(shop)
    url = f"/api/v1/payments/{payment['id']}"
    assert problem(rival.post(f"{url}/choose", ASSETS[0])) == (404, "not_found", None)
    assert problem(rival.get(f"{url}/quotes")) == (404, "not_found", None)
    assert shop.get(url).json == payment


def test_a_price_is_made_once_for_its_key(shop: Api) -> None:
    headers = {"Idempotency-Key": "order-1002"}
    first, again = (shop.post("/api/v1/payments", GOOD, headers=headers) for _ in range(2))
    assert first.json == again.json
    assert again.headers["Idempotency-Replayed"] == "true"
    other = shop.post("/api/v1/payments", GOOD | {"price": PRICE | {"amount": "49.91"}}, headers=headers)
    assert problem(other)[:2] == (422, "idempotency_key_reused")
