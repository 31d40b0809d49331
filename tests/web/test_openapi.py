"""The OpenAPI document is true: it names every route, field and refusal, and each answer is what it says."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from ctrip.context import Context
from ctrip.domain.quotas import Quota, QuotaOf
from ctrip.outbound.counters import Counters
from ctrip.web.errors import codes
from tests.api import Api
from tests.contract import PROBLEM, Contract
from tests.web.objects import fill, fit, make_merchants_objects, make_operators_objects
from tests.web.test_auth import PUBLIC

pytestmark = pytest.mark.infra


@pytest.fixture
def document(nobody: Api) -> dict[str, Any]:
    return nobody.get("/openapi.json").json


@pytest.fixture
def contract(document: dict[str, Any]) -> Contract:
    return Contract(document)


@pytest.fixture
def made(shop: Api, operator: Api, api_ctx: Context) -> dict[str, str]:
    return make_merchants_objects(shop, api_ctx) | make_operators_objects(operator, api_ctx)


def test_every_route_is_in_the_document_and_nothing_else(contract: Contract, app: Flask) -> None:
    assert contract.document["openapi"] == "3.1.0"
    routes = {
        (method, re.sub("<([^>]+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
        if rule.rule not in ("/", "/openapi.json", "/docs", "/static/<path:filename>")
    }
    assert {(method, path) for method, path, _ in contract.operations()} == routes


def test_every_operation_tells_what_it_does_and_who_may(contract: Contract) -> None:
    names = [operation["operationId"] for *_, operation in contract.operations()]
    assert len(set(names)) == len(names)
    for method, path, operation in contract.operations():
        where = f"{method} {path}"
        assert operation["summary"] and not operation["summary"].endswith("."), where
        assert "<br" not in operation["description"], where
        assert operation["security"] == [] if path in PUBLIC else len(operation["security"]) == 1, where


def test_every_operation_lists_each_refusal_as_a_problem_with_its_codes(contract: Contract) -> None:
    meant = {(code, str(status)) for code, status, _ in codes()}
    told = set()
    for method, path, operation in contract.operations():
        where = f"{method} {path}"
        # What is not listed must not come: a status that stands for all the others would let anything pass.
        assert "default" not in operation["responses"], where
        for status, answer in operation["responses"].items():
            assert answer["description"], where
            assert "X-Request-Id" in answer["headers"], where
            if status < "400" or (path in PUBLIC and status == "503"):  # /readyz has a 503 of its own
                assert set(answer["content"]) == {"application/json"}, f"{where} {status}"
                continue
            ((content_type, content),) = answer["content"].items()
            problem, narrowed = content["schema"]["allOf"]
            assert (content_type, problem) == (PROBLEM, {"$ref": "#/components/schemas/Problem"}), where
            assert narrowed["properties"]["status"] == {"const": int(status)}, where
            told |= {(code, status) for code in narrowed["properties"]["code"]["enum"]}
        expected = {"413", "500"} | (set() if path in PUBLIC else {"401", "403", "422", "429", "503"})
        expected |= {"404"} if "{" in path else set()
        expected |= {"400", "415"} if "requestBody" in operation else set()
        assert expected <= set(operation["responses"]), where
    assert told <= meant
    assert meant - told == {("method_not_allowed", "405")}, (
        "a code that no operation has is none that a client can meet"
    )


def test_answers_lead_on_to_what_their_ids_are_good_for(contract: Contract) -> None:
    created = contract.document["paths"]["/api/v1/payments"]["post"]["responses"]["201"]["links"]
    assert created["cancel_payment"]["parameters"] == {"payment_id": "$response.body#/id"}
    assert {"get_payment", "accept_payment", "list_payment_transfers", "list_payment_deliveries"} <= set(created)
    names = {operation["operationId"] for *_, operation in contract.operations()}
    led = set()
    for *_, operation in contract.operations():
        for answer in operation["responses"].values():
            led |= {link["operationId"] for link in answer.get("links", {}).values()}
    assert led <= names
    below = {op["operationId"] for _, path, op in contract.operations() if "{" in path}
    assert below <= led, "no answer leads to these"


def test_every_field_and_parameter_is_described(contract: Contract) -> None:
    for name, schema in contract.document["components"]["schemas"].items():
        assert schema.get("description"), name
        for field, described in schema.get("properties", {}).items():
            assert described.get("description"), f"{name}.{field}"
    for method, path, operation in contract.operations():
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


def test_the_page_names_every_operation_and_every_code(nobody: Api, contract: Contract) -> None:
    page = nobody.get("/docs").text
    for _, path, operation in contract.operations():
        assert f'id="{operation["operationId"]}"' in page and path in page
    for code in ("malformed_request", "idempotency_key_reused", "chain_not_ready", "invalid_amount", "conflict"):
        assert f'id="{code}"' in page
    for internal in ("lost_fence", "misconfigured", "signing_refused"):
        assert internal not in page, "clients never meet these"


def test_whoever_opens_the_api_in_a_browser_is_led_to_its_page(nobody: Api) -> None:
    answer = nobody.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/docs")


def test_the_examples_of_the_document_work(contract: Contract, made: dict[str, str], shop: Api, operator: Api) -> None:
    tried = 0
    for method, path, operation in contract.operations():
        if "requestBody" not in operation:
            continue
        caller = operator if contract.scope(operation) == "admin" else shop
        example = fit(operation["requestBody"]["content"]["application/json"]["example"], made)
        answer = caller.send(method, fill(path, made), json=example)
        assert answer.status_code in (200, 201, 202), answer.text
        tried += 1
    assert tried >= 14


def test_every_routes_answers_are_what_the_document_says(
    contract: Contract,
    made: dict[str, str],
    app: Flask,
    shop: Api,
    operator: Api,
    nobody: Api,
    serving: Context,
) -> None:
    # Where quotas are counted, their headers are part of the answers.
    quotas = dict.fromkeys(QuotaOf, Quota(10_000, 60))
    settings = replace(serving.settings, quotas=quotas)
    app.extensions["ctrip"] = replace(serving, settings=settings, counters=Counters("redis://127.0.0.1:1/0"))
    deletions_last = sorted(contract.operations(), key=lambda each: each[0] == "DELETE")
    for method, template, operation in deletions_last:
        scope = contract.scope(operation)
        caller = {None: nobody, "admin": operator}.get(scope, shop)
        example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        send = _sender(contract, method, template)
        good = send(caller, fill(template, made), json=example and fit(example, made))
        assert good.status_code < 300 or template.endswith(("cancel", "accept")), good.text
        send(caller, fill(template, made) + "?nothing=1")
        send(caller, fill(template, made), data=b"x" * 70_000)
        if scope is None:
            continue
        assert {"RateLimit", "RateLimit-Policy"} <= set(good.headers.keys()), template
        assert send(nobody, fill(template, {})).status_code == 401
        assert send(shop if caller is operator else operator, fill(template, {})).status_code == 403
        if "{" in template:
            assert send(caller, fill(template, {}), json=example).status_code == 404
        for body in (b"{", b'{"unknown": 1}') if example else ():
            send(caller, fill(template, made), data=body, content_type="application/json")
            send(caller, fill(template, made), data=body)
    assert contract.seen == {(method, path) for method, path, _ in contract.operations()}


def test_every_link_of_an_answer_leads_to_what_is_there(
    contract: Contract, made: dict[str, str], shop: Api, operator: Api
) -> None:
    operations = {op["operationId"]: (method, path, op) for method, path, op in contract.operations()}
    followed = set()
    for method, template, operation in sorted(contract.operations(), key=lambda each: each[0] == "DELETE"):
        links = [link for status, answer in operation["responses"].items() for link in answer.get("links", {}).values()]
        example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        for link in links:
            answer = (operator if template.startswith("/admin/") else shop).send(
                method, fill(template, made), json=example and fit(example, made)
            )
            to_method, to, target = operations[link["operationId"]]
            ((name, expression),) = link["parameters"].items()
            # What was deleted is found no more, and what is deleted here would be missed below.
            if answer.status_code >= 300 or "DELETE" in (method, to_method):
                continue
            found = resolve_pointer(answer.json, expression.removeprefix("$response.body#"))
            body = target.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            caller = operator if contract.scope(target) == "admin" else shop
            led = caller.send(to_method, to.replace(f"{{{name}}}", found), json=body and fit(body, made))
            assert led.status_code not in (404, 405, 422), f"{template} -> {link['operationId']}: {led.text}"
            followed.add((operation["operationId"], link["operationId"]))
    assert len(followed) >= 60, followed


def resolve_pointer(value: Any, pointer: str) -> Any:
    """What a JSON pointer (RFC 6901) leads to in a value."""
    for part in pointer.split("/")[1:]:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def _sender(contract: Contract, method: str, template: str) -> Callable[..., Any]:
    def send(caller: Api, path: str, **kwargs: Any) -> Any:
        return contract.holds(caller.send(method, path, **kwargs), method, template)

    return send
