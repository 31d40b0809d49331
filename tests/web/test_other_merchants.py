"""Every route, asked by every kind of key for another merchant's objects: nothing is told, and nothing is done.

Routes, parameters and scopes are read from the OpenAPI document, so a new route is in here as soon as it is in there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import metadata
from ctrip.domain.merchants import MERCHANT_SCOPES
from ctrip.services.merchants import create_key
from tests.api import Api, problem
from tests.contract import ID, Contract, contract_of
from tests.web.objects import PREFIXES, fill, fit, make_merchants_objects, make_operators_objects

pytestmark = pytest.mark.infra

Operation = tuple[str, str, dict[str, Any]]
Rows = Callable[[], dict[str, Sequence[Any]]]
SUBSETS = [
    tuple(subset)
    for size in range(1, 1 + len(MERCHANT_SCOPES))
    for subset in combinations(sorted(MERCHANT_SCOPES), size)
]


@pytest.fixture
def contract(app: Any) -> Contract:
    return contract_of(app)


@pytest.fixture
def theirs(rival: Api, operator: Api, api_ctx: Context) -> dict[str, str]:
    """One of everything that another merchant and operators have."""
    return make_merchants_objects(rival, api_ctx) | make_operators_objects(operator, api_ctx)


@pytest.fixture
def ours(shop: Api, api_ctx: Context) -> dict[str, str]:
    return make_merchants_objects(shop, api_ctx)


@pytest.fixture
def rows(api_ctx: Context) -> Rows:
    """Return every row of every table. When a key was last used is no part of it."""

    def read() -> dict[str, Sequence[Any]]:
        with api_ctx.sessions.begin() as session:
            return {
                table.name: session.execute(sa.select(*_lasting(table)).order_by(*table.primary_key)).all()
                for table in metadata.sorted_tables
            }

    return read


def _lasting(table: sa.Table) -> Iterator[sa.Column[Any]]:
    return (column for column in table.columns if column.name != "last_used_at")


def test_a_key_opens_a_route_where_it_has_the_scope_that_the_document_names_and_nowhere_else(
    contract: Contract,
    api_ctx: Context,
    shop: Api,
    operator: Api,
    ours: dict[str, str],
    theirs: dict[str, str],
    rows: Rows,
) -> None:
    keys = [(scopes, _with_scopes(api_ctx, shop, scopes)) for scopes in SUBSETS] + [(("admin",), operator)]
    before, opened, refused = rows(), 0, 0
    for method, template, operation in contract.operations():
        scope = contract.scope(operation)
        for scopes, caller in keys if scope is not None else ():
            # An object that there is not, and a body that is refused: whoever passes still does nothing.
            for path in (fill(template, {}), fill(template, ours | theirs)):
                if scope in scopes and path != fill(template, {}):
                    continue
                answer = caller.send(method, path, json={"unknown": 1} if "requestBody" in operation else None)
                if scope in scopes:
                    assert answer.status_code in (200, 404, 422), f"{method} {path} with {scopes}: {answer.text}"
                    opened += 1
                else:
                    assert problem(answer)[:2] == (403, "insufficient_scope"), f"{method} {path} with {scopes}"
                    refused += 1
    assert rows() == before
    assert opened > 150 and refused > 500


def test_what_another_merchant_has_is_as_if_it_were_not_there(
    contract: Contract,
    shop: Api,
    ours: dict[str, str],
    theirs: dict[str, str],
    rows: Rows,
) -> None:
    before, asked = rows(), 0
    for method, template, operation in _with_an_id(contract):
        example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        answers = [shop.send(method, fill(template, made), json=example) for made in (theirs, {})]
        assert problem(answers[0])[:2] == (404, "not_found"), template
        shown = [_without(answer, fill(template, made)) for answer, made in zip(answers, (theirs, {}), strict=True)]
        assert shown[0] == shown[1], f"{method} {template} tells what is there from what is not"
        asked += 1
    assert asked >= 13
    assert rows() == before


def test_what_bodies_and_queries_name_of_another_merchants_is_as_if_it_were_not_there(
    contract: Contract,
    shop: Api,
    ours: dict[str, str],
    theirs: dict[str, str],
    rows: Rows,
) -> None:
    before, asked = rows(), 0
    for method, template, operation in _of_merchants(contract):
        path = fill(template, ours)
        for name, prefix in _ids_in_the_query(operation):
            answers = [shop.send(method, f"{path}?{name}={id_}") for id_ in (theirs[prefix], f"{prefix}_{ID}")]
            _tells_nothing(answers[0], theirs)
            if name != "starting_after":  # which is a place in time: what is older is told after any id
                assert answers[0].status_code == answers[1].status_code
                assert _without(answers[0], theirs[prefix]) == _without(answers[1], f"{prefix}_{ID}")
            asked += 1
        for name, prefix in _ids_in_the_body(contract, operation):
            example = fit(operation["requestBody"]["content"]["application/json"]["example"], ours)
            answers = [shop.send(method, path, json=example | {name: i}) for i in (theirs[prefix], f"{prefix}_{ID}")]
            assert problem(answers[0])[:2] == (404, "not_found"), f"{method} {template} {name}"
            assert _without(answers[0], theirs[prefix]) == _without(answers[1], f"{prefix}_{ID}")
            asked += 1
    assert asked >= 10
    assert rows() == before


def test_a_list_holds_ones_own_alone(
    contract: Contract, shop: Api, rival: Api, ours: dict[str, str], theirs: dict[str, str]
) -> None:
    told = 0
    for method, template, operation in _of_merchants(contract):
        if method == "GET" and operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith(
            "List"
        ):
            for caller, own, others in ((shop, ours, theirs), (rival, theirs, ours)):
                answer = caller.get(fill(template, own))
                _tells_nothing(answer, others)
                told += len(answer.json["data"])
    assert told >= 30


def _with_scopes(ctx: Context, shop: Api, scopes: tuple[str, ...]) -> Api:
    _, key = create_key(ctx, by="tests", merchant_id=shop.merchant_id, scopes=scopes)
    return replace(shop, key=key)


def _of_merchants(contract: Contract) -> Iterator[Operation]:
    return (each for each in contract.operations() if contract.scope(each[2]) in MERCHANT_SCOPES)


def _with_an_id(contract: Contract) -> Iterator[Operation]:
    return (each for each in _of_merchants(contract) if "{" in each[1])


def _ids_in_the_query(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "query" and parameter["schema"].get("pattern", "").endswith("{25}$"):
            yield parameter["name"], parameter["schema"]["pattern"][1:4]


def _ids_in_the_body(contract: Contract, operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    schema = contract.resolve(contract.body_schema(operation) or {})
    return ((name, PREFIXES[name]) for name in schema.get("properties", {}) if name in PREFIXES)


def _without(answer: Any, asked: str) -> tuple[int, set[str], str]:
    """An answer without what must differ: the id that was asked for, and the request's own."""
    text = answer.text.replace(answer.headers["X-Request-Id"], "")
    for part in asked.split("/"):
        text = text.replace(part, "") if ID in part or "_" in part else text
    return answer.status_code, set(answer.headers.keys()), text


def _tells_nothing(answer: Any, theirs: dict[str, str]) -> None:
    """Fail where an answer holds anything of another merchant's, save what its request named."""
    asked = answer.request.url
    for value in theirs.values():
        assert value in asked or value not in answer.text, answer.text
