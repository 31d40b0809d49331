"""The connection to Postgres is cut at every statement of a request, before, during and after it, with Redis away.

Whoever asked gets a 503 and when to come again, never a 500, and asking again leads to one object.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from ctrip.context import Context
from ctrip.database import payments as payment_rows
from ctrip.database.engine import Sessions, make_engine
from ctrip.database.models import api_keys, events, payments, webhook_endpoints
from ctrip.domain.ids import Prefix
from ctrip.domain.quotas import Quota, QuotaOf
from ctrip.outbound.counters import Counters
from tests.api import READ_BLOCK, Api, make_context, problem
from tests.factories import NOON, block_time, make_chain, read_to, store_payment, store_transfer
from tests.postgres_line import Moment, PostgresLine
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

GOOD = {"chain": "anvil", "token": "USDC", "amount": "12.50"}
NOWHERE = "redis://127.0.0.1:1/0"
Request = Callable[[Api], Any]


@pytest.fixture
def line(postgres_url: str) -> Iterator[PostgresLine]:
    line = PostgresLine(postgres_url)
    yield line
    line.close()


@dataclass
class Far:
    """An API process that reaches Postgres by a line that can be cut, and never reaches Redis."""

    line: PostgresLine
    engine: sa.Engine
    app: Flask
    near: Context
    key: str | None
    is_done: bool = False
    """Whether the last request came to its end."""

    def begin_anew(self, key: str | None = None) -> Api:
        """A client of a process that has just begun: one connection, and nothing known of anybody."""
        self.engine.dispose()
        with self.engine.connect():
            pass
        ctx = make_context(Sessions(self.engine), redis_url=NOWHERE, new_id=self.near.new_id)
        quotas = {QuotaOf.KEY: Quota(10_000, 60), QuotaOf.ADDRESS: Quota(10_000, 60)}
        settings = replace(ctx.settings, quotas=quotas)
        self.app.extensions["ctrip"] = replace(ctx, settings=settings, counters=Counters(NOWHERE))
        with self.near.sessions.begin() as session:
            session.execute(sa.update(api_keys).values(last_used_at=None))
        return Api(self.app.test_client(), key or self.key)

    def cuts(
        self, moments: Iterable[Moment] = tuple(Moment), *, least: int = 5, key: str | None = None
    ) -> Iterator[tuple[Api, str]]:
        """Cut the line at each statement of the next request, from the first one on, until one comes to its end.

        It must have `least` statements.
        """
        for number in count(1):
            for moment in moments:
                api = self.begin_anew(key)
                self.line.cut(number, moment)
                yield api, f"{moment}, number {number}"
                if self.is_done:
                    assert number > least, f"there were statements to cut: {self.line.sent}"
                    return

    def ask(self, api: Api, request: Request, where: str) -> None:
        """Send a request whose line may be cut: then its answer must be a 503."""
        answer = request(api)
        self.is_done = self.line.spare()
        if self.is_done:
            assert answer.status_code < 500, answer.text
            return
        assert problem(answer)[:2] == (503, "unavailable"), f"{where}, {self.line.sent[-1][:200]}: {answer.text}"
        assert int(answer.headers["Retry-After"]) > 0


@pytest.fixture
def far(line: PostgresLine, app: Flask, api_ctx: Context, shop: Api) -> Iterator[Far]:
    engine = make_engine(line.url, process="far")
    yield Far(line, engine, app, api_ctx, shop.key)
    engine.dispose()


def again(api: Api, request: Request) -> Any:
    """Send a request until the one before it is over, as its answers say to do."""

    def answer() -> Any:
        told = request(api)
        return None if told.status_code == 409 and told.json["code"] == "idempotency_in_flight" else told

    return wait_until(answer, within_s=10)


def rows(ctx: Context, query: sa.Select[Any]) -> list[Any]:
    with ctx.sessions.begin() as session:
        return list(session.execute(query))


def test_a_create_is_repeated_with_its_key_until_it_made_one_payment(far: Far) -> None:
    numbers = count(1)
    for api, where in far.cuts():
        key = f"order-{next(numbers)}"

        def create(api: Api, key: str = key) -> Any:
            return api.post("/api/v1/payments", GOOD | {"order_id": key}, headers={"Idempotency-Key": key})

        far.ask(api, create, where)
        repeated = again(api, create)
        assert repeated.status_code == 201, repeated.text
        made = rows(far.near, sa.select(payments.c.id, payments.c.address).where(payments.c.order_id == key))
        assert [row.id for row in made] == [repeated.json["id"]], where
        assert f"0x{made[0].address.hex()}" == repeated.json["address"].lower()
        told = rows(far.near, sa.select(events.c.type).where(events.c.payment_id == made[0].id))
        assert [row.type for row in told] == ["payment.created"]
        assert api.get(f"/api/v1/payments/{made[0].id}").json == repeated.json
        assert api.post("/api/v1/payments", GOOD).status_code == 201, "an index that may be used is used no more"
    addresses = rows(far.near, sa.select(payments.c.address))
    assert len({row.address for row in addresses}) == len(addresses)


def test_a_payment_is_canceled_once(far: Far, shop: Api) -> None:
    for api, where in far.cuts():
        payment_id = shop_payment(far, shop)

        def cancel(api: Api, payment_id: str = payment_id) -> Any:
            return api.post(f"/api/v1/payments/{payment_id}/cancel")

        far.ask(api, cancel, where)
        # What was canceled, and its answer lost, is a conflict: the payment itself says that it is canceled.
        assert again(api, cancel).status_code in (200, 409), where
        assert_moved_once(far, api, payment_id, to="canceled")


def test_late_money_is_accepted_once(far: Far, shop: Api) -> None:
    for api, where in far.cuts():
        payment_id = paid_too_late(far.near, shop.merchant_id)

        def accept(api: Api, payment_id: str = payment_id) -> Any:
            return api.post(f"/api/v1/payments/{payment_id}/accept")

        far.ask(api, accept, where)
        assert again(api, accept).status_code in (200, 409), where
        assert_moved_once(far, api, payment_id, to="confirmed", by="payment.accepted")


def test_an_endpoint_is_made_at_most_once_by_each_request(far: Far, shop: Api) -> None:
    def create(api: Api) -> Any:
        return api.post("/api/v1/webhook_endpoints", {"url": "https://shop.example/hooks", "events": ["*"]})

    for api, where in far.cuts():
        far.ask(api, create, where)
        far.line.wait_at_rest()
        found = api.get("/api/v1/webhook_endpoints").json["data"]
        assert len(found) in ((1,) if far.is_done else (0, 1)), where
        # Its secret is shown once, and is not kept to be shown again: one that nobody was told of gets a new one.
        for endpoint in found:
            assert "secret" not in endpoint
            told = api.post(f"/api/v1/webhook_endpoints/{endpoint['id']}/rotate_secret")
            assert told.json["secret"].startswith("whsec_")
        with far.near.sessions.begin() as session:
            session.execute(sa.delete(webhook_endpoints))


def test_no_route_answers_with_anything_else(far: Far, shop: Api, operator: Api) -> None:
    """Each route of the API, also those that are made later, as far as a plain request gets there."""
    names = make_one_of_each(shop, operator)
    routes = sorted((rule.rule, method) for rule in far.app.url_map.iter_rules() for method in rule.methods or ())
    asked = []
    # What is deleted comes last: the others are to find it.
    for rule, method in sorted(routes, key=lambda route: route[1] == "DELETE"):
        if not rule.startswith(("/api/", "/admin/")) or method in ("HEAD", "OPTIONS"):
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: names[found[1]], rule)
        body = None if method in ("GET", "DELETE") else body_of(f"{method} {rule}", names)
        key = operator.key if rule.startswith("/admin/") else shop.key
        for api, where in far.cuts([Moment.BEFORE], least=2, key=key):
            far.ask(api, lambda api: api.send(method, path, json=body), f"{method} {rule}: {where}")  # noqa: B023
        asked.append(path)
    assert len(asked) > 40


def make_one_of_each(shop: Api, operator: Api) -> dict[str, str]:
    """The ids of one object of each kind, under the names that routes have for them."""
    endpoint = shop.post("/api/v1/webhook_endpoints", {"url": "https://shop.example/hooks", "events": ["*"]}).json
    payment = shop.ask()
    (delivery,) = shop.get(f"/api/v1/payments/{payment['id']}/deliveries").json["data"]
    key = operator.post("/admin/keys", {"merchant_id": shop.merchant_id, "scopes": ["payments:read"]}).json
    job = operator.post("/admin/scan-now", {"chain": "anvil"}).json
    return {
        "payment_id": payment["id"],
        "address": payment["address"],
        "event_id": delivery["event_id"],
        "endpoint_id": endpoint["id"],
        "delivery_id": delivery["id"],
        "merchant_id": shop.merchant_id,
        "key_id": key["id"],
        "job_id": job["id"],
        "letter_id": "dlt_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "name": "listener:31337",
    }


def body_of(route: str, names: dict[str, str]) -> dict[str, Any]:
    url = "https://shop.example/hooks"
    bulk = {"filter": {}, "dry_run": False}
    known: dict[str, dict[str, Any]] = {
        "POST /api/v1/payments": GOOD,
        "POST /api/v1/webhook_endpoints": {"url": url, "events": ["*"]},
        "PATCH /api/v1/webhook_endpoints/<endpoint_id>": {"url": f"{url}/2"},
        "POST /admin/merchants": {"name": "Another shop"},
        "POST /admin/keys": {"merchant_id": names["merchant_id"], "scopes": ["payments:read"]},
        "POST /admin/scan-now": {"chain": "anvil"},
        "POST /admin/sweep-now": {"chain": "anvil"},
        "POST /admin/backfill": {"chain": "anvil"},
        "POST /admin/sweep-address": {"chain": "anvil", "address": names["address"], "token": "USDC"},
        "POST /admin/process-payment": {"payment_id": names["payment_id"]},
        "POST /admin/send-webhook": {"payment_id": names["payment_id"], "type": "payment.created"},
        "POST /admin/custom-webhook": {"url": url, "payload": {"a": 1}},
        "POST /admin/dead-letters/replay": bulk,
        "POST /admin/dead-letters/purge": bulk,
    }
    return known.get(route, {})


def shop_payment(far: Far, shop: Api) -> str:
    with far.near.sessions.begin() as session:
        return store_payment(session, new_id=far.near.new_id, merchant_id=shop.merchant_id).id


def paid_too_late(ctx: Context, merchant_id: str) -> str:
    """A payment that expired, and whose money is final."""
    with ctx.sessions.begin() as session:
        payment = store_payment(
            session, new_id=ctx.new_id, merchant_id=merchant_id, created_at=NOON, expires_at=block_time(5)
        )
        store_transfer(session, payment, id=ctx.new_id(Prefix.TRANSFER))
        read_to(session, READ_BLOCK)
        payment_rows.reassess(session, [payment.id], chains={31337: make_chain()}, new_id=ctx.new_id)
    return payment.id


def assert_moved_once(far: Far, api: Api, payment_id: str, *, to: str, by: str | None = None) -> None:
    assert api.get(f"/api/v1/payments/{payment_id}").json["status"] == to
    query = sa.select(events.c.version, events.c.type).where(events.c.payment_id == payment_id)
    told = rows(far.near, query.order_by(events.c.version))
    assert [row.version for row in told] == list(range(1, len(told) + 1))
    assert [row.type for row in told].count(by or f"payment.{to}") == 1
