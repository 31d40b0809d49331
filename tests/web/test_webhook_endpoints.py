from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from standardwebhooks import Webhook

from ctrip.context import Context
from ctrip.database.models import webhook_deliveries, webhook_endpoints
from tests.api import Api, problem
from tests.outbound.test_destinations import CLOSED_ADDRESSES, CLOSED_URLS, PUBLIC, Recorder, literal_url

pytestmark = pytest.mark.infra
PATH = "/api/v1/webhook_endpoints"
URL = "https://shop.example/hooks"


def make(api: Api, **fields: Any) -> dict[str, Any]:
    answer = api.post(PATH, {"url": URL, "events": ["*"]} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json


def test_an_endpoint_shows_its_secret_when_it_is_made_and_when_that_is_rotated_and_never_else(
    shop: Api, api_ctx: Context
) -> None:
    made = make(shop, events=["payment.*", "payment.*", "transfer.unexpected"])
    assert set(made) == {"id", "object", "url", "events", "status", "disabled_reason", "created_at", "secret"}
    assert (made["object"], made["url"], made["status"]) == ("webhook_endpoint", URL, "enabled")
    assert made["events"] == ["payment.*", "transfer.unexpected"]
    assert made["disabled_reason"] is None
    path = f"{PATH}/{made['id']}"
    rotated = shop.post(f"{path}/rotate_secret")
    assert (rotated.status_code, rotated.json["id"]) == (200, made["id"])
    secrets = [made["secret"], rotated.json["secret"]]
    assert len(set(secrets)) == 2
    for secret in secrets:
        assert secret.startswith("whsec_")
        Webhook(secret)
    plain = {name: value for name, value in made.items() if name != "secret"}
    assert shop.get(path).json == plain
    assert shop.get(PATH).json["data"] == [plain]
    assert shop.send("PATCH", path, json={"events": ["*"]}).json == plain | {"events": ["*"]}
    with api_ctx.sessions.begin() as session:
        stored = session.execute(sa.select(webhook_endpoints.c.secret, webhook_endpoints.c.former_secret)).one()
    for secret in secrets:
        assert all(secret.encode() not in sealed for sealed in stored)


def test_what_is_changed_is_changed_and_the_rest_stays(shop: Api) -> None:
    made = make(shop)
    path = f"{PATH}/{made['id']}"
    moved = shop.send("PATCH", path, json={"url": "https://other.example/x"}).json
    assert (moved["url"], moved["events"], moved["status"]) == ("https://other.example/x", ["*"], "enabled")
    disabled = shop.send("PATCH", path, json={"status": "disabled"}).json
    assert (disabled["status"], disabled["disabled_reason"]) == ("disabled", "merchant")
    assert shop.send("PATCH", path, json={}).json == disabled
    enabled = shop.send("PATCH", path, json={"status": "enabled", "events": ["payment.late"], "url": None}).json
    assert (enabled["status"], enabled["disabled_reason"]) == ("enabled", None)
    assert (enabled["events"], enabled["url"]) == (["payment.late"], "https://other.example/x")


def test_a_deleted_endpoint_is_found_no_more(shop: Api) -> None:
    made = make(shop)
    path = f"{PATH}/{made['id']}"
    deleted = shop.send("DELETE", path)
    assert (deleted.status_code, deleted.json["id"]) == (200, made["id"])
    assert problem(shop.get(path))[:2] == (404, "not_found")
    assert problem(shop.send("DELETE", path))[:2] == (404, "not_found")
    assert shop.get(PATH).json["data"] == []
    shop.ask()
    assert shop.get("/api/v1/webhook_deliveries").json["data"] == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"events": ["*"]}, "url"),
        ({"url": URL}, "events"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": "*"}, "events"),
        ({"url": URL, "events": ["payment.paid"]}, "events"),
        ({"url": URL, "events": [1]}, "events"),
        ({"url": URL, "events": ["*"] * 100}, "events"),
        ({"url": "http://shop.example/", "events": ["*"]}, "url"),
        ({"url": "https://127.0.0.1/", "events": ["*"]}, "url"),
        ({"url": "https://user:secret@shop.example/", "events": ["*"]}, "url"),
        ({"url": URL + "\x00", "events": ["*"]}, "url"),
        ({"url": "", "events": ["*"]}, "url"),
        ({"url": URL, "events": ["*"], "status": "disabled"}, "status"),
        ({"url": URL, "events": ["*"], "secret": "whsec_AAAA"}, "secret"),
    ],
)
def test_what_no_endpoint_can_be_is_refused_and_named(shop: Api, body: dict[str, Any], param: str) -> None:
    status, _, named = problem(shop.post(PATH, body))
    assert (status, named) == (422, param)
    assert shop.get(PATH).json["data"] == []


def test_a_merchant_that_has_sixteen_endpoints_is_told_so(shop: Api, rival: Api) -> None:
    for _ in range(16):
        make(shop)
    answer = shop.post(PATH, {"url": URL, "events": ["*"]})
    assert problem(answer)[:2] == (409, "conflict")
    assert "16" in answer.json["detail"]
    make(rival)
    page = shop.get(f"{PATH}?limit=10").json
    rest = shop.get(f"{PATH}?limit=10&starting_after={page['next_cursor']}").json
    assert (len(page["data"]), len(rest["data"]), rest["has_more"]) == (10, 6, False)


def test_another_merchants_endpoint_is_a_404_on_every_route(shop: Api, rival: Api) -> None:
    path = f"{PATH}/{make(rival)['id']}"
    for method, below, body in (
        ("GET", "", None),
        ("PATCH", "", {"status": "disabled"}),
        ("DELETE", "", None),
        ("POST", "/test", None),
        ("POST", "/rotate_secret", None),
    ):
        assert problem(shop.send(method, path + below, json=body))[:2] == (404, "not_found"), method + below
    assert rival.get(path).json["status"] == "enabled"
    body = {"since": "2020-01-01T00:00:00Z", "endpoint_id": path.rpartition("/")[2]}
    assert problem(shop.post("/api/v1/webhook_deliveries/redeliver", body))[:2] == (404, "not_found")


def test_a_test_event_is_owed_and_shown_with_its_delivery(shop: Api) -> None:
    made = make(shop, events=["payment.late"])
    answer = shop.post(f"{PATH}/{made['id']}/test")
    assert answer.status_code == 202
    delivery = answer.json
    assert (delivery["object"], delivery["endpoint_id"], delivery["url"]) == ("webhook_delivery", made["id"], URL)
    assert (delivery["status"], delivery["attempts"], delivery["history"]) == ("pending", 0, [])
    event = shop.get(f"/api/v1/events/{delivery['event_id']}").json
    assert (event["type"], event["payment_id"], event["data"]) == ("webhook.test", None, {})
    assert shop.get(f"/api/v1/webhook_deliveries/{delivery['id']}").json == delivery
    shop.send("PATCH", f"{PATH}/{made['id']}", json={"status": "disabled"})
    assert problem(shop.post(f"{PATH}/{made['id']}/test"))[:2] == (409, "conflict")


def test_deliveries_are_filtered_and_asked_for_once_more(shop: Api, rival: Api, api_ctx: Context) -> None:
    made = make(shop)
    shop.ask(webhook_url=URL)
    own, hooked = shop.get("/api/v1/webhook_deliveries").json["data"][::-1]
    if own["endpoint_id"] is not None:
        own, hooked = hooked, own
    with api_ctx.sessions.begin() as session:
        dead = sa.update(webhook_deliveries).where(webhook_deliveries.c.id == hooked["id"])
        session.execute(dead.values(status="dead", dead_reason="schedule", next_attempt_at=None, attempts=10))

    def listed(query: str) -> list[str]:
        return [each["id"] for each in shop.get(f"/api/v1/webhook_deliveries?{query}").json["data"]]

    assert listed("status=dead") == listed(f"endpoint_id={made['id']}") == [hooked["id"]]
    assert listed("status=pending") == [own["id"]]
    assert set(listed(f"event_id={own['event_id']}")) == {own["id"], hooked["id"]}
    assert problem(shop.get("/api/v1/webhook_deliveries?status=failed"))[::2] == (422, "status")
    bulk, since = "/api/v1/webhook_deliveries/redeliver", {"since": "2020-01-01T00:00:00Z"}
    assert rival.post(bulk, since).json == {"matched": 0, "done": 0}
    assert problem(rival.post(f"/api/v1/webhook_deliveries/{hooked['id']}/redeliver"))[:2] == (404, "not_found")
    answer = shop.post(bulk, since)
    assert (answer.status_code, answer.json) == (202, {"matched": 1, "done": 1})
    answer = shop.post(f"/api/v1/webhook_deliveries/{hooked['id']}/redeliver")
    assert (answer.status_code, answer.json["status"], answer.json["attempts"]) == (202, "pending", 10)
    shop.send("DELETE", f"{PATH}/{made['id']}")
    assert problem(shop.post(f"/api/v1/webhook_deliveries/{hooked['id']}/redeliver"))[:2] == (409, "conflict")


def test_no_hostile_url_is_taken_for_a_payment_an_endpoint_or_a_custom_webhook_and_none_is_looked_up(
    shop: Api, operator: Api, serving: Context, app: Flask
) -> None:
    recorder = Recorder([PUBLIC])
    app.extensions["ctrip"] = replace(serving, poster=recorder.poster())
    path = f"{PATH}/{make(shop)['id']}"
    payment = {"chain": "anvil", "token": "USDC", "amount": "1"}
    for url in (*CLOSED_URLS, *map(literal_url, CLOSED_ADDRESSES)):
        for answer, named in (
            (shop.post("/api/v1/payments", payment | {"webhook_url": url}), "webhook_url"),
            (shop.post(PATH, {"url": url, "events": ["*"]}), "url"),
            (shop.send("PATCH", path, json={"url": url}), "url"),
            (operator.post("/admin/custom-webhook", {"url": url, "payload": {}}), "url"),
        ):
            status, _, param = problem(answer)
            assert (status, param) == (422, named), url
    assert (recorder.resolved, recorder.dialled) == ([], [])
    assert shop.get("/api/v1/payments").json["data"] == []
    assert shop.get(path).json["url"] == URL
