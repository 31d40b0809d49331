"""The scheduler's page: gauges of shared state, absent where their source is away."""

import json
import signal
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from actors import zeros
from actors.exposition import Kept, registry
from actors.hardened import make_client
from actors.middleware.due import StampDue
from actors.queues import SCANNED, Queues
from ctrip.context import Context
from ctrip.database import cursors, loops
from ctrip.database.engine import Sessions, make_engine
from ctrip.database.models import chain_cursors
from ctrip.database.models import loops as loop_rows
from ctrip.database.models import rates as rate_rows
from ctrip.domain.dead_letters import Reason, row_died
from ctrip.domain.rates import Refusal
from ctrip.metrics import render
from ctrip.outbound.rates import Static
from ctrip.services import dead_letters, rates
from ctrip.settings.rates import RateSettings
from tests.actors.conftest import MakeBroker, OwnRedis
from tests.actors.workers import declare
from tests.factories import header, store_payment, store_transfer

pytestmark = pytest.mark.infra
SCRAPE_TIMEOUT_S = 8
"""Of ops/prometheus/prometheus.yml."""
OF_REDIS = {
    "queue_messages",
    "queue_oldest_message_age_seconds",
    "queue_delayed_overdue_seconds",
    "queue_stranded_messages",
    "queue_workers",
    "redis_memory_bytes",
    "redis_memory_limit_bytes",
    "redis_connections",
}
OF_ROWS = {
    "dead_letters",
    "loop_last_tick_timestamp_seconds",
    "loop_interval_seconds",
    "loop_enabled",
    "chain_head_block",
    "chain_read_block",
    "chain_final_block",
    "chain_lag_blocks",
    "chain_unread_blocks",
    "transfers_unverified",
    "chain_stopped",
    "payments",
    "webhook_pending",
    "webhook_oldest_pending_age_seconds",
    "webhook_endpoints_disabled",
    "webhook_slow_origins",
    "webhook_slow_pending",
    "email_pending",
    "email_oldest_pending_age_seconds",
    "jobs_pending",
    "jobs_oldest_pending_age_seconds",
    "sweeps_pending",
    "sweeps_oldest_pending_age_seconds",
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
        other = store_payment(session, new_id=ctx.new_id)
        store_transfer(session, amount=1, block=98, payment=other, chain_id=chain.chain_id, is_verified=False)
        cursors.start(session, chain.chain_id, header(100))
        session.execute(sa.update(chain_cursors).values(head_block=105, start_block=98))
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


def test_rates_are_shown_by_their_age_and_by_what_they_are_missing_for(ctx, queues: Queues) -> None:
    def shown() -> dict[str, dict[tuple[str, ...], float]]:
        return page(registry(ctx, queues, names=("webhook",)))

    assert shown()["rates_unavailable"] == {(): 4}
    ctx = replace(ctx, rate_sources={"static": Static(ctx.settings.rates.static)})
    rates.refresh(ctx)
    assert shown()["rates_unavailable"] == {(): 0}
    assert 0 <= shown()["rate_age_seconds"]["static",] < 30
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rate_rows).values(as_of=sa.text("now() - interval '1 h'")))
    assert shown()["rates_unavailable"] == {(): 4}
    assert shown()["rate_age_seconds"]["static",] == pytest.approx(3600, abs=30)
    off = replace(ctx, settings=replace(ctx.settings, rates=RateSettings()))
    without = page(registry(off, queues, names=("webhook",)))
    assert not {"rates_unavailable", "rate_age_seconds"} & set(without)


def test_what_sources_of_rates_may_refuse_stands_at_zero_from_the_start(ctx, queues: Queues) -> None:
    zeros.of_scheduler(ctx.settings)
    counts = page(registry(ctx, queues, names=("webhook",)))["rate_refusals_total"]
    assert {reason for reason, source in counts if source == "static"} == set(Refusal)


class Detour:
    """A way to Postgres that a test may close."""

    def __init__(self, ctx: Context) -> None:
        self._open = ctx.sessions
        self._closed = Sessions(make_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none", process="tests"))
        self.is_open = True

    def begin(self) -> Any:
        return (self._open if self.is_open else self._closed).begin()


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
    assert {actor: count for (actor, _), count in shown["dead_letters"].items() if count} == {"send_webhook": 1}
    assert ("job_custom_webhook", "webhook") in shown["dead_letters"], "and the others stand at zero"
    assert {labels: count for labels, count in shown["payments"].items() if count} == {("anvil", "pending", "USDC"): 2}
    assert ("anvil", "settled", "ETH") in shown["payments"]
    assert shown["webhook_pending"] == {(): 1}
    assert shown["webhook_oldest_pending_age_seconds"][()] < 30
    heights = {name: shown[f"chain_{name}"]["anvil",] for name in ("head_block", "read_block", "final_block")}
    assert heights == {"head_block": 105, "read_block": 100, "final_block": 98}
    assert shown["chain_lag_blocks"] == {("anvil",): 5}
    assert shown["chain_unread_blocks"] == {("anvil",): 2}
    assert shown["transfers_unverified"] == {("anvil",): 1}
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
    shown = registry(ctx, away, names=("webhook", "email"))
    own_redis.kill()
    found = page(shown)
    assert set(found) & OF_REDIS == {"queue_messages", "queue_oldest_message_age_seconds"}
    for family in ("queue_messages", "queue_oldest_message_age_seconds"):
        assert set(found[family]) == {("webhook", "dead"), ("email", "dead")}, "dead letters are rows"
    assert set(found) >= OF_ROWS
    assert found["exporter_up"] == {("redis",): 0, ("postgres",): 1}
    own_redis.start()
    found = page(shown)
    assert set(found) >= OF_REDIS
    assert found["exporter_up"] == {("redis",): 1, ("postgres",): 1}


def test_a_redis_that_hangs_leaves_a_scrape_the_time_to_say_so(ctx, own_redis: OwnRedis) -> None:
    fill(ctx)
    hanging = Queues(make_client(own_redis.url), namespace="test", heartbeat_timeout_ms=30_000)
    shown = registry(ctx, hanging, names=("webhook",))
    assert page(shown)["exporter_up"]["redis",] == 1
    own_redis.child.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        found = page(shown)
        assert time.monotonic() - started < SCRAPE_TIMEOUT_S
    finally:
        own_redis.child.send_signal(signal.SIGCONT)
    assert found["exporter_up"] == {("redis",): 0, ("postgres",): 1}
    assert set(found) >= OF_ROWS


def test_without_postgres_the_gauges_of_rows_are_absent_and_the_others_stay(
    ctx, queues: Queues, redis_client: Redis
) -> None:
    gone = Sessions(make_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none", process="tests"))
    found = page(registry(replace(ctx, sessions=gone), queues, names=("webhook",)))
    assert set(found) >= OF_REDIS
    assert not set(found) & OF_ROWS
    assert ("webhook", "dead") not in found["queue_messages"]
    assert found["exporter_up"] == {("redis",): 1, ("postgres",): 0}


def test_payments_that_were_counted_before_postgres_went_away_are_absent_too(
    ctx, queues: Queues, redis_client: Redis
) -> None:
    fill(ctx)
    passing: Any = Detour(ctx)
    shown = registry(replace(ctx, sessions=passing), queues, names=())
    assert page(shown)["payments"]
    passing.is_open = False
    assert "payments" not in page(shown)


def test_ages_are_told_for_each_state(ctx, make_broker: MakeBroker, queues: Queues, redis_client: Redis) -> None:
    broker = make_broker(StampDue())
    actor = declare(broker, lambda: None, queue="webhook")
    actor.send()
    actor.send_with_options(delay=600_000)
    broker.do_fetch("webhook", 1)
    seconds, _ = redis_client.time()
    in_a_minute = Queues(
        redis_client, namespace="test", heartbeat_timeout_ms=600_000, now_ms=lambda: (seconds + 60) * 1000
    )
    ages = page(registry(ctx, in_a_minute, names=("webhook",)))["queue_oldest_message_age_seconds"]
    assert ages["webhook", "in_flight"] == pytest.approx(60, abs=3)
    assert ages["webhook", "delayed"] == pytest.approx(60, abs=3), "since it was sent; it is not due yet"
    assert ages["webhook", "ready"] == ages["webhook", "dead"] == 0


def test_of_many_delayed_messages_a_sample_is_looked_at(queues: Queues, redis_client: Redis) -> None:
    seconds, _ = redis_client.time()
    due = json.dumps({"message_timestamp": 1, "options": {"eta": (seconds - 300) * 1000}})
    redis_client.hset("test:q.DQ.msgs", mapping={str(number): due for number in range(SCANNED + 500)})
    (depth,) = queues.depths(["q"])
    assert depth.overdue_s == pytest.approx(300, abs=10)


def test_a_paused_loop_says_so_and_the_loops_of_a_chain_that_rests_are_left_out(
    ctx, queues: Queues, redis_client: Redis
) -> None:
    fill(ctx)
    chain = ctx.settings.chains[0]
    name = f"listener:{chain.chain_id}"
    with ctx.sessions.begin() as session:
        loops.ensure(session, kind="listener", chain_id=4711, every=timedelta(seconds=2))
        session.execute(sa.update(loop_rows).values(enabled=False))
    shown = page(registry(ctx, queues, names=()))
    assert shown["loop_enabled"] == {(name,): 0}
    assert set(shown["loop_interval_seconds"]) == {(name,)}, "4711 is in no chains.yaml"
    resting = replace(ctx, settings=replace(ctx.settings, chains=(replace(chain, enabled=False),)))
    shown = page(registry(resting, queues, names=()))
    # A family without samples is nothing to Prometheus.
    assert not {"loop_interval_seconds", "chain_head_block", "sweeps_pending"} & set(shown)


def test_payments_are_counted_anew_after_half_a_minute() -> None:
    moment, reads = [0.0], iter(range(9))
    kept = Kept(lambda: next(reads), for_s=30, clock=lambda: moment[0])
    seen = []
    for moment[0] in (0.0, 29.9, 30.0, 59.9, 60.0):
        seen.append(kept.value())
    assert seen == [0, 0, 1, 1, 2]


def test_no_label_carries_an_id(ctx, queues: Queues, redis_client: Redis) -> None:
    fill(ctx)
    for name, samples in page(registry(ctx, queues, names=("webhook",))).items():
        for values in samples:
            assert not any("_0" in value or value.startswith("0x") for value in values), name
