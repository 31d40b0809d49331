"""What the API refuses, each with its status, its stable code and the parameter at fault; never a 5xx."""

import json
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctrip.context import Context
from ctrip.domain.merchants import Scope
from ctrip.web import create_app
from ctrip.web.auth import needs
from ctrip.web.schemas.payments import CreatePayment, PaymentQuery
from tests.api import Api, problem
from tests.factories import TOKEN

pytestmark = pytest.mark.infra

GOOD: dict[str, Any] = {"chain": "anvil", "token": "USDC", "amount": "12.50"}

VALUES: list[tuple[str, dict[str, Any], str, str | None]] = [
    # what, the fields that differ from a good request, code, param
    ("no chain", {"chain": ...}, "invalid_value", "chain"),
    ("null chain", {"chain": None}, "invalid_value", "chain"),
    ("an unknown chain", {"chain": "base"}, "invalid_value", "chain"),
    ("a disabled chain", {"chain": "resting"}, "invalid_value", "chain"),
    ("a chain by its id", {"chain": 31337}, "invalid_value", "chain"),
    ("an unlisted token", {"token": "DOGE"}, "invalid_value", "token"),
    ("an unlisted address", {"token": "0x" + "11" * 20}, "invalid_value", "token"),
    ("the zero address", {"token": "0x" + "00" * 20}, "invalid_value", "token"),
    ("a disabled token", {"token": "OFF"}, "invalid_value", "token"),
    ("a token that takes a fee", {"token": "ODD"}, "invalid_value", "token"),
    ("an empty token", {"token": ""}, "invalid_value", "token"),
    ("no amount", {"amount": ...}, "invalid_amount", "amount"),
    ("a JSON integer", {"amount": 12}, "invalid_amount", "amount"),
    ("a JSON float", {"amount": 12.5}, "invalid_amount", "amount"),
    ("a boolean amount", {"amount": True}, "invalid_amount", "amount"),
    ("a null amount", {"amount": None}, "invalid_amount", "amount"),
    ("an amount in a list", {"amount": ["1"]}, "invalid_amount", "amount"),
    ("an empty amount", {"amount": ""}, "invalid_amount", "amount"),
    ("a negative amount", {"amount": "-1"}, "invalid_amount", "amount"),
    ("a signed amount", {"amount": "+1"}, "invalid_amount", "amount"),
    ("zero", {"amount": "0"}, "invalid_amount", "amount"),
    ("zero with decimals", {"amount": "0.000"}, "invalid_amount", "amount"),
    ("NaN", {"amount": "NaN"}, "invalid_amount", "amount"),
    ("Infinity", {"amount": "Infinity"}, "invalid_amount", "amount"),
    ("an exponent", {"amount": "1e3"}, "invalid_amount", "amount"),
    ("a space before", {"amount": " 1"}, "invalid_amount", "amount"),
    ("a newline after", {"amount": "1\n"}, "invalid_amount", "amount"),
    ("more digits than USDC has", {"amount": "1.1234567"}, "invalid_amount", "amount"),
    ("full-width digits", {"amount": "\uff11\uff12"}, "invalid_amount", "amount"),
    ("arabic digits", {"amount": "\u0661\u0662"}, "invalid_amount", "amount"),
    ("underscores", {"amount": "1_000"}, "invalid_amount", "amount"),
    ("thousands", {"amount": "1,000"}, "invalid_amount", "amount"),
    ("hexadecimal", {"amount": "0x10"}, "invalid_amount", "amount"),
    ("2^256 base units", {"token": None, "amount": str(2**256 // 10**18 + 1)}, "invalid_amount", "amount"),
    ("an endless amount", {"amount": "9" * 60_000}, "invalid_amount", "amount"),
    ("NUL in the amount", {"amount": "1\x00"}, "invalid_amount", "amount"),
    ("too short a time", {"expires_in": 59}, "invalid_value", "expires_in"),
    ("too long a time", {"expires_in": 604_801}, "invalid_value", "expires_in"),
    ("a time as text", {"expires_in": "1800"}, "invalid_value", "expires_in"),
    ("a time as float", {"expires_in": 1800.5}, "invalid_value", "expires_in"),
    ("a boolean time", {"expires_in": True}, "invalid_value", "expires_in"),
    ("fewer confirmations than the chain's", {"confirmations": 2}, "invalid_value", "confirmations"),
    ("more than the reorg window", {"confirmations": 65}, "invalid_value", "confirmations"),
    ("no confirmations", {"confirmations": 0}, "invalid_value", "confirmations"),
    ("a huge number", {"confirmations": 10**300}, "invalid_value", "confirmations"),
    ("confirmations as text", {"confirmations": "3"}, "invalid_value", "confirmations"),
    ("an order id of 256", {"order_id": "x" * 256}, "invalid_value", "order_id"),
    ("an empty order id", {"order_id": ""}, "invalid_value", "order_id"),
    ("a number as order id", {"order_id": 1001}, "invalid_value", "order_id"),
    ("NUL in the order id", {"order_id": "a\x00b"}, "invalid_value", "order_id"),
    ("half a surrogate pair", {"order_id": "\ud83d"}, "invalid_value", "order_id"),
    ("metadata as a list", {"metadata": []}, "invalid_value", "metadata"),
    ("null metadata", {"metadata": None}, "invalid_value", "metadata"),
    ("51 keys", {"metadata": {str(n): n for n in range(51)}}, "invalid_value", "metadata"),
    ("more than 8 KiB", {"metadata": {"a": "x" * 8_190}}, "invalid_value", "metadata"),
    ("more than 8 KiB in UTF-8", {"metadata": {"a": "ü" * 4_096}}, "invalid_value", "metadata"),
    ("nested metadata", {"metadata": {"a": {"b": 1}}}, "invalid_value", "metadata"),
    ("a null in metadata", {"metadata": {"a": None}}, "invalid_value", "metadata"),
    ("NUL in metadata", {"metadata": {"a": "\x00"}}, "invalid_value", "metadata"),
    ("NUL in a key of metadata", {"metadata": {"\x00": "a"}}, "invalid_value", "metadata"),
    ("a surrogate in metadata", {"metadata": {"a": "\udc00"}}, "invalid_value", "metadata"),
    ("no e-mail", {"customer_email": "buyer"}, "invalid_value", "customer_email"),
    (
        "an e-mail with a second line",
        {"customer_email": "a@b.example\nBcc: x@y.example"},
        "invalid_value",
        "customer_email",
    ),
    ("two e-mails", {"customer_email": "a@b.example,c@d.example"}, "invalid_value", "customer_email"),
    ("too long an e-mail", {"customer_email": "a" * 250 + "@b.example"}, "invalid_value", "customer_email"),
    ("a webhook that is no URL", {"webhook_url": "shop.example"}, "destination_refused", "webhook_url"),
    ("a webhook in plain http", {"webhook_url": "http://shop.example/"}, "destination_refused", "webhook_url"),
    ("a webhook to loopback", {"webhook_url": "https://127.0.0.1/"}, "destination_refused", "webhook_url"),
    ("credentials in a webhook", {"webhook_url": "https://a:b@shop.example/"}, "destination_refused", "webhook_url"),
    ("a file as webhook", {"webhook_url": "file:///etc/passwd"}, "destination_refused", "webhook_url"),
    ("too long a webhook", {"webhook_url": "https://shop.example/" + "x" * 2_048}, "invalid_value", "webhook_url"),
    ("NUL in a webhook", {"webhook_url": "https://shop.example/\x00"}, "invalid_value", "webhook_url"),
    ("a tolerance of all", {"underpayment_tolerance": 10_000}, "invalid_value", "underpayment_tolerance"),
    ("a negative tolerance", {"underpayment_tolerance": -1}, "invalid_value", "underpayment_tolerance"),
    ("an unknown field", {"currency": "EUR"}, "invalid_value", "currency"),
    ("an unknown field with NUL", {"\x00": 1}, "invalid_value", "\x00"),
    ("an unknown field of half a pair", {"\ud800": 1}, "invalid_value", None),
]


@pytest.mark.parametrize(("fields", "code", "param"), [case[1:] for case in VALUES], ids=[case[0] for case in VALUES])
def test_a_value_that_cannot_be_is_refused_with_422(
    shop: Api, fields: dict[str, Any], code: str, param: str | None
) -> None:
    body = {name: value for name, value in (GOOD | fields).items() if value is not ...}
    assert problem(shop.post("/api/v1/payments", body)) == (422, code, param)
    assert shop.get("/api/v1/payments").json["data"] == [], "nothing was made"


BODIES: list[tuple[str, bytes, int, str]] = [
    # what, the bytes, status, code
    ("nothing", b"", 400, "malformed_request"),
    ("no JSON", b"chain=anvil", 400, "malformed_request"),
    ("half an object", b'{"chain":', 400, "malformed_request"),
    ("an object and more", b"{} {}", 400, "malformed_request"),
    ("a list", b"[]", 400, "malformed_request"),
    ("a string that holds JSON", json.dumps(json.dumps(GOOD)).encode(), 400, "malformed_request"),
    ("a number", b"1", 400, "malformed_request"),
    ("null", b"null", 400, "malformed_request"),
    ("a key twice", b'{"chain":"anvil","amount":"1","amount":"2"}', 400, "malformed_request"),
    ("a key twice below", b'{"chain":"anvil","amount":"1","metadata":{"a":1,"a":2}}', 400, "malformed_request"),
    ("a byte order mark", b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), 400, "malformed_request"),
    ("UTF-16", json.dumps(GOOD).encode("utf-16"), 400, "malformed_request"),
    ("bytes that are no UTF-8", b'{"chain":"\xff"}', 400, "malformed_request"),
    ("a surrogate in UTF-8", b'{"chain":"\xed\xa0\x80"}', 400, "malformed_request"),
    ("NaN", b'{"chain":"anvil","amount":NaN}', 400, "malformed_request"),
    ("Infinity", b'{"chain":"anvil","amount":-Infinity}', 400, "malformed_request"),
    ("a comment", b'{"chain":"anvil" /* main */}', 400, "malformed_request"),
    ("a raw control character", b'{"chain":"an\x01vil"}', 400, "malformed_request"),
    ("60,000 brackets", b"[" * 60_000, 400, "malformed_request"),
    ("33 lists in each other", b'{"metadata": ' + b"[" * 32 + b"]" * 32 + b"}", 400, "malformed_request"),
    ("10,000 objects in each other", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400, "malformed_request"),
    ("100,000 brackets", b"[" * 100_000, 413, "payload_too_large"),
    ("a byte too many", b"{" + b" " * 65_535 + b"}", 413, "payload_too_large"),
    ("as many bytes as there may be", b"{" + b" " * 65_534 + b"}", 422, "invalid_value"),
    ("5,000 digits", b'{"chain":"anvil","amount":' + b"9" * 5_000 + b"}", 422, "invalid_amount"),
    (
        "5,000 digits of metadata",
        b'{"chain":"anvil","amount":"1","metadata":{"a":' + b"9" * 5_000 + b"}}",
        422,
        "invalid_value",
    ),
    ("more than a double holds", b'{"chain":"anvil","amount":"1","metadata":{"a":1e999}}', 422, "invalid_value"),
    (
        "500 brackets of metadata",
        b'{"chain":"anvil","amount":"1","metadata":' + b"[" * 500 + b"]" * 500 + b"}",
        400,
        "malformed_request",
    ),
    (
        "31 brackets of metadata",
        b'{"chain":"anvil","amount":"1","metadata":' + b"[" * 31 + b"]" * 31 + b"}",
        422,
        "invalid_value",
    ),
]


@pytest.mark.parametrize(("body", "status", "code"), [case[1:] for case in BODIES], ids=[case[0] for case in BODIES])
def test_a_body_that_cannot_be_read_is_refused(shop: Api, body: bytes, status: int, code: str) -> None:
    answer = shop.send("POST", "/api/v1/payments", data=body, content_type="application/json")
    assert problem(answer)[:2] == (status, code)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
def test_a_body_of_another_type_is_refused_with_415(shop: Api, headers: dict[str, str]) -> None:
    answer = shop.send("POST", "/api/v1/payments", data=json.dumps(GOOD).encode(), headers=headers)
    assert problem(answer)[:2] == (415, "unsupported_media_type")


def test_a_json_body_may_name_its_charset(shop: Api) -> None:
    headers = {"Content-Type": "application/json; charset=UTF-8"}
    assert shop.send("POST", "/api/v1/payments", data=json.dumps(GOOD).encode(), headers=headers).status_code == 201


def test_a_body_that_no_route_reads_is_limited_too(shop: Api) -> None:
    path = f"/api/v1/payments/{shop.ask()['id']}/cancel"
    assert problem(shop.send("POST", path, data=b"x" * 65_537))[:2] == (413, "payload_too_large")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=1_0", "limit"),
        ("limit=%20%35", "limit"),
        ("limit=\u0661", "limit"),
        ("limit=" + "9" * 5_000, "limit"),
        ("starting_after=pay_1", "starting_after"),
        ("starting_after=evt_01ARZ3NDEKTSV4RRFFQ69G5FAV", "starting_after"),
        ("starting_after=pay_01ARZ3NDEKTSV4RRFFQ69G5FAV%00", "starting_after"),
        ("status=paid", "status"),
        ("order_id=%00", "order_id"),
        ("chain=%00", "chain"),
        ("created_after=yesterday", "created_after"),
        ("created_after=1700000000", "created_after"),
        ("created_after=2026-11-22T14:00:00", "created_after"),
        ("created_after=2026-13-22T14:00:00Z", "created_after"),
        ("created_before=0001-01-01T00:00:00%2B23:59", "created_before"),
        ("created_before=9999-12-31T23:59:59-23:59", "created_before"),
        ("page=2", "page"),
        ("limit=1&limit=2", "limit"),
        ("order_id=1&order_id=1", "order_id"),
    ],
)
def test_a_query_that_means_nothing_is_refused(shop: Api, query: str, param: str) -> None:
    assert problem(shop.get(f"/api/v1/payments?{query}")) == (422, "invalid_value", param)


def test_what_a_route_cannot_heed_is_refused_before_anything_is_done(shop: Api) -> None:
    payment = shop.ask()
    answer = shop.post("/api/v1/payments?dry_run=true", GOOD)
    assert problem(answer) == (422, "invalid_value", "dry_run")
    answer = shop.post(f"/api/v1/payments/{payment['id']}/cancel?if=unpaid")
    assert problem(answer) == (422, "invalid_value", "if")
    assert shop.get("/api/v1/payments").json["data"] == [payment]


def test_a_parameter_that_is_a_list_may_be_repeated(operator: Api) -> None:
    ids = "&".join(f"ids=dlt_{n}1ARZ3NDEKTSV4RRFFQ69G5FAV" for n in range(3))
    assert operator.get(f"/admin/dead-letters?{ids}").json["data"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/nothing",
        "/api/v1/payments/",
        "//api/v1/payments",
        "/api/v1/payments/pay_1",
        "/api/v1/payments/pay_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "/api/v1/payments/pay_01ARZ3NDEKTSV4RRFFQ69G5FAV%00",
        "/api/v1/payments/pay_01ARZ3NDEKTSV4RRFFQ69G5FAV%0a",
        "/api/v1/payments/%00",
        "/api/v1/payments/%ff%fe",
        "/api/v1/payments/'%20OR%201=1%20--",
        "/api/v1/payments/%22",
        "/api/v1/payments/" + "x" * 8_000,
        "/api/v1/payments/evt_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "/api/v1/payments/..%2f..%2fetc%2fpasswd",
        "/api/v1/events/evt_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "/api/v1/events/%00",
        "/api/v1/webhook_deliveries/whd_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "/api/v1/webhook_deliveries/%00",
    ],
)
def test_what_is_not_there_is_404(shop: Api, path: str) -> None:
    assert problem(shop.get(path))[:2] == (404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FETCH"])
def test_another_method_is_405(shop: Api, method: str) -> None:
    answer = shop.send(method, "/api/v1/payments")
    assert problem(answer)[:2] == (405, "method_not_allowed")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].replace(" ", "").split(","))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=5)
FIELDS = sorted(CreatePayment.model_fields)
NEARLY_GOOD = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4).map(lambda fields: GOOD | fields)


@given(st.one_of(NEARLY_GOOD.map(lambda body: json.dumps(body).encode()), JSON.map(repr).map(str.encode), st.binary()))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_whatever_makes_a_5xx(shop: Api, body: bytes) -> None:
    answer = shop.send("POST", "/api/v1/payments", data=body, content_type="application/json")
    assert answer.status_code in (201, 400, 422), answer.text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_id_or_filter_whatever_makes_a_5xx(shop: Api, text: str) -> None:
    assert shop.get("/api/v1/payments/" + quote(text, safe="")).status_code in (200, 404)
    for name in PaymentQuery.model_fields:
        assert shop.get(f"/api/v1/payments?{urlencode({name: text})}").status_code in (200, 422)


def test_a_chain_that_was_never_read_answers_503(shop: Api) -> None:
    answer = shop.post("/api/v1/payments", {"chain": "fresh", "amount": "1"})
    assert problem(answer) == (503, "chain_not_ready", "chain")
    assert int(answer.headers["Retry-After"]) > 0


def test_what_nobody_expected_is_a_500_that_tells_nothing(shop: Api, serving: Context) -> None:
    @needs(Scope.PAYMENTS_READ)
    def fault() -> NoReturn:
        raise RuntimeError("sk_secret of the house")

    app = create_app(serving)
    app.view_functions["payments.list_payments"] = fault
    answer = Api(app.test_client(), shop.key).get("/api/v1/payments")
    assert problem(answer)[:2] == (500, "internal_error")
    assert "secret" not in answer.text


@pytest.mark.parametrize("token", ["usdc", "0x" + TOKEN.hex(), "0x" + TOKEN.hex().upper()])
def test_a_token_may_be_named_in_any_case_or_by_its_contract(shop: Api, token: str) -> None:
    assert shop.ask(token=token)["token"] == "USDC"
