"""After a run with everything in it, no secret stands where anybody could read it."""

import json
from typing import Any

import pytest
import requests
from redis import Redis

from tests.leaks import everything, leaks, told_secrets
from tests.shop import Shop
from tests.sink import Received, Sink
from tests.stack import RunningStack
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

PLANTED = {"api key": "sk_live_0123456789abcdef", "webhook secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}


class Client:
    """Requests with one key; keeps each secret that an answer showed."""

    def __init__(self, stack: RunningStack, key: str) -> None:
        self.shown: dict[str, str] = {}
        self._api = stack["api"]
        self._headers = {"Authorization": f"Bearer {key}"}

    def ask(self, method: str, path: str, *, status: int, key: str | None = None, **body: Any) -> dict[str, Any]:
        headers = self._headers | ({} if key is None else {"Idempotency-Key": key})
        content = body if method == "POST" else None
        answer = requests.request(method, self._api + path, headers=headers, json=content, timeout=20)
        assert answer.status_code == status, answer.text
        told: dict[str, Any] = answer.json()
        for name in ("secret", "webhook_secret", "key"):
            if name in told:
                self.shown[f"{name} of {path}, {len(self.shown)}"] = told[name]
        return told


def gone_or_fine(received: Received) -> int:
    return 410 if received.path.endswith("/gone") else 200


def of_kind(client: Client, **wanted: str) -> list[dict[str, Any]]:
    path = "/admin/dead-letters?" + "&".join(f"{name}={value}" for name, value in wanted.items())
    return list(client.ask("GET", path, status=200)["data"])


@pytest.mark.timeout(240)
def test_no_secret_is_in_redis_logs_rows_letters_or_metrics_after_a_run_with_everything_in_it(
    stack: RunningStack,
) -> None:
    shop = Shop(stack.facts())
    merchant, operator = Client(stack, stack["api_key"]), Client(stack, stack["admin_key"])
    with Sink(gone_or_fine) as sink:
        # Merchants, keys and endpoints, whose secrets are shown once; rotation; a test of the endpoint.
        other = operator.ask("POST", "/admin/merchants", status=201, name="Another shop", email="shop@example.com")
        scopes = ["payments:read", "payments:write"]
        operator.ask("POST", "/admin/keys", status=201, merchant_id=other["id"], scopes=scopes)
        extra = operator.ask("POST", "/admin/keys", status=201, merchant_id=None, scopes=["admin"])
        operator.ask("DELETE", f"/admin/keys/{extra['id']}", status=200)
        made = merchant.ask(
            "POST", "/api/v1/webhook_endpoints", status=201, key="once", url=sink.url + "/all", events=["*"]
        )
        endpoint = f"/api/v1/webhook_endpoints/{made['id']}"
        merchant.ask("POST", endpoint + "/rotate_secret", status=200)
        merchant.ask("POST", endpoint + "/test", status=202)
        # A key that nobody knows.
        wrong = requests.get(
            stack["api"] + "/api/v1/payments", headers={"Authorization": f"Bearer {PLANTED['api key']}"}, timeout=5
        )
        assert wrong.status_code == 401

        # Payments: paid, swept, told to an endpoint and to a URL that says 410, which makes dead letters.
        paid = shop.ask("0.02", webhook_url=sink.url + "/gone", customer_email="buyer@example.com")
        shop.pay(paid)
        shop.wait_for(paid, "settled", within_s=60)
        sink_types = {"payment.created", "payment.detected", "payment.confirmed"}
        wait_until(lambda: sink_types <= {each.event.get("type") for each in sink.received}, within_s=30)

        # Jobs of each kind that reads, and custom webhooks.
        jobs = [
            operator.ask("POST", "/admin/scan-now", status=202, chain=stack["chain"]),
            operator.ask("POST", "/admin/process-payment", status=202, payment_id=paid["id"]),
            operator.ask("POST", "/admin/sweep-now", status=202, chain=stack["chain"]),
            operator.ask("POST", "/admin/send-webhook", status=202, payment_id=paid["id"], type="payment.confirmed"),
            operator.ask(
                "POST", "/admin/custom-webhook", status=202, url=sink.url, payload={"a": 1}, merchant_id=other["id"]
            ),
        ]
        wait_until(lambda: all(is_over(operator, job["status_url"]) for job in jobs), within_s=60, what="they are over")

        # A message that nobody knows dies too; letters are replayed and purged.
        with Redis.from_url(stack["redis_url"]) as redis:
            message = {
                "queue_name": "webhook",
                "actor_name": "nobody",
                "args": ["row"],
                "kwargs": {},
                "options": {"redis_message_id": "leak-1"},
                "message_id": "leak-1",
                "message_timestamp": 1,
            }
            redis.hset("ctrip:webhook.msgs", "leak-1", json.dumps(message))
            redis.rpush("ctrip:webhook", "leak-1")
        wait_until(lambda: of_kind(operator, actor="nobody"), within_s=30, what="the unknown message is a letter")
        wait_until(lambda: of_kind(operator, reason="endpoint_disabled"), within_s=30, what="a 410 is a letter")
        replayed = stack.ctrip("dlq", "replay", "--reason", "endpoint_disabled")
        assert replayed.returncode == 0, replayed.stderr
        purged = stack.ctrip("dlq", "purge", "--actor", "nobody")
        assert purged.returncode == 0, purged.stderr
        # Others share this stack, and would wait for an endpoint that nobody serves any more.
        merchant.ask("DELETE", endpoint, status=200)

    secrets = told_secrets(stack) | merchant.shown | operator.shown | {"the wrong key": PLANTED["api key"]}
    assert len(merchant.shown) >= 2
    assert len(operator.shown) >= 3
    texts = list(everything(stack))
    places = {place.partition(" ")[0] for place, _ in texts}
    assert places == {"redis", "row", "log", "metrics", "command"}
    found = leaks(texts, secrets)
    assert not found, "\n".join(found)


def is_over(client: Client, path: str) -> bool:
    return client.ask("GET", path, status=200)["status"] in ("done", "failed")


@pytest.mark.parametrize("name", PLANTED)
def test_a_secret_that_did_leak_would_be_found(stack: RunningStack, name: str) -> None:
    secret = PLANTED[name]
    with Redis.from_url(stack["redis_url"]) as redis:
        redis.hset("leak:planted", "somewhere", f"in {secret} between")
        try:
            found = leaks(everything(stack), {name: secret})
        finally:
            redis.delete("leak:planted")
    assert any("leak:planted" in each for each in found)
    for form in (secret.encode().hex(), secret.removeprefix("whsec_")):
        assert leaks([("a row", f'{{"x": "\\\\x{form}"}}')], {name: secret}) != []
