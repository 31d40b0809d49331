"""What operators ask the workers for over HTTP."""

from typing import Any, get_args

import pytest

from ctrip.context import Context
from ctrip.domain.jobs import MOST_OPEN, Done, JobKind, JobStatus
from ctrip.runs import run_job
from ctrip.services.loops import ensure_loops
from ctrip.web.schemas.jobs import JobKindName, JobStatusName
from tests.api import Api, problem

pytestmark = pytest.mark.infra

PAY = "pay_01ARZ3NDEKTSV4RRFFQ69G5FAV"
STRANGER = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


def test_each_kind_of_job_is_accepted_and_can_be_looked_at(operator: Api, shop: Api) -> None:
    payment = shop.ask(webhook_url="https://shop.example/hooks")
    bodies: dict[str, dict[str, Any]] = {
        "scan-now": {"chain": "anvil"},
        "sweep-now": {"chain": "anvil"},
        "sweep-address": {"chain": "anvil", "address": payment["address"], "token": "USDC"},
        "process-payment": {"payment_id": payment["id"]},
        "backfill": {"chain": "anvil"},
        "send-webhook": {"payment_id": payment["id"], "type": "payment.created"},
        "custom-webhook": {"url": "https://shop.example/x", "payload": {"a": [1]}, "merchant_id": shop.merchant_id},
    }
    assert set(bodies) == {str(kind) for kind in JobKind}
    made = []
    for kind, body in bodies.items():
        answer = operator.post(f"/admin/{kind}", body)
        assert answer.status_code == 202, answer.text
        assert (answer.json["kind"], answer.json["status"]) == (kind, "scheduled")
        assert answer.json["params"] | body == answer.json["params"], "what was asked for"
        assert operator.get(answer.json["status_url"]).json == answer.json
        made.append(answer.json)
    assert operator.get("/admin/jobs").json["data"] == made[::-1], "newest first"


REFUSED: list[tuple[str, Any, tuple[int, str, str | None]]] = [
    ("scan-now", {}, (422, "invalid_value", "chain")),
    ("scan-now", {"chain": "moon"}, (422, "invalid_value", "chain")),
    ("scan-now", {"chain": "resting"}, (422, "invalid_value", "chain")),
    ("sweep-now", {"chain": 7}, (422, "invalid_value", "chain")),
    ("sweep-address", {"chain": "anvil"}, (422, "invalid_value", "address")),
    ("sweep-address", {"chain": "anvil", "address": "0x12"}, (422, "invalid_value", "address")),
    ("sweep-address", {"chain": "anvil", "address": STRANGER}, (404, "not_found", "address")),
    ("sweep-address", {"chain": "anvil", "address": STRANGER, "token": "DOGE"}, (422, "invalid_value", "token")),
    ("process-payment", {"payment_id": PAY}, (404, "not_found", "payment_id")),
    ("process-payment", {"payment_id": "pay_1"}, (422, "invalid_value", "payment_id")),
    ("send-webhook", {"payment_id": PAY, "type": "payment.created"}, (404, "not_found", "payment_id")),
    ("custom-webhook", {"url": "https://a.example/"}, (422, "invalid_value", "payload")),
    ("custom-webhook", {"url": "https://a.example/", "payload": [1]}, (422, "invalid_value", "payload")),
    ("custom-webhook", {"url": "https://a.example/", "payload": {"a": "\x00"}}, (422, "invalid_value", "payload")),
    ("custom-webhook", {"url": "https://a.example/", "payload": {"a": "\ud800"}}, (422, "invalid_value", "payload")),
    ("custom-webhook", {"url": "https://a.example/", "payload": {"\x00": 1}}, (422, "invalid_value", "payload")),
    (
        "custom-webhook",
        {"url": "https://a.example/", "payload": {"a": [{"b": ["\x00"]}]}},
        (422, "invalid_value", "payload"),
    ),
    ("custom-webhook", {"url": "https://10.0.0.1/", "payload": {}}, (422, "destination_refused", "url")),
    ("custom-webhook", {"url": "https://u:p@a.example/", "payload": {}}, (422, "destination_refused", "url")),
    ("custom-webhook", {"url": "gopher://a.example/", "payload": {}}, (422, "destination_refused", "url")),
    (
        "custom-webhook",
        {"url": "https://a.example/", "payload": {}, "merchant_id": "mer_01ARZ3NDEKTSV4RRFFQ69G5FAV"},
        (404, "not_found", "merchant_id"),
    ),
]


@pytest.mark.parametrize(("kind", "body", "refusal"), REFUSED, ids=[f"{c[0]} {c[1]!r}" for c in REFUSED])
def test_what_cannot_be_done_is_refused_at_once(operator: Api, kind: str, body: Any, refusal: Any) -> None:
    assert problem(operator.post(f"/admin/{kind}", body)) == refusal
    assert operator.get("/admin/jobs").json["data"] == []


def test_a_payload_over_64_kib_is_refused(operator: Api) -> None:
    body = {"url": "https://a.example/", "payload": {"text": "x" * 70_000}}
    assert problem(operator.post("/admin/custom-webhook", body))[:2] == (413, "payload_too_large")


@pytest.mark.parametrize("number", ["1e999", "1" * 400])
def test_a_number_that_no_json_holds_is_refused(operator: Api, number: str) -> None:
    raw = f'{{"url": "https://a.example/", "payload": {{"n": {number}}}}}'.encode()
    answer = operator.send("POST", "/admin/custom-webhook", data=raw, content_type="application/json")
    assert problem(answer) == (422, "invalid_value", "payload")


def test_a_payload_comes_back_as_it_was_sent(operator: Api) -> None:
    payload: dict[str, Any] = {"big": 2**200, "nothing": None, "empty": [], "odd": "\\u0000 \x01é😀"}
    made = operator.post("/admin/custom-webhook", {"url": "https://a.example/", "payload": payload})
    assert operator.get(made.json["status_url"]).json["params"]["payload"] == payload


def test_a_type_that_the_payment_has_no_event_of_is_refused_with_those_that_it_has(operator: Api, shop: Api) -> None:
    body = {"payment_id": shop.ask()["id"], "type": "payment.settled"}
    answer = operator.post("/admin/send-webhook", body)
    assert problem(answer) == (422, "invalid_value", "type")
    assert "payment.created" in answer.json["detail"]


def test_too_many_open_jobs_are_refused(operator: Api) -> None:
    for _ in range(MOST_OPEN):
        assert operator.post("/admin/scan-now", {"chain": "anvil"}).status_code == 202
    assert problem(operator.post("/admin/scan-now", {"chain": "anvil"}))[:2] == (409, "conflict")


def test_jobs_are_paged_and_filtered(operator: Api, api_ctx: Context) -> None:
    ids = [operator.post(f"/admin/{kind}", {"chain": "anvil"}).json["id"] for kind in ("scan-now", "sweep-now") * 2]
    run_job(api_ctx, ids[0], work=lambda _: Done({"found": 1}))
    first = operator.get("/admin/jobs?limit=3").json
    rest = operator.get(f"/admin/jobs?limit=3&starting_after={first['next_cursor']}").json
    assert [job["id"] for job in first["data"] + rest["data"]] == ids[::-1]
    assert [job["id"] for job in operator.get("/admin/jobs?kind=scan-now").json["data"]] == [ids[2], ids[0]]
    (done,) = operator.get("/admin/jobs?status=done").json["data"]
    assert (done["id"], done["result"], done["ended_at"] is None) == (ids[0], {"found": 1}, False)


@pytest.mark.parametrize("query", ["kind=scan", "status=tired", "limit=0", "starting_after=1"])
def test_a_filter_that_means_nothing_is_refused(operator: Api, query: str) -> None:
    assert problem(operator.get(f"/admin/jobs?{query}"))[:2] == (422, "invalid_value")


def test_an_unknown_job_is_not_found(operator: Api) -> None:
    for job_id in ("job_01ARZ3NDEKTSV4RRFFQ69G5FAV", "job_1"):
        assert problem(operator.get(f"/admin/jobs/{job_id}"))[:2] == (404, "not_found")


def test_every_kind_and_status_of_the_domain_can_be_asked_for() -> None:
    assert set(get_args(JobKindName)) == set(JobKind)
    assert set(get_args(JobStatusName)) == set(JobStatus)


def test_a_job_names_who_asked_for_it(operator: Api) -> None:
    assert operator.key is not None
    asked = operator.post("/admin/scan-now", {"chain": "anvil"}).json
    (key,) = operator.get("/admin/keys").json["data"]
    assert asked["requested_by"] == key["id"]


# --- loops ------------------------------------------------------------------------------------------------------------


def test_a_loop_is_paused_resumed_and_run(operator: Api, api_ctx: Context) -> None:
    ensure_loops(api_ctx)
    path = "/admin/loops/listener:31337"
    paused = operator.post(f"{path}/pause")
    assert (paused.status_code, paused.json["name"], paused.json["enabled"]) == (200, "listener:31337", False)
    assert paused.json in operator.get("/admin/loops").json["data"]
    assert problem(operator.post(f"{path}/run"))[:2] == (409, "conflict")
    assert operator.post(f"{path}/resume").json["enabled"] is True
    assert operator.post(f"{path}/run").json["name"] == "listener:31337"


@pytest.mark.parametrize("verb", ["pause", "resume", "run"])
@pytest.mark.parametrize("name", ["listener:7", "nonsense", "listener:31337x"])
def test_a_loop_that_there_is_not_is_not_found(operator: Api, api_ctx: Context, name: str, verb: str) -> None:
    ensure_loops(api_ctx)
    assert problem(operator.post(f"/admin/loops/{name}/{verb}"))[:2] == (404, "not_found")
