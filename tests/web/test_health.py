"""Alive, ready, degraded: what balancers are told, and what happens to requests while Postgres is away."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.engine import Sessions, make_engine
from ctrip.database.models import chain_cursors
from ctrip.database.models import loops as loop_rows
from ctrip.services.loops import ensure_loops
from ctrip.web import create_app
from tests.api import Api, problem
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


def serve(ctx: Context, **changes: Any) -> Api:
    """A client without a key, of an API with other settings or parts."""
    settings = {name: changes.pop(name) for name in ("redis_url", "chains") if name in changes}
    ctx = dataclasses.replace(ctx, settings=dataclasses.replace(ctx.settings, **settings), **changes)
    return Api(create_app(ctx).test_client(), None)


@pytest.fixture
def away() -> Sessions:
    """Sessions of a Postgres that is not there."""
    return Sessions(make_engine("postgresql+psycopg2://nobody@/none?host=/nowhere", process="tests"))


@pytest.fixture
def well(api_ctx: Context, redis_url: str) -> dict[str, Any]:
    """What makes the API ready: Redis, and one chain that is read."""
    ensure_loops(api_ctx)
    with api_ctx.sessions.begin() as session:
        session.execute(sa.update(loop_rows).values(last_tick_at=sa.func.now()))
    return {"redis_url": redis_url, "chains": api_ctx.settings.chains[:1]}


@pytest.mark.parametrize("path", ["/readyz", "/health"])
def test_where_all_is_well_it_says_so(serving: Context, well: dict[str, Any], path: str) -> None:
    answer = serve(serving, **well).get(path)
    checks = {"postgres": "ok", "migrations": "ok", "redis": "ok", "chains": {"anvil": "ok"}}
    assert (answer.status_code, answer.json["status"], answer.json["checks"]) == (200, "ok", checks)


def test_redis_away_is_degraded_and_payments_are_created_all_the_same(
    serving: Context, well: dict[str, Any], shop: Api
) -> None:
    answer = serve(serving, **well | {"redis_url": "redis://127.0.0.1:1/0"}).get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (200, "degraded")
    assert answer.json["checks"]["redis"] == "unavailable"
    assert shop.ask()["status"] == "pending"


LATE = datetime.now(UTC) - timedelta(minutes=2)

CHAIN_STATES: list[tuple[str, sa.Update, str]] = [
    ("stopped", sa.update(chain_cursors).values(stopped_reason="a reorg deeper than the window"), "stopped"),
    ("behind", sa.update(chain_cursors).values(head_block=10_000), "lagging"),
    ("a listener that is gone", sa.update(loop_rows).values(last_tick_at=LATE), "lagging"),
    ("a listener that never ran", sa.update(loop_rows).values(last_tick_at=None), "lagging"),
]


@pytest.mark.parametrize(
    ("fault", "state"), [case[1:] for case in CHAIN_STATES], ids=[case[0] for case in CHAIN_STATES]
)
def test_a_chain_that_is_amiss_is_degraded(
    api_ctx: Context, serving: Context, well: dict[str, Any], fault: sa.Update, state: str
) -> None:
    with api_ctx.sessions.begin() as session:
        session.execute(fault)
    answer = serve(serving, **well).get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (200, "degraded")
    assert answer.json["checks"]["chains"] == {"anvil": state}


def test_a_chain_that_was_never_read_is_not_ready_and_a_disabled_one_is_not_looked_at(
    api_ctx: Context, serving: Context, well: dict[str, Any]
) -> None:
    answer = serve(serving, **well | {"chains": api_ctx.settings.chains}).get("/readyz")
    assert answer.json["checks"]["chains"] == {"anvil": "ok", "fresh": "not_ready"}


def test_with_postgres_away_it_is_alive_but_not_ready(serving: Context, well: dict[str, Any], away: Sessions) -> None:
    api = serve(serving, **well, sessions=away)
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (503, "unavailable")
    assert (answer.json["checks"]["postgres"], answer.json["checks"]["migrations"]) == ("unavailable", "unknown")
    assert int(answer.headers["Retry-After"]) > 0
    assert api.get("/livez").json == {"status": "ok"}
    assert api.get("/openapi.json").status_code == 200


def test_a_database_of_another_revision_is_not_ready(api_ctx: Context, serving: Context, well: dict[str, Any]) -> None:
    with api_ctx.sessions.begin() as session:
        revision = session.scalar(sa.text("SELECT version_num FROM alembic_version"))
        session.execute(sa.text("UPDATE alembic_version SET version_num = 'older'"))
    try:
        answer = serve(serving, **well).get("/readyz")
    finally:
        with api_ctx.sessions.begin() as session:
            session.execute(sa.text("UPDATE alembic_version SET version_num = :old"), {"old": revision})
    assert (answer.status_code, answer.json["checks"]["migrations"]) == (503, "missing")


def test_with_postgres_away_requests_get_503_and_when_to_come_back(api_ctx: Context, shop: Api, away: Sessions) -> None:
    payment = shop.ask()
    lost = Api(create_app(dataclasses.replace(api_ctx, sessions=away)).test_client(), shop.key)
    for answer in (
        lost.get("/api/v1/payments"),
        lost.get(f"/api/v1/payments/{payment['id']}"),
        lost.post("/api/v1/payments", {"chain": "anvil", "amount": "1"}),
        lost.post(f"/api/v1/payments/{payment['id']}/cancel"),
    ):
        assert problem(answer)[:2] == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert "nowhere" not in answer.text, "nothing of the database's address is told"


def test_postgres_ending_the_connection_in_the_middle_of_a_creation_is_503_and_nothing_is_stored(
    shop: Api, api_ctx: Context, engine: sa.Engine
) -> None:
    # On a connection that has not made a payment yet, it waits while the statement is prepared.
    waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^(PREPARE|EXECUTE)'"
    shop.ask()  # so that only the creation itself asks Postgres for anything
    with engine.connect() as other, ThreadPoolExecutor(1) as threads:
        other.exec_driver_sql("LOCK TABLE deposit_addresses IN EXCLUSIVE MODE")
        asked = threads.submit(shop.post, "/api/v1/payments", {"chain": "anvil", "amount": "1"})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as killer:
            wait_until(lambda: killer.execute(sa.text(f"SELECT 1 {waiting}")).scalar() == 1, within_s=10)
            killer.execute(sa.text(f"SELECT pg_terminate_backend(pid) {waiting}"))
        answer = asked.result(30)
    assert problem(answer)[:2] == (503, "unavailable")
    assert answer.headers["Retry-After"] == "5"
    assert len(shop.get("/api/v1/payments").json["data"]) == 1
