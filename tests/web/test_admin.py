"""What operators do over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from ctrip.context import Context
from ctrip.domain.queues import QueueSnapshot
from ctrip.services.loops import ensure_loops
from ctrip.services.queues import store_snapshots
from tests.api import Api, problem

pytestmark = pytest.mark.infra

DIED = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_a_merchant_and_a_key_are_made_over_http_and_serve_at_once(operator: Api, app: Flask) -> None:
    body = {"name": "A shop", "email": "owner@shop.example", "underpayment_tolerance": 50}
    merchant = operator.post("/admin/merchants", body)
    assert merchant.status_code == 201
    assert set(merchant.json) == {"id", "webhook_secret"}
    assert merchant.json["webhook_secret"].startswith("whsec_")
    scopes = ["payments:read", "payments:write"]
    key = operator.post("/admin/keys", {"merchant_id": merchant.json["id"], "scopes": scopes})
    assert (key.status_code, set(key.json)) == (201, {"id", "key"})
    shop = Api(app.test_client(), key.json["key"])
    assert shop.ask()["status"] == "pending"


def test_a_key_is_listed_without_its_secret_and_revoked(operator: Api, shop: Api) -> None:
    assert shop.key is not None
    page = operator.get(f"/admin/keys?merchant_id={shop.merchant_id}")
    (key,) = page.json["data"]
    assert shop.key.rpartition("_")[2] not in page.text
    revoked = operator.send("DELETE", f"/admin/keys/{key['id']}")
    assert (revoked.status_code, revoked.json["id"]) == (200, key["id"])
    assert revoked.json["revoked_at"] is not None
    assert shop.get("/api/v1/payments").status_code == 401
    again = operator.send("DELETE", f"/admin/keys/{key['id']}")
    assert again.json == revoked.json


def test_a_key_is_rotated_and_both_serve(operator: Api, shop: Api, app: Flask) -> None:
    (key,) = operator.get(f"/admin/keys?merchant_id={shop.merchant_id}").json["data"]
    rotated = operator.post(f"/admin/keys/{key['id']}/rotate", {})
    assert (rotated.status_code, set(rotated.json)) == (201, {"id", "key"})
    new = Api(app.test_client(), rotated.json["key"])
    assert new.ask()["id"] == shop.get("/api/v1/payments").json["data"][0]["id"]
    again = operator.post(f"/admin/keys/{key['id']}/rotate", {})
    assert problem(again)[:2] == (409, "conflict")
    (deed,) = operator.get("/admin/audit-log?action=keys.rotate").json["data"]
    former = operator.get(f"/admin/keys?merchant_id={shop.merchant_id}").json["data"][1]
    limits = {"allowed_ips": None, "expires_at": None, "former_expires_at": former["expires_at"]}
    assert (deed["target"], deed["detail"]) == (key["id"], {"replaced_by": rotated.json["id"], **limits})


def test_a_key_is_rotated_without_overlap_to_other_networks(operator: Api, shop: Api, app: Flask) -> None:
    (key,) = operator.get(f"/admin/keys?merchant_id={shop.merchant_id}").json["data"]
    body = {"overlap_seconds": 0, "allowed_ips": ["203.0.113.0/24"]}
    rotated = operator.post(f"/admin/keys/{key['id']}/rotate", body).json
    assert problem(shop.get("/api/v1/payments"))[:2] == (401, "unauthorized")
    new = Api(app.test_client(), rotated["key"])
    assert new.get("/api/v1/payments", environ_base={"REMOTE_ADDR": "203.0.113.9"}).status_code == 200
    assert problem(new.get("/api/v1/payments"))[:2] == (403, "address_not_allowed")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"overlap_seconds": -1}, "overlap_seconds"),
        ({"overlap_seconds": 604_801}, "overlap_seconds"),
        ({"overlap_seconds": "0"}, "overlap_seconds"),
        ({"allowed_ips": []}, "allowed_ips"),
        ({"allowed_ips": ["10.0.0.1/8"]}, "allowed_ips"),
    ],
)
def test_what_is_mistyped_of_a_rotation_is_refused(operator: Api, shop: Api, body: dict[str, Any], param: str) -> None:
    (key,) = operator.get(f"/admin/keys?merchant_id={shop.merchant_id}").json["data"]
    assert problem(operator.post(f"/admin/keys/{key['id']}/rotate", body)) == (422, "invalid_value", param)


def test_a_key_that_is_bound_to_a_network_serves_nobody_else(operator: Api, shop: Api, app: Flask) -> None:
    bound = {"merchant_id": shop.merchant_id, "scopes": ["payments:read"], "allowed_ips": ["203.0.113.0/24"]}
    made = operator.post("/admin/keys", bound).json
    key = Api(app.test_client(), made["key"])
    here = key.get("/api/v1/payments", environ_base={"REMOTE_ADDR": "203.0.113.9"})
    elsewhere = key.get("/api/v1/payments", environ_base={"REMOTE_ADDR": "198.51.100.9"})
    assert here.status_code == 200
    assert problem(elsewhere)[:2] == (403, "address_not_allowed")
    shown = {each["id"]: each["allowed_ips"] for each in operator.get("/admin/keys").json["data"]}
    assert shown[made["id"]] == ["203.0.113.0/24"]


def test_keys_are_paged(operator: Api, shop: Api, rival: Api) -> None:
    first = operator.get("/admin/keys?limit=2").json
    rest = operator.get(f"/admin/keys?limit=2&starting_after={first['next_cursor']}").json
    owners = [key["merchant_id"] for key in first["data"] + rest["data"]]
    assert sorted(owners, key=str) == sorted([None, shop.merchant_id, rival.merchant_id], key=str)
    assert (first["has_more"], rest["has_more"]) == (True, False)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("/admin/merchants", {}, "name"),
    ("/admin/merchants", {"name": ""}, "name"),
    ("/admin/merchants", {"name": "  "}, "name"),
    ("/admin/merchants", {"name": "a\x00b"}, "name"),
    ("/admin/merchants", {"name": "a\nb"}, "name"),
    ("/admin/merchants", {"name": "A", "email": "no"}, "email"),
    ("/admin/merchants", {"name": "A", "underpayment_tolerance": 10_000}, "underpayment_tolerance"),
    ("/admin/merchants", {"name": "A", "underpayment_tolerance": "1"}, "underpayment_tolerance"),
    ("/admin/merchants", {"name": "A", "webhook_secret": "whsec_x"}, "webhook_secret"),
    ("/admin/keys", {}, "scopes"),
    ("/admin/keys", {"scopes": []}, "scopes"),
    ("/admin/keys", {"scopes": ["payments:read"]}, "scopes"),
    ("/admin/keys", {"scopes": ["all"]}, "scopes"),
    ("/admin/keys", {"scopes": "admin"}, "scopes"),
    ("/admin/keys", {"scopes": ["admin"], "merchant_id": "mer_1"}, "merchant_id"),
    ("/admin/keys", {"scopes": ["payments:read"], "merchant_id": "mer_01ARZ3NDEKTSV4RRFFQ69G5FAV"}, "merchant_id"),
    ("/admin/keys", {"scopes": ["admin"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ("/admin/keys", {"scopes": ["admin"], "expires_at": 1_900_000_000}, "expires_at"),
    ("/admin/keys", {"scopes": ["admin"], "allowed_ips": []}, "allowed_ips"),
    ("/admin/keys", {"scopes": ["admin"], "allowed_ips": ["10.0.0.1/8"]}, "allowed_ips"),
    ("/admin/keys", {"scopes": ["admin"], "allowed_ips": ["everywhere"]}, "allowed_ips"),
    ("/admin/keys", {"scopes": ["admin"], "allowed_ips": "10.0.0.1"}, "allowed_ips"),
]


@pytest.mark.parametrize(("path", "body", "param"), REFUSED, ids=[f"{c[0]} {c[1]!r}" for c in REFUSED])
def test_what_an_operator_mistypes_is_refused(operator: Api, path: str, body: dict[str, Any], param: str) -> None:
    assert problem(operator.post(path, body)) == (422, "invalid_value", param)


def test_a_merchants_key_is_no_operators(operator: Api, shop: Api) -> None:
    body = {"scopes": ["admin"], "merchant_id": shop.merchant_id}
    assert problem(operator.post("/admin/keys", body)) == (422, "invalid_value", "scopes")


def test_loops_tell_when_they_run(operator: Api, api_ctx: Context) -> None:
    ensure_loops(api_ctx)
    loops = operator.get("/admin/loops").json["data"]
    kinds = ("balances", "listener", "sweeper")
    assert [loop["name"] for loop in loops] == [f"{kind}:{chain_id}" for kind in kinds for chain_id in (31337, 31338)]
    assert [loop["every_ms"] for loop in loops[1:3]] == [20_000, 1000]
    assert (loops[0]["enabled"], loops[0]["last_tick_at"]) == (True, None)


def test_queues_are_shown_as_the_scheduler_last_saw_them(operator: Api, api_ctx: Context) -> None:
    assert operator.get("/admin/queues").json["data"] == []
    store_snapshots(api_ctx, [QueueSnapshot("webhook", 3, 2, 1, 0, 40, 1.5, 1, DIED)])
    (queue,) = operator.get("/admin/queues").json["data"]
    assert (queue["queue"], queue["ready"], queue["taken_at"]) == ("webhook", 3, "2026-11-22T12:00:00Z")


def test_a_key_for_an_hour_says_when_it_ends(operator: Api) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = operator.post("/admin/keys", {"scopes": ["admin"], "expires_at": ends})
    assert made.status_code == 201
    assert {key["id"]: key["expires_at"] for key in operator.get("/admin/keys").json["data"]}[made.json["id"]] == ends
