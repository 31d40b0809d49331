"""The OpenAPI document is true: it names every route and every field, and each answer is what it says."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks
from schemathesis.core.result import Ok

from ctrip.context import Context
from ctrip.database import payments as payment_rows
from ctrip.domain.ids import Prefix
from ctrip.domain.quotas import Quota, QuotaOf
from ctrip.outbound.counters import Counters
from ctrip.services.loops import ensure_loops
from ctrip.web.schemas.jobs import AN_ADDRESS
from tests.api import READ_BLOCK, Api
from tests.factories import make_chain, read_to, store_transfer
from tests.web.test_admin_dead_letters import bury
from tests.web.test_auth import PUBLIC, ROUTES

pytestmark = pytest.mark.infra

PROBLEM = "application/problem+json"
UNKNOWN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
NAMES = {"evt": "event_id", "whd": "delivery_id", "whe": "endpoint_id", "key": "key_id", "dlt": "letter_id"}


@pytest.fixture
def document(nobody: Api) -> dict[str, Any]:
    return nobody.get("/openapi.json").json


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def test_every_route_is_in_the_document_and_nothing_else(document: dict[str, Any], app: Flask) -> None:
    assert document["openapi"] == "3.1.0"
    routes = {
        (method, re.sub("<([^>]+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
        if rule.rule not in ("/openapi.json", "/docs", "/static/<path:filename>")
    }
    assert {(method, path) for method, path, _ in operations(document)} == routes


def test_every_operation_tells_what_it_does_who_may_and_each_refusal_as_a_problem(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for *_, operation in operations(document)]
    assert len(set(names)) == len(names)
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"] and not operation["summary"].endswith("."), where
        assert "<br" not in operation["description"], where
        assert operation["security"] == [] if path in PUBLIC else len(operation["security"]) == 1, where
        for status, answer in operation["responses"].items():
            assert answer["description"], where
            refuses = status == "default" or (status >= "400" and path not in PUBLIC)  # /readyz has a 503 of its own
            assert set(answer["content"]) == {PROBLEM if refuses else "application/json"}, f"{where} {status}"
        expected = {"default"} | (set() if path in PUBLIC else {"401", "403", "503"})
        if "{" in path:
            expected |= {"404"}
        if "requestBody" in operation:
            expected |= {"400", "413", "415", "422"}
        assert expected <= set(operation["responses"]), where


def test_every_field_and_parameter_is_described(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
        for field, described in schema.get("properties", {}).items():
            assert described.get("description"), f"{name}.{field}"
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter["description"], f"{method} {path} {parameter['name']}"


def test_every_reference_leads_somewhere_and_names_are_plain(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '#/components/(\w+)/([^']+)'", str(document)))
    for kind, name in references:
        assert name in document["components"][kind]
    assert all(re.fullmatch("[A-Z][A-Za-z]+", name) for name in document["components"]["schemas"])


def test_the_document_shows_no_secret_and_loads_nothing_from_elsewhere(nobody: Api) -> None:
    page = nobody.get("/docs")
    assert (page.status_code, page.mimetype) == (200, "text/html")
    assert re.findall(r"""(?:src|href)=["'](?!#|/(?!/))""", page.text) == []
    assert "<script" not in page.text
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
    assert nobody.get("/static/docs.css").status_code == 200


def test_the_page_names_every_operation_and_every_code(nobody: Api, document: dict[str, Any]) -> None:
    page = nobody.get("/docs").text
    for _, path, operation in operations(document):
        assert f'id="{operation["operationId"]}"' in page and path in page
    for code in ("malformed_request", "idempotency_key_reused", "chain_not_ready", "invalid_amount", "conflict"):
        assert f'id="{code}"' in page
    for internal in ("lost_fence", "misconfigured", "signing_refused"):
        assert internal not in page, "clients never meet these"


def test_the_examples_of_the_document_work(
    document: dict[str, Any], shop: Api, operator: Api, api_ctx: Context
) -> None:
    tried, made = 0, _populate(shop, operator, api_ctx)
    for method, path, operation in operations(document):
        body = operation.get("requestBody")
        if body is None:
            continue
        caller = operator if path.startswith("/admin") else shop
        example = _real(body["content"]["application/json"]["example"], made)
        answer = caller.send(method, path.format(endpoint_id=made["whe"], key_id=made["key"]), json=example)
        assert answer.status_code in (200, 201, 202), answer.text
        tried += 1
    assert tried >= 8


class Contract:
    """Compares answers with what the document promises for them."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.seen: set[tuple[str, str]] = set()

    def holds(self, answer: Any, method: str, template: str) -> Any:
        where = f"{method} {template} -> {answer.status_code}"
        responses = self.document["paths"][template][method.lower()]["responses"]
        promised = responses.get(str(answer.status_code))
        assert promised is not None, f"{where} is not documented"
        ((content_type, content),) = promised["content"].items()
        assert answer.content_type == content_type, where
        schema = content["schema"] | {"components": self.document["components"]}
        jsonschema_rs.validator_for(schema).validate(answer.json)
        for header in promised["headers"]:
            assert header in answer.headers or header == "Idempotency-Replayed", f"{where}: {header}"
        self.seen.add((method, template))
        return answer


def test_every_routes_answers_are_what_the_document_says(
    document: dict[str, Any], app: Flask, shop: Api, operator: Api, nobody: Api, api_ctx: Context
) -> None:
    # Where quotas are counted, their headers are part of the answers.
    quotas = dict.fromkeys(QuotaOf, Quota(10_000, 60))
    settings = replace(api_ctx.settings, quotas=quotas)
    app.extensions["ctrip"] = replace(api_ctx, settings=settings, counters=Counters("redis://127.0.0.1:1/0"))
    contract = Contract(document)
    made = _populate(shop, operator, api_ctx)
    for method, path, _ in ROUTES:
        template = re.sub(f"pay_{UNKNOWN}", "{payment_id}", path)
        for prefix, name in NAMES.items():
            template = template.replace(f"{prefix}_{UNKNOWN}", f"{{{name}}}")
        template = template.replace(f"job_{UNKNOWN}", "{job_id}").replace("listener:1/", "{name}/")
        caller = operator if path.startswith("/admin") else shop
        operation = document["paths"][template][method.lower()]
        example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        example, found = _real(example, made), _real(path, made)
        good = contract.holds(caller.send(method, found, json=example), method, template)
        assert good.status_code < 300 or template.endswith(("cancel", "accept")), good.text
        contract.holds(nobody.send(method, path), method, template)
        contract.holds((shop if caller is operator else operator).send(method, path), method, template)
        if "{" in template:
            unknown = caller.send(method, path, json=example)
            assert contract.holds(unknown, method, template).status_code == 404
        if example is not None:
            for body in (b"{", b'{"unknown": 1}', b"x" * 70_000):
                answer = caller.send(method, path, data=body, content_type="application/json")
                contract.holds(answer, method, template)
            contract.holds(caller.send(method, path, data=b"{}"), method, template)
    for path in ("/livez", "/readyz", "/health"):
        contract.holds(nobody.get(path), "GET", path)
    assert contract.seen == {(method, path) for method, path, _ in operations(document)}


def _populate(shop: Api, operator: Api, ctx: Context) -> dict[str, str]:
    """Make one of everything; returns ids by their prefix. The payment has transfers of every kind."""
    payment = shop.ask(webhook_url="https://shop.example/hooks", metadata={"a": 1, "b": 0.5, "c": True, "d": "e"})
    shop.ask(token=None, order_id="2")
    with ctx.sessions.begin() as session:
        stored = payment_rows.find(session, payment["id"])
        assert stored is not None
        store_transfer(session, stored, 12_500_000, 18, id=ctx.new_id(Prefix.TRANSFER))
        store_transfer(session, stored, 5, 18, id=ctx.new_id(Prefix.TRANSFER), log_index=1, token=b"\0" * 20)
        read_to(session, READ_BLOCK)
        payment_rows.reassess(session, [stored.id], chains={31337: make_chain()}, new_id=ctx.new_id)
    ensure_loops(ctx)
    bury(ctx, "one")
    hook = {"url": "https://shop.example/hooks", "events": ["*"]}
    endpoint = shop.post("/api/v1/webhook_endpoints", hook).json
    key = operator.post("/admin/keys", {"scopes": ["admin"]}).json["id"]
    return {
        "pay": payment["id"],
        "evt": shop.get("/api/v1/events").json["data"][0]["id"],
        "whd": shop.get("/api/v1/webhook_deliveries").json["data"][0]["id"],
        "whe": endpoint["id"],
        "key": key,
        "dlt": operator.get("/admin/dead-letters").json["data"][0]["id"],
        "job": operator.post("/admin/scan-now", {"chain": "anvil"}).json["id"],
        "address": payment["address"],
    }


def _real(example: Any, made: dict[str, str]) -> Any:
    """Put what there is in the place of what an example, or a path, only names."""
    text = re.sub(rf"(\w{{3}})_{UNKNOWN}", lambda match: made[match[1]], json.dumps(example))
    return json.loads(text.replace(AN_ADDRESS, made["address"]).replace("listener:1/", "listener:31337/"))


def test_whatever_is_sent_the_answer_is_documented_and_no_5xx(
    app: Flask, shop: Api, operator: Api, api_ctx: Context
) -> None:
    _populate(shop, operator, api_ctx)
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    tried = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        _fuzz(operation, key=operator.key if operation.path.startswith("/admin") else shop.key)
        tried += 1
    assert tried == len(ROUTES) + 3


def _fuzz(operation: Any, *, key: str | None) -> None:
    """Send requests that the document allows, and some that it does not; the same ones in each run."""
    for mode in GenerationMode:

        @given(operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        def answer_is_documented(case: Any) -> None:
            case.call_and_validate(
                headers={"Authorization": f"Bearer {key}"},
                checks=[
                    checks.not_a_server_error,
                    checks.status_code_conformance,
                    checks.content_type_conformance,
                    checks.response_schema_conformance,
                ],
            )

        # Where nothing about a request can be wrong, there is no wrong one to make.
        with suppress(Unsatisfiable):
            answer_is_documented()
