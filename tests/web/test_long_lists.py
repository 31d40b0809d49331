"""Lists in a database that is years old: whatever is asked for, a page reads a page, and nothing is left out of it."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from ctrip.context import Context
from ctrip.database import schema
from ctrip.database.engine import Sessions, make_engine
from ctrip.domain.merchants import MERCHANT_SCOPES
from ctrip.services.merchants import create_key
from tests.api import Api, make_context
from tests.factories import read_to
from tests.long_lists import BIG, ENDPOINTS, FIRST, MIDDLING, NEW, SMALL, Reading, cost, fill, statements

pytestmark = pytest.mark.infra

MERCHANTS = {"big": BIG, "middling": MIDDLING, "small": SMALL, "new": NEW}


@pytest.fixture(
    scope="module", params=[pytest.param(50_000), pytest.param(1_000_000, marks=pytest.mark.chaos)], ids="{:,}".format
)
def old_engine(engine: sa.Engine, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """A database of its own with so many payments."""
    name = f"old_{request.param}"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    old = make_engine(engine.url.set(database=name), process="tests")  # type: ignore[arg-type]
    schema.upgrade(old)
    fill(old, payments=request.param)
    with old.begin() as connection:
        read_to(connection, 20)
    yield old
    old.dispose()
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"DROP DATABASE {name}"))


@pytest.fixture
def old_ctx(old_engine: sa.Engine) -> Context:
    return make_context(Sessions(old_engine))


@pytest.fixture
def as_one_of(old_ctx: Context, built_app: Flask) -> Callable[[str | None], Api]:
    """A client of one of the merchants, or without one of an operator."""
    built_app.extensions["ctrip"] = old_ctx

    def make(merchant_id: str | None) -> Api:
        scopes = ["admin"] if merchant_id is None else MERCHANT_SCOPES
        _, key = create_key(old_ctx, by="tests", merchant_id=merchant_id, scopes=scopes)
        return Api(built_app.test_client(), key, merchant_id or "")

    return make


def page(api: Api, engine: sa.Engine, path: str) -> tuple[list[str], Reading]:
    """Ask for a page; returns the ids on it and what it cost."""
    api.get("/api/v1/chains")  # the key was seen a moment ago, as in any program that asks for two things
    with statements(engine) as run:
        answer = api.get(path)
    assert answer.status_code == 200, answer.text
    listed = answer.json["data"] if answer.json["object"] == "list" else [answer.json]
    return [each["id"] for each in listed], cost(engine, run)


LOOKS, MANY_LOOKS = 50, 100
"""Blocks: what it takes to find where a page begins in the indexes, some of them several times; of jobs in 36 lists."""


def is_a_page(found: list[str], read: Reading, *, looks: int = LOOKS) -> bool:
    """Say whether only a page was read. At a million rows a look into an index is four blocks or five, a row too."""
    # Six lists, one of each status, are merged: each may look at what the cursor leaves out, three rows of it here.
    return read.buffers <= looks + 5 * len(found) and read.rows <= 18 + 3 * len(found)


# @ and a number is the moment of the payment that has this place among a thousand.
FILTERS = [
    "",
    "status=settled",
    "status=expired",
    "status=canceled",  # the three oldest
    "status=detected",  # nobody's
    "chain=anvil",
    "chain=polygon",  # the three oldest
    "chain=nowhere",
    "status=expired&chain=base",  # many of either, and none of both
    "status=canceled&chain=anvil",
    "status=settled&chain=anvil",
    "order_id=order-20011",
    "order_id=donation",  # a hundredth of all
    "order_id=donation&created_before=@120",
    "order_id=order-11",  # another merchant's
    "order_id=none",
    "order_id=order-20011&status=canceled&chain=polygon",
    "created_before=@1",
    "created_before=@0",
    "created_after=@1001",
    "created_after=@120&created_before=@121",
    "created_after=@20&created_before=@120&status=settled",
    "created_before=@120&status=canceled",
    "created_before=@120&chain=base",
    "created_before=@120&status=expired&chain=anvil",
]


@pytest.mark.parametrize("who", MERCHANTS)
def test_a_page_of_payments_reads_a_page_whatever_is_asked_for(
    as_one_of: Callable[[str | None], Api], old_engine: sa.Engine, who: str
) -> None:
    shop = as_one_of(MERCHANTS[who])
    with old_engine.connect() as connection:
        ids = sa.text("SELECT id FROM payments WHERE merchant_id = :mine ORDER BY id")
        mine = list(connection.scalars(ids, {"mine": shop.merchant_id}))
        count = connection.scalar(sa.text("SELECT count(*) FROM payments")) or 0

    def moment(found: re.Match[str]) -> str:
        return (FIRST + timedelta(seconds=count * int(found[1]) // 1000)).strftime("%Y-%m-%dT%H:%M:%SZ")

    places = (len(mine) // 2, len(mine) // 100, 2, 0)
    middle, early, last, beyond = (f"starting_after={mine[place]}" for place in places)
    pages = [("", 20), (middle, 100), (early, 20), (last, 20), (beyond, 20)]
    for asked in (re.sub("@([0-9]+)", moment, each) for each in FILTERS):
        for more, limit in pages:
            path = "/api/v1/payments?" + "&".join(filter(None, (asked, more, f"limit={limit}")))
            found, read = page(shop, old_engine, path)
            assert found == expected(old_engine, shop.merchant_id, asked, more, limit), path
            assert is_a_page(found, read), (path, read)


def expected(engine: sa.Engine, merchant_id: str, asked: str, cursor: str, limit: int) -> list[str]:
    """What the page holds, by a query that reads all of the list."""
    operators = {"created_after": "created_at >", "created_before": "created_at <", "starting_after": "id <"}
    pairs = [pair.split("=") for pair in f"{asked}&{cursor}".split("&") if pair]
    wanted = [f"{operators.get(name, f'{name} =')} :{name}" for name, _ in pairs]
    where = " AND ".join(["merchant_id = :merchant_id", *wanted])
    with engine.connect() as connection:
        connection.execute(sa.text("SET LOCAL enable_indexscan = off"))
        query = sa.text(f"SELECT id FROM payments WHERE {where} ORDER BY id DESC LIMIT :limit")
        return list(connection.scalars(query, {"merchant_id": merchant_id, "limit": limit, **dict(pairs)}))


@pytest.mark.parametrize("who", MERCHANTS)
def test_a_payment_and_what_belongs_to_it_is_found_at_once(
    as_one_of: Callable[[str | None], Api], old_engine: sa.Engine, who: str
) -> None:
    shop = as_one_of(MERCHANTS[who])
    first = shop.get("/api/v1/payments?limit=1").json["data"][0]["id"]
    for below in ("", "/transfers", "/events", "/deliveries"):
        found, read = page(shop, old_engine, f"/api/v1/payments/{first}{below}")
        assert is_a_page(found, read), (below, read)


@pytest.mark.parametrize("who", MERCHANTS)
def test_a_page_of_events_or_deliveries_reads_a_page(
    as_one_of: Callable[[str | None], Api], old_engine: sa.Engine, who: str
) -> None:
    shop = as_one_of(MERCHANTS[who])
    first = shop.get("/api/v1/payments?limit=1").json["data"][0]["id"].removeprefix("pay_")
    deliveries = [
        "",
        "status=delivered",
        "status=dead",
        "status=pending",
        f"event_id=evt_{first}",
        f"event_id=evt_{first}&status=dead",
        f"starting_after=whd_01{4:0>24}",
        f"starting_after=whd_01{4:0>24}&status=delivered",
        *(
            f"endpoint_id={endpoint}{more}"
            for endpoint in ENDPOINTS.values()
            for more in ("", "&status=dead", "&status=pending", f"&starting_after=whd_01{9:0>24}")
        ),
        f"endpoint_id=whe_01{'N0NE':0>24}",
    ]
    paths = [f"/api/v1/webhook_deliveries?{asked}" for asked in deliveries]
    paths += ["/api/v1/events", f"/api/v1/events?starting_after=evt_01{9:0>24}", f"/api/v1/events/evt_{first}"]
    for path in paths:
        found, read = page(shop, old_engine, path)
        assert is_a_page(found, read), (path, read)
        if path.endswith("status=dead") and "event_id" not in path:
            assert len(found) == (
                3 if shop.merchant_id == BIG and ("whe_" not in path or ENDPOINTS[BIG] in path) else 0
            )


def test_a_page_of_what_operators_see_reads_a_page(
    as_one_of: Callable[[str | None], Api], old_engine: sa.Engine
) -> None:
    operator = as_one_of(None)
    paths = {
        "/admin/keys": 20,
        f"/admin/keys?merchant_id={SMALL}": None,
        f"/admin/keys?merchant_id={NEW}": None,
        "/admin/audit-log": 20,
        "/admin/audit-log?action=dead_letters.": 20,
        "/admin/audit-log?action=keys.revoke": 5,
        "/admin/audit-log?action=keys.r&by=cli:somebody": 3,
        "/admin/audit-log?by=cli:somebody": 3,
        "/admin/audit-log?by=nobody": 0,
        "/admin/audit-log?by=scheduler&action=keys.": 2,
        "/admin/audit-log?action=loops.": 0,
        "/admin/jobs": 20,
        "/admin/jobs?kind=backfill": 3,
        "/admin/jobs?kind=sweep-now": 0,
        "/admin/jobs?status=failed": 5,
        "/admin/jobs?kind=scan-now&status=failed": 2,
        "/admin/dead-letters": 20,
        "/admin/dead-letters?state=open": 6,
        "/admin/dead-letters?state=purged": 0,
        "/admin/dead-letters?queue=email": 3,
        "/admin/dead-letters?queue=webhook&state=open": 3,
        "/admin/dead-letters?actor=send_email": 3,
        "/admin/dead-letters?queue=sweeper": 0,
    }
    for path, count in paths.items():
        found, read = page(operator, old_engine, path)
        assert count is None or len(found) == count, path
        # Of a short table Postgres may read all, if that takes fewer blocks.
        assert is_a_page(found, dataclasses.replace(read, rows=0), looks=MANY_LOOKS), (path, read)
