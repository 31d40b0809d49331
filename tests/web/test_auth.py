"""Who gets in, and how far."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from ctrip.context import Context
from ctrip.domain.merchants import Scope
from ctrip.services.merchants import create_key, list_keys, revoke_key
from tests.api import Api, problem

pytestmark = pytest.mark.infra

ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

ROUTES: list[tuple[str, str, Scope]] = [
    ("POST", "/api/v1/payments", Scope.PAYMENTS_WRITE),
    ("GET", "/api/v1/payments", Scope.PAYMENTS_READ),
    ("GET", f"/api/v1/payments/pay_{ID}", Scope.PAYMENTS_READ),
    ("POST", f"/api/v1/payments/pay_{ID}/cancel", Scope.PAYMENTS_WRITE),
    ("POST", f"/api/v1/payments/pay_{ID}/accept", Scope.PAYMENTS_WRITE),
    ("GET", f"/api/v1/payments/pay_{ID}/transfers", Scope.PAYMENTS_READ),
    ("GET", f"/api/v1/payments/pay_{ID}/events", Scope.PAYMENTS_READ),
    ("GET", f"/api/v1/payments/pay_{ID}/deliveries", Scope.PAYMENTS_READ),
    ("GET", "/api/v1/events", Scope.PAYMENTS_READ),
    ("GET", f"/api/v1/events/evt_{ID}", Scope.PAYMENTS_READ),
    ("GET", "/api/v1/webhook_deliveries", Scope.WEBHOOKS_READ),
    ("GET", f"/api/v1/payments/pay_{ID}/quotes", Scope.PAYMENTS_READ),
    ("POST", f"/api/v1/payments/pay_{ID}/choose", Scope.PAYMENTS_WRITE),
    ("POST", "/api/v1/webhook_endpoints", Scope.WEBHOOKS_WRITE),
    ("GET", "/api/v1/webhook_endpoints", Scope.WEBHOOKS_READ),
    ("GET", f"/api/v1/webhook_endpoints/whe_{ID}", Scope.WEBHOOKS_READ),
    ("PATCH", f"/api/v1/webhook_endpoints/whe_{ID}", Scope.WEBHOOKS_WRITE),
    ("POST", f"/api/v1/webhook_endpoints/whe_{ID}/test", Scope.WEBHOOKS_WRITE),
    ("POST", f"/api/v1/webhook_endpoints/whe_{ID}/rotate_secret", Scope.WEBHOOKS_WRITE),
    ("DELETE", f"/api/v1/webhook_endpoints/whe_{ID}", Scope.WEBHOOKS_WRITE),
    ("GET", f"/api/v1/webhook_deliveries/whd_{ID}", Scope.WEBHOOKS_READ),
    ("POST", f"/api/v1/webhook_deliveries/whd_{ID}/redeliver", Scope.WEBHOOKS_WRITE),
    ("POST", "/api/v1/webhook_deliveries/redeliver", Scope.WEBHOOKS_WRITE),
    ("GET", "/api/v1/chains", Scope.PAYMENTS_READ),
    ("POST", "/admin/merchants", Scope.ADMIN),
    ("POST", "/admin/keys", Scope.ADMIN),
    ("GET", "/admin/keys", Scope.ADMIN),
    ("POST", f"/admin/keys/key_{ID}/rotate", Scope.ADMIN),
    ("DELETE", f"/admin/keys/key_{ID}", Scope.ADMIN),
    ("POST", "/admin/scan-now", Scope.ADMIN),
    ("POST", "/admin/sweep-now", Scope.ADMIN),
    ("POST", "/admin/sweep-address", Scope.ADMIN),
    ("POST", "/admin/process-payment", Scope.ADMIN),
    ("POST", "/admin/backfill", Scope.ADMIN),
    ("POST", "/admin/send-webhook", Scope.ADMIN),
    ("POST", "/admin/custom-webhook", Scope.ADMIN),
    ("GET", "/admin/jobs", Scope.ADMIN),
    ("GET", f"/admin/jobs/job_{ID}", Scope.ADMIN),
    ("GET", "/admin/loops", Scope.ADMIN),
    ("POST", "/admin/loops/listener:1/pause", Scope.ADMIN),
    ("POST", "/admin/loops/listener:1/resume", Scope.ADMIN),
    ("POST", "/admin/loops/listener:1/run", Scope.ADMIN),
    ("GET", "/admin/queues", Scope.ADMIN),
    ("GET", "/admin/dead-letters", Scope.ADMIN),
    ("GET", f"/admin/dead-letters/dlt_{ID}", Scope.ADMIN),
    ("POST", "/admin/dead-letters/replay", Scope.ADMIN),
    ("POST", "/admin/dead-letters/purge", Scope.ADMIN),
    ("GET", "/admin/audit-log", Scope.ADMIN),
]
PUBLIC = {"/", "/health", "/livez", "/readyz", "/openapi.json", "/docs", "/static/<path:filename>"}


def test_the_table_above_names_every_route(app: Flask) -> None:
    match = app.url_map.bind("localhost").match
    named = {match(path, method=method)[0] for method, path, _ in ROUTES}
    assert named == {rule.endpoint for rule in app.url_map.iter_rules() if rule.rule not in PUBLIC}


def test_no_route_lets_in_who_has_no_key(nobody: Api) -> None:
    for method, path, _ in ROUTES:
        answer = nobody.send(method, path, data=b"not even JSON")
        assert problem(answer)[:2] == (401, "unauthorized"), path
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_no_route_lets_in_a_key_that_lacks_its_scope(as_merchant: Callable[..., Api], operator: Api) -> None:
    for method, path, scope in ROUTES:
        if scope is Scope.ADMIN:
            others = as_merchant()
        else:
            others = as_merchant(scopes=tuple(set(Scope) - {Scope.ADMIN, scope}))
            assert problem(operator.send(method, path))[:2] == (403, "insufficient_scope"), path
        assert problem(others.send(method, path))[:2] == (403, "insufficient_scope"), path


def test_the_scope_is_enough(as_merchant: Callable[..., Api], operator: Api) -> None:
    for method, path, scope in ROUTES:
        caller = operator if scope is Scope.ADMIN else as_merchant(scopes=(scope,))
        assert caller.send(method, path).status_code not in (401, 403), path


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic c2s6c2s=",
        "Bearer sk_",
        "Bearer sk_01ARZ3NDEKTSV4RRFFQ69G5FAV_" + "x" * 43,
        "Bearer sk_01ARZ3NDEKTSV4RRFFQ69G5FAV_" + "x" * 60_000,
        "Bearer sk_' OR 1=1 --_x",
        "Bearer sk_a_\xff",
        "sk_01ARZ3NDEKTSV4RRFFQ69G5FAV_x",
    ],
    ids=lambda header: header[:50],
)
def test_what_is_no_good_key_is_401(app: Flask, header: str) -> None:
    answer = app.test_client().get("/api/v1/payments", headers={"Authorization": header})
    assert problem(answer)[:2] == (401, "unauthorized")


def test_a_good_id_with_another_secret_is_401(shop: Api, rival: Api, app: Flask) -> None:
    assert shop.key is not None and rival.key is not None
    mixed = Api(app.test_client(), shop.key.rpartition("_")[0] + "_" + rival.key.rpartition("_")[2])
    assert problem(mixed.get("/api/v1/payments"))[:2] == (401, "unauthorized")


def test_the_word_bearer_may_be_written_in_any_case(shop: Api, app: Flask) -> None:
    answer = app.test_client().get("/api/v1/payments", headers={"Authorization": f"bearer {shop.key}"})
    assert answer.status_code == 200


def test_a_revoked_key_is_401_from_the_next_request_on(shop: Api, api_ctx: Context) -> None:
    assert shop.get("/api/v1/payments").status_code == 200
    revoke_key(api_ctx, list_keys(api_ctx, merchant_id=shop.merchant_id)[0].id, by="tests")
    assert problem(shop.get("/api/v1/payments"))[:2] == (401, "unauthorized")


def test_an_expired_key_is_401(shop: Api, api_ctx: Context, app: Flask) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=400)
    _, key = create_key(api_ctx, by="tests", merchant_id=shop.merchant_id, scopes=["payments:read"], expires_at=soon)
    short = Api(app.test_client(), key)
    from tests.waiting import wait_until

    answer = wait_until(
        lambda: (a := short.get("/api/v1/payments")).status_code == 401 and a, within_s=5, what="the key expired"
    )
    assert problem(answer)[:2] == (401, "unauthorized")


def test_the_query_string_carries_no_key(shop: Api, nobody: Api) -> None:
    assert nobody.get(f"/api/v1/payments?api_key={shop.key}").status_code == 401
