"""Quotas of requests: by key and by address, told in each answer, and counted together by all processes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from ctrip.context import Context
from ctrip.domain.quotas import Quota, QuotaOf
from ctrip.outbound.counters import Counters
from ctrip.services.merchants import create_key
from ctrip.web import create_app
from tests.api import Api, problem

pytestmark = pytest.mark.infra
NOON = datetime(2026, 11, 22, 12, 0, 20, tzinfo=UTC)
PATH = "/api/v1/payments"
Limited = Callable[..., Api]


@pytest.fixture
def limited(serving: Context, shop: Api, redis_client: Redis, redis_url: str) -> Iterator[Limited]:
    """Make the shop's client of one more API process, whose keys have 3 requests in a minute, and addresses 2."""
    counters: list[Counters] = []

    def make(url: str = redis_url, *, now: datetime = NOON, key: str | None = shop.key, **changes: Any) -> Api:
        counters.append(Counters(url))
        quotas = {QuotaOf.KEY: Quota(3, 60), QuotaOf.ADDRESS: Quota(2, 60)}
        settings = replace(serving.settings, quotas=quotas, **changes)
        ctx = replace(serving, settings=settings, counters=counters[-1], now=lambda: now)
        return Api(create_app(ctx).test_client(), key, shop.merchant_id)

    yield make
    for each in counters:
        each.close()


def test_each_answer_says_how_many_requests_are_left(limited: Limited) -> None:
    api = limited()
    answers = [api.get(PATH) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.headers["RateLimit"] for answer in answers] == [f'"key";r={left};t=40' for left in (2, 1, 0)]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"key";q=3;w=60'}
    assert "Retry-After" not in answers[-1].headers
    refused = api.get(PATH)
    assert problem(refused) == (429, "rate_limited", None)
    assert (refused.headers["Retry-After"], refused.headers["RateLimit"]) == ("40", '"key";r=0;t=40')
    assert refused.json["detail"] == "this key may send 3 requests in 60 s; go on in 40 s"


def test_a_refused_request_does_nothing(limited: Limited) -> None:
    api = limited()
    for _ in range(3):
        api.get(PATH)
    asked = api.post(PATH, {"chain": "anvil", "amount": "1"}, headers={"Idempotency-Key": "one"})
    assert problem(asked) == (429, "rate_limited", None)
    later = limited(now=NOON + timedelta(minutes=1))
    assert later.get(PATH).json["data"] == []
    made = later.post(PATH, {"chain": "anvil", "amount": "1"}, headers={"Idempotency-Key": "one"})
    assert (made.status_code, "Idempotency-Replayed" in made.headers) == (201, False)


def test_all_processes_count_together_and_each_key_for_itself(limited: Limited, api_ctx: Context, shop: Api) -> None:
    one, other = limited(), limited()
    _, key = create_key(api_ctx, by="tests", merchant_id=shop.merchant_id, scopes=["payments:read"])
    assert [api.get(PATH).status_code for api in (one, other, one, other)] == [200, 200, 200, 429]
    assert limited(key=key).get(PATH).status_code == 200


def test_a_key_without_the_scope_is_counted_too(limited: Limited, api_ctx: Context, shop: Api) -> None:
    _, key = create_key(api_ctx, by="tests", merchant_id=shop.merchant_id, scopes=["webhooks:read"])
    api = limited(key=key)
    assert [api.get(PATH).status_code for _ in range(4)] == [403, 403, 403, 429]


@pytest.mark.parametrize("key", [None, "sk_unknown_" + "a" * 43])
def test_an_address_without_a_key_that_is_right_is_refused_and_stops_no_other_caller(
    limited: Limited, key: str | None
) -> None:
    api = limited(key=key)
    answers = [api.get(PATH) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert answers[0].headers["RateLimit"] == '"address";r=1;t=40'
    assert problem(answers[-1]) == (429, "rate_limited", None)
    assert answers[-1].headers["Retry-After"] == "40"
    assert limited().get(PATH).status_code == 200, "a caller behind the same proxy, whose key is right"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_pages_that_need_no_key_are_counted_by_address(limited: Limited, path: str) -> None:
    api = limited(key=None)
    assert [api.get(path).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_probes_are_not_counted(limited: Limited, path: str) -> None:
    api = limited(key=None)
    assert {api.get(path).status_code for _ in range(5)} == {200}


def test_while_redis_is_away_requests_are_answered_and_counted(limited: Limited) -> None:
    api = limited("redis://127.0.0.1:1/0")
    assert [api.get(PATH).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_without_a_quota_nothing_is_counted_or_told(limited: Limited, shop: Api) -> None:
    answers = [shop.get(PATH) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("RateLimit" in answer.headers for answer in answers)
