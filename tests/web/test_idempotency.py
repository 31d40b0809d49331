"""Idempotency-Key: a request that is repeated makes nothing a second time, whatever happened to the first answer."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from ctrip.context import Context
from ctrip.database import creating
from ctrip.database import idempotency as idempotency_rows
from ctrip.database.models import idempotency_keys, payments
from ctrip.domain.idempotency import KEPT_FOR, Once, hash_body
from ctrip.services.housekeeping import forget
from ctrip.web import create_app
from ctrip.web import idempotency as answers
from tests.api import Api, problem

pytestmark = pytest.mark.infra

GOOD: dict[str, Any] = {"chain": "anvil", "token": "USDC", "amount": "12.50"}


def create(api: Api, key: str, **fields: Any) -> Any:
    return api.post("/api/v1/payments", GOOD | fields, headers={"Idempotency-Key": key})


def count(ctx: Context, table: sa.Table) -> int:
    with ctx.sessions.begin() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def at(ctx: Context, key: str, *, later: timedelta) -> Api:
    """A client of an API whose clock is ahead."""
    ahead = dataclasses.replace(ctx, now=lambda: ctx.now() + later)
    return Api(create_app(ahead).test_client(), key)


def test_the_first_answer_is_given_again_byte_for_byte(shop: Api, api_ctx: Context) -> None:
    first = create(shop, "order-1001", metadata={"größe": "XL"})
    again = create(shop, "order-1001", metadata={"größe": "XL"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.data == first.data
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert count(api_ctx, payments) == 1


def test_the_answer_stays_what_it_was_when_the_payment_has_moved_on(shop: Api) -> None:
    first = create(shop, "k")
    shop.post(f"/api/v1/payments/{first.json['id']}/cancel")
    assert create(shop, "k").json["status"] == "pending"


def test_the_order_of_fields_and_white_space_do_not_make_another_body(shop: Api) -> None:
    first = create(shop, "k")
    body = b'{ "amount":"12.50",\n "token" : "USDC", "chain":"anvil" }'
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    again = shop.send("POST", "/api/v1/payments", data=body, headers=headers)
    assert (again.status_code, again.data) == (201, first.data)


@pytest.mark.parametrize(
    "other",
    [{"amount": "12.5"}, {"amount": "1"}, {"order_id": "2"}, {"metadata": {"a": 1}}, {"expires_in": 1801}],
    ids=str,
)
def test_another_body_with_the_same_key_is_422(shop: Api, api_ctx: Context, other: dict[str, Any]) -> None:
    create(shop, "k")
    assert problem(create(shop, "k", **other)) == (422, "idempotency_key_reused", "Idempotency-Key")
    assert count(api_ctx, payments) == 1


def test_keys_of_two_merchants_are_strangers(shop: Api, rival: Api) -> None:
    ours, theirs = create(shop, "k").json, create(rival, "k", amount="1").json
    assert ours["id"] != theirs["id"]


def test_without_a_key_each_request_makes_a_payment(shop: Api) -> None:
    assert shop.ask()["id"] != shop.ask()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "schlüssel"], ids=["empty", "256", "a tab", "not ASCII"])
def test_a_key_that_cannot_be_is_422(shop: Api, key: str) -> None:
    assert problem(create(shop, key)) == (422, "invalid_value", "Idempotency-Key")


@pytest.mark.parametrize("key", ["x" * 255, " ", "a key, with 'quotes' and \\"])
def test_any_printable_key_will_do(shop: Api, key: str) -> None:
    assert create(shop, key).status_code == 201
    assert create(shop, key).headers["Idempotency-Replayed"] == "true"


def test_a_refusal_is_not_kept(shop: Api, api_ctx: Context) -> None:
    assert problem(create(shop, "k", amount="0"))[0] == 422
    assert problem(create(shop, "k", token="DOGE"))[0] == 422
    assert problem(create(shop, "k", chain="fresh", token=None))[0] == 503
    assert count(api_ctx, idempotency_keys) == 0
    assert create(shop, "k").status_code == 201


def test_a_key_is_kept_for_72_hours_and_then_free_again(shop: Api, serving: Context) -> None:
    assert shop.key is not None
    first = create(shop, "k")
    hour = timedelta(hours=1)
    assert create(at(serving, shop.key, later=KEPT_FOR - hour), "k").data == first.data
    second = create(at(serving, shop.key, later=KEPT_FOR + hour), "k", amount="1")
    assert second.status_code == 201 and second.json["id"] != first.json["id"]
    assert create(at(serving, shop.key, later=KEPT_FOR + 2 * hour), "k", amount="1").data == second.data


def test_keys_that_are_out_of_date_are_forgotten(shop: Api, api_ctx: Context) -> None:
    create(shop, "old")
    assert forget(api_ctx) == 0
    later = dataclasses.replace(api_ctx, now=lambda: api_ctx.now() + KEPT_FOR + timedelta(hours=1))
    assert shop.key is not None
    create(Api(create_app(later).test_client(), shop.key), "new")
    assert (forget(later), forget(later)) == (1, 0)
    assert count(api_ctx, idempotency_keys) == 1


def test_a_crash_before_the_commit_leaves_neither_payment_nor_answer(
    shop: Api, api_ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(creating, "add", _dies)
        with pytest.raises(KeyboardInterrupt):
            create(shop, "k")
    assert (count(api_ctx, payments), count(api_ctx, idempotency_keys)) == (0, 0)
    assert create(shop, "k").status_code == 201, "the key is free at once"


def test_a_crash_after_the_commit_gives_the_stored_answer_again(
    shop: Api, api_ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(answers, "respond", _dies)
        with pytest.raises(KeyboardInterrupt):
            create(shop, "k")
    assert count(api_ctx, payments) == 1, "it was made, and nobody was told"
    again = create(shop, "k")
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert shop.get(f"/api/v1/payments/{again.json['id']}").json == again.json
    assert count(api_ctx, payments) == 1


def _dies(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_while_the_first_request_runs_the_second_is_409(shop: Api, api_ctx: Context) -> None:
    with api_ctx.sessions.begin() as session:
        once = Once(route="POST /api/v1/payments", key="k", body_hash=hash_body(GOOD))
        number = idempotency_rows.lock_number(shop.merchant_id, once)
        assert session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(number))) is True
        answer = create(shop, "k")
        assert problem(answer)[:2] == (409, "idempotency_in_flight")
        assert int(answer.headers["Retry-After"]) > 0
    assert create(shop, "k").status_code == 201, "the hold ended with the transaction"


def test_50_keys_of_8_parallel_requests_make_50_payments(shop: Api, api_ctx: Context, app: Flask) -> None:
    keys = [f"key-{n}" for n in range(50)]

    def until_answered(key: str) -> Any:
        client = Api(app.test_client(), shop.key)
        for _ in range(200):
            answer = create(client, key, order_id=key)
            if answer.status_code != 409:
                return answer
            assert answer.json["code"] == "idempotency_in_flight"
        raise AssertionError("the key never came free")

    with ThreadPoolExecutor(16) as pool:
        # The eight requests of a key stand side by side in the queue, so that they meet.
        answers = list(pool.map(until_answered, [key for key in keys for _ in range(8)]))
    assert {answer.status_code for answer in answers} == {201}
    by_key = [answers[n : n + 8] for n in range(0, len(answers), 8)]
    for same in by_key:
        assert len({answer.data for answer in same}) == 1
        assert sum("Idempotency-Replayed" not in answer.headers for answer in same) == 1, "one was the first"
    assert len({same[0].json["address"] for same in by_key}) == 50
    assert count(api_ctx, payments) == 50
