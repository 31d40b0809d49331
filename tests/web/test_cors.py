"""What a browser's page of another origin may do: read our answers where that is configured, and nothing else."""

from dataclasses import replace

import pytest
from flask import Flask

from ctrip.context import Context
from tests.api import Api, problem

pytestmark = pytest.mark.infra
SHOP, STRANGER = "https://shop.example", "https://shop.example.evil"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture
def opened(app: Flask, serving: Context, shop: Api) -> Api:
    """The API with one origin."""
    app.extensions["ctrip"] = replace(serving, settings=replace(serving.settings, cors_origins=(SHOP,)))
    return shop


def preflight(api: Api, origin: str, path: str = "/api/v1/payments"):
    return Api(api.client, None).send("OPTIONS", path, headers=PREFLIGHT | {"Origin": origin})


def test_a_configured_origin_may_ask_and_read(opened: Api) -> None:
    may = preflight(opened, SHOP)
    assert may.status_code == 204
    assert may.headers["Access-Control-Allow-Origin"] == SHOP
    assert may.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, Idempotency-Key"
    assert "POST" in may.headers["Access-Control-Allow-Methods"]
    answer = opened.get("/api/v1/payments", headers={"Origin": SHOP})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, SHOP)
    assert "Idempotency-Replayed" in answer.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers, "a key is no cookie"


def test_errors_may_be_read_too(opened: Api) -> None:
    answer = Api(opened.client, None).get("/api/v1/payments", headers={"Origin": SHOP})
    assert problem(answer) == (401, "unauthorized", None)
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP


@pytest.mark.parametrize("origin", [STRANGER, "null", "http://shop.example", "https://shop.example:444"])
def test_another_origin_may_not(opened: Api, origin: str) -> None:
    assert problem(preflight(opened, origin)) == (405, "method_not_allowed", None)
    answer = opened.get("/api/v1/payments", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin", "what a cache has for one origin is not for another"


def test_no_origin_may_use_an_operators_key(opened: Api) -> None:
    assert problem(preflight(opened, SHOP, "/admin/keys")) == (405, "method_not_allowed", None)
    answer = opened.get("/admin/keys", headers={"Origin": SHOP})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_where_none_is_configured_no_answer_speaks_of_origins(shop: Api) -> None:
    assert problem(preflight(shop, SHOP)) == (405, "method_not_allowed", None)
    answer = shop.get("/api/v1/payments", headers={"Origin": SHOP})
    assert not [name for name in dict(answer.headers) if name.startswith("Access-Control") or name == "Vary"]
