"""Structured rubbish against every route, in process: SEEDS=1,2 tells these seeds.

Judges: the OpenAPI document, of every answer; and of what creates a payment, a model of that body which is written
here a second time.
"""

import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ctrip.context import Context
from tests.api import Api
from tests.contract import Contract, contract_of
from tests.web.objects import make_merchants_objects, make_operators_objects
from tests.web.rubbish import JSON_TYPE, Request, nearly, requests, texts, values

pytestmark = pytest.mark.infra

FEW, MANY = 2_000, 20_000
SEEDS: list[int | None] = [*(int(each) for each in os.environ.get("SEEDS", "").split(",") if each)] or [None]
A_BODY: dict[str, Any] = {
    "chain": "anvil",
    "token": "USDC",
    "amount": "12.50",
    "order_id": "1001",
    "expires_in": 1800,
    "confirmations": 3,
    "customer_email": "buyer@example.com",
    "metadata": {"plan": "pro"},
    "webhook_url": "https://shop.example/hooks",
    "underpayment_tolerance": 50,
}
RIGHT: dict[str, tuple[Any, ...]] = {
    "chain": ("anvil", "fresh"),
    "token": ("USDC", "usdc", "DAI", "0x" + "70" * 20, None),
    "amount": ("12.50", "1", "0.000001", "0.0000001", str(2**256), "0", "00", "1.", ".5", "1" * 78, "1" * 79, "1e1"),
    "order_id": ("1", "x" * 255, "x" * 256, "", None),
    "expires_in": (59, 60, 604_800, 604_801, 60.0, "60", True),
    "confirmations": (0, 1, 2, 3, 64, 65, None, 3.5),
    "customer_email": ("a@b.example", "a@b", "a b@c.example", "a@b.example\n", "@b.example", None),
    "metadata": ({}, {"a": 1.5}, {"a": None}, {"a": []}, {"": ""}, {"a": "x" * 8_184}, {"a": "x" * 8_185},
                 {str(n): n for n in range(50)}, {str(n): n for n in range(51)}, {"\x00": 1}, {"a": "\ud800"}),
    "webhook_url": ("https://shop.example/hooks", "https://10.0.0.1/", "http://shop.example/", "https://a@b.example/"),
    "underpayment_tolerance": (0, 9_999, 10_000, -1, None, "1", False),
}  # fmt: skip


Told = Callable[[Request], Any]


@pytest.fixture
def contract(app: Any) -> Contract:
    return contract_of(app)


@pytest.fixture
def made(shop: Api, operator: Api, api_ctx: Context) -> dict[str, str]:
    return make_merchants_objects(shop, api_ctx) | make_operators_objects(operator, api_ctx)


def test_no_request_is_answered_otherwise_than_the_document_says(
    contract: Contract, made: dict[str, str], shop: Api, rival: Api, operator: Api, nobody: Api
) -> None:
    tell_rubbish(contract, made, {"shop": shop, "rival": rival, "operator": operator, "nobody": nobody}, FEW // 2, None)


def test_a_payment_is_created_by_a_right_body_and_by_no_other(shop: Api) -> None:
    tell_bodies(shop, FEW // 2, None)


@pytest.mark.chaos
@pytest.mark.parametrize("number", SEEDS)
def test_no_request_of_many_is_answered_otherwise_than_the_document_says(
    contract: Contract, made: dict[str, str], shop: Api, rival: Api, operator: Api, nobody: Api, number: int | None
) -> None:
    callers = {"shop": shop, "rival": rival, "operator": operator, "nobody": nobody}
    tell_rubbish(contract, made, callers, MANY // 2, drawn(number))


@pytest.mark.chaos
@pytest.mark.parametrize("number", SEEDS)
def test_of_many_bodies_the_right_ones_alone_create_a_payment(shop: Api, number: int | None) -> None:
    tell_bodies(shop, MANY // 2, drawn(number))


def drawn(number: int | None) -> int:
    """The seed that was asked for, or one that is drawn; it is printed."""
    number = secrets.randbelow(10**6) if number is None else number
    print(f"seed {number}")  # noqa: T201
    return number


def tell_rubbish(
    contract: Contract, made: dict[str, str], callers: dict[str, Api], how_many: int, number: int | None
) -> None:
    """Send so many requests; `number` is the seed, None the same ones in each run. `Api` judges each answer."""
    met: Counter[int] = Counter()
    scopes = {"nobody": set(), "operator": {"admin"}}

    def send(request: Request) -> None:
        answer = callers[request.caller].send(request.method, request.url, headers=request.headers, data=request.body)
        met[answer.status_code] += 1
        assert answer.status_code < 500 or answer.json["code"] == "chain_not_ready", answer.text
        assert "Traceback" not in answer.text
        if answer.status_code < 400:
            operation = contract.document["paths"][request.template][request.method.lower()]
            scope = contract.scope(operation)
            assert scope is None or scope in scopes.get(request.caller, {scope} - {"admin"}), "no key, no answer"
            assert is_query(contract, operation, request.query), f"{request.url} was taken"
            schema = contract.body_schema(operation)
            if schema is not None:
                assert request.headers["Content-Type"].startswith(JSON_TYPE)
                assert contract.allows(schema, json.loads(request.body or b"")), f"{request.body!r} was taken"

    repeat(requests(contract, tuple(callers), made), send, how_many, number)
    assert sum(met.values()) >= how_many
    assert met[200] > 0 and met[404] > 0 and met[422] > 0 and met[401] > 0 and met[403] > 0, met


def is_query(contract: Contract, operation: dict[str, Any], query: tuple[tuple[str, str], ...]) -> bool:
    """Whether the document allows a query: names that it has, each once unless it is a list, and values of its form."""
    schemas = {each["name"]: each["schema"] for each in operation.get("parameters", []) if each["in"] == "query"}
    if not operation["security"]:
        return True  # what is public heeds no query, and nobody is misled by that
    seen: set[str] = set()
    for name, value in query:
        schema = schemas.get(name)
        if schema is None or (name in seen and schema.get("type") != "array"):
            return False
        seen.add(name)
        number = int(value) if re.fullmatch("[0-9]{1,9}", value, re.ASCII) else value
        read = {"integer": number, "array": [value]}.get(schema.get("type"), value)
        if not contract.allows(schema, read):
            return False
    return True


def tell_bodies(shop: Api, how_many: int, number: int | None) -> None:
    """Send so many bodies that are nearly right; each is to be taken exactly where the model below says so."""
    fields = st.fixed_dictionaries({}, optional={name: st.sampled_from(right) for name, right in RIGHT.items()})
    one_odd = st.builds(lambda name, value: {name: value}, st.sampled_from([*A_BODY, "price"]), values | texts)
    many = st.builds(lambda some, odd: A_BODY | some | odd, fields, one_odd | st.just({})) | nearly(A_BODY)
    # Most fields right, or hardly any body would be.
    base = st.sampled_from([A_BODY, A_BODY | {"token": None}, {"chain": "fresh", "amount": "1"}])
    one = st.sampled_from(sorted(RIGHT)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(RIGHT[name])))
    few = st.builds(lambda body, changes: body | dict(changes), base, st.lists(one, max_size=2))
    met: Counter[int] = Counter()

    def send(request: dict[str, Any]) -> None:
        body = request
        answer = shop.send("POST", "/api/v1/payments", data=json.dumps(body).encode(), content_type=JSON_TYPE)
        met[answer.status_code] += 1
        expected = 422 if not is_right(body) else 503 if body["chain"] == "fresh" else 201
        assert answer.status_code == expected, f"{body} -> {answer.text}"

    repeat(few | few | many, send, how_many, number)
    assert met[201] > how_many // 20 and met[422] > how_many // 4 and met[503] > 0, met


def is_right(body: dict[str, Any]) -> bool:
    """Whether a body asks for a payment: the contract, written once more, for the chains of the tests."""
    return set(body) <= set(A_BODY) and {"chain", "amount"} <= set(body) and all(_is_right(body))


def _is_right(body: dict[str, Any]) -> Any:
    coin = {None: 18, "eth": 18, "0x" + "00" * 20: 18}
    tokens = {"usdc": 6, "dai": 18, "0x" + "70" * 20: 6, "0x" + "71" * 20: 18}
    named = body["chain"] if isinstance(body["chain"], str) else ""
    known = {"anvil": coin | tokens, "fresh": coin}.get(named, {})
    token = body.get("token")
    decimals = known.get(token.lower() if isinstance(token, str) else None if token is None else "")
    yield decimals is not None
    yield _is_amount(body["amount"], decimals or 0)
    yield _is_text(body.get("order_id"), 255)
    yield _is_number(body.get("expires_in", 1800), 60, 604_800)
    yield body.get("confirmations") is None or _is_number(body["confirmations"], 3, 64)
    yield body.get("customer_email") in (None, "buyer@example.com", "a@b.example")
    yield _is_metadata(body.get("metadata", {}))
    yield body.get("webhook_url") in (None, "https://shop.example/hooks")
    yield body.get("underpayment_tolerance") is None or _is_number(body["underpayment_tolerance"], 0, 9_999)


def _is_amount(amount: Any, decimals: int) -> bool:
    if not isinstance(amount, str) or not re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]+)?", amount, re.ASCII):
        return False
    whole, _, fraction = amount.partition(".")
    atomic = int(whole) * 10**decimals + int(fraction.ljust(decimals, "0") or 0)
    return len(fraction) <= decimals and 0 < atomic < 2**256


def _is_text(text: Any, longest: int) -> bool:
    return text is None or (isinstance(text, str) and 1 <= len(text) <= longest and _can_be_stored(text))


def _is_number(number: Any, least: int, most: int) -> bool:
    return type(number) is int and least <= number <= most


def _is_metadata(metadata: Any) -> bool:
    if not isinstance(metadata, dict) or len(metadata) > 50:
        return False
    texts = [*metadata, *(value for value in metadata.values() if isinstance(value, str))]
    if not all(_can_be_stored(text) for text in texts):
        return False
    written = json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()
    return len(written) <= 8_192 and all(isinstance(value, (str, int, float)) for value in metadata.values())


def _can_be_stored(text: str) -> bool:
    return "\x00" not in text and not re.search("[\ud800-\udfff]", text)


def repeat(strategy: st.SearchStrategy[Any], send: Callable[[Any], None], how_many: int, number: int | None) -> None:
    """Let hypothesis draw so many requests and send them; a failure is shrunk to the least that fails."""
    named = settings(
        max_examples=how_many,
        deadline=None,
        derandomize=number is None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    test = named(given(request=strategy)(send))
    (test if number is None else seed(number)(test))()
