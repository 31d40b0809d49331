"""The scheduler's page: gauges of shared state, absent where their source is away."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from actors.exposition import registry
from actors.hardened import make_client
from actors.middleware.due import StampDue
from actors.queues import Queues
from ctrip.context import Context
from ctrip.database import cursors, loops
from ctrip.database.engine import make_engine, make_sessions
from ctrip.database.models import chain_cursors
from ctrip.database.models import loops as loop_rows
from ctrip.domain.dead_letters import Reason, row_died
from ctrip.metrics import render
from ctrip.services import dead_letters
from tests.actors.conftest import MakeBroker, OwnRedis
from tests.actors.workers import declare
from tests.factories import header, store_payment

pytestmark = pytest.mark.infra
OF_REDIS = {
    "queue_messages",
    "queue_oldest_message_age_seconds",
    "queue_delayed_overdue_seconds",
    "queue_stranded_messages",
    "queue_workers",
    "redis_memory_bytes",
    "redis_connections",
}
OF_ROWS = {
    "dead_letters",
    "loop_last_tick_timestamp_seconds",
    "loop_interval_seconds",
    "chain_head_block",
    "chain_read_block",
    "chain_final_block",
    "chain_lag_blocks",
    "chain_stopped",
    "payments",
    "webhook_pending",
    "webhook_oldest_pending_age_seconds",
    "sweeps_pending",
    "gas_balance",
}


def page(shown: CollectorRegistry) -> dict[str, dict[tuple[str, ...], float]]:
    """Read a page as Prometheus does: samples by name and label values."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(render(shown).decode()):
        for sample in family.samples:
            values = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name.removeprefix("ctrip_"), {})[values] = sample.value
    return found


def fill(ctx: Context) -> None:
    """Rows of every kind that a gauge is made of."""
    chain = ctx.settings.chains[0]
    with ctx.sessions.begin() as session:
        store_payment(session, new_id=ctx.new_id, webhook_url="http://127.0.0.1:9/hook")
        store_payment(session, new_id=ctx.new_id)
        cursors.start(session, chain.chain_id, header(100))
        session.execute(sa.update(chain_cursors).values(head_block=105))
        loops.ensure(session, kind="listener", chain_id=chain.chain_id, every=timedelta(seconds=2))
        session.execute(sa.update(loop_rows).values(last_tick_at=sa.text("to_timestamp(1000)")))
        session.execute(
            sa.text(
                "INSERT INTO signers (chain_id, sender, next_nonce, balance) "
                f"VALUES ({chain.chain_id}, '\\x{'22' * 20}', 0, 1500000000000000000)"
            )
        )
    now = ctx.now()
    letter = row_died(
        queue="webhook",
        actor="send_webhook",
        row_id="row",
        reason=Reason.SCHEDULE,
        exception=None,
        first_at=now,
        died_at=now - timedelta(hours=1),
    )
    dead_letters.record(ctx, letter)


def test_the_page_shows_queues_and_rows(ctx, make_broker: MakeBroker, queues: Queues) -> None:
    fill(ctx)
    declare(make_broker(StampDue()), lambda: None, queue="webhook").send()
    shown = page(registry(ctx, queues, names=("webhook", "email")))
    assert set(shown) >= OF_REDIS | OF_ROWS
    assert shown["queue_messages"] == {
        ("webhook", "ready"): 1,
        ("webhook", "in_flight"): 0,
        ("webhook", "delayed"): 0,
        ("webhook", "dead"): 1,
        ("email", "ready"): 0,
        ("email", "in_flight"): 0,
        ("email", "delayed"): 0,
        ("email", "dead"): 0,
    }
    ages = shown["queue_oldest_message_age_seconds"]
    assert ages["webhook", "dead"] == pytest.approx(3600, abs=30)
    assert ages["email", "dead"] == ages["email", "ready"] == 0
    assert shown["dead_letters"] == {("send_webhook", "webhook"): 1}
    assert shown["payments"] == {("anvil", "pending", "USDC"): 2}
    assert shown["webhook_pending"] == {(): 1}
    assert shown["webhook_oldest_pending_age_seconds"][()] < 30
    heights = {name: shown[f"chain_{name}"]["anvil",] for name in ("head_block", "read_block", "final_block")}
    assert heights == {"head_block": 105, "read_block": 100, "final_block": 98}
    assert shown["chain_lag_blocks"] == {("anvil",): 5}
    assert shown["chain_stopped"] == {("anvil",): 0}
    assert shown["sweeps_pending"] == {("anvil",): 0}
    assert shown["gas_balance"] == {("anvil",): 1.5}
    name = f"listener:{ctx.settings.chains[0].chain_id}"
    assert shown["loop_interval_seconds"] == {(name,): 2}
    assert shown["loop_last_tick_timestamp_seconds"] == {(name,): 1000}
    assert shown["redis_memory_bytes"][()] > 100_000
    assert shown["redis_connections"][()] >= 1
    assert shown["build_info"]


def test_a_stopped_chain_shows(ctx, queues: Queues, redis_client: Redis) -> None:
    fill(ctx)
    with ctx.sessions.begin() as session:
        cursors.stop(session, ctx.settings.chains[0].chain_id, "a deep reorg")
    assert page(registry(ctx, queues, names=()))["chain_stopped"] == {("anvil",): 1}


def test_without_redis_the_gauges_of_queues_are_absent_and_the_others_stay(ctx, own_redis: OwnRedis) -> None:
    fill(ctx)
    away = Queues(make_client(own_redis.url), namespace="test", heartbeat_timeout_ms=30_000)
    shown = registry(ctx, away, names=("webhook",))
    own_redis.kill()
    found = page(shown)
    assert set(found) & OF_REDIS == {"queue_messages", "queue_oldest_message_age_seconds"}
    assert set(found["queue_messages"]) == {("webhook", "dead")}, "dead letters are rows"
    assert set(found) >= OF_ROWS
    own_redis.start()
    assert set(page(shown)) >= OF_REDIS


def test_without_postgres_the_gauges_of_rows_are_absent_and_the_others_stay(
    ctx, queues: Queues, redis_client: Redis
) -> None:
    gone = make_sessions(make_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none", process="tests"))
    found = page(registry(replace(ctx, sessions=gone), queues, names=("webhook",)))
    assert set(found) >= OF_REDIS
    assert not set(found) & OF_ROWS
    assert ("webhook", "dead") not in found["queue_messages"]


def test_no_label_carries_an_id(ctx, queues: Queues, redis_client: Redis) -> None:
    fill(ctx)
    for name, samples in page(registry(ctx, queues, names=("webhook",))).items():
        for values in samples:
            assert not any("_0" in value or value.startswith("0x") for value in values), name
