"""Gauges of the state that all processes share, read at each scrape of the scheduler's page."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from redis import RedisError

from actors.queues import Depth, Queues
from ctrip import metrics
from ctrip.context import Context
from ctrip.errors import Unavailable
from ctrip.log import get_logger
from ctrip.services import overview

T = TypeVar("T")
log = get_logger()


def registry(ctx: Context, queues: Queues, *, names: tuple[str, ...]) -> CollectorRegistry:
    """Build what the scheduler's page shows: the shared state of these queues and all rows, and its own counters."""
    shown = CollectorRegistry()
    shown.register(SharedState(ctx, queues, names=names))
    for counter in (metrics.LOOP_KICKS, metrics.DEAD_LETTERS, metrics.DEAD_LETTERS_REPLAYED, metrics.BUILD_INFO):
        shown.register(counter)
    ProcessCollector(registry=shown)
    return shown


class SharedState(Collector):
    """Gauges of queues and rows: absent, not stale, where Redis or Postgres is away."""

    def __init__(self, ctx: Context, queues: Queues, *, names: tuple[str, ...]) -> None:
        self._ctx = ctx
        self._queues = queues
        self._names = names

    def collect(self) -> Iterator[Metric]:
        """Read both sources; a scrape fails for neither."""
        depths = self._read("redis", lambda: self._queues.depths(self._names))
        server = self._read("redis", self._queues.server)
        rows = self._read("postgres", lambda: overview.take(self._ctx))
        yield from _queue_gauges(depths or [], rows)
        if server is not None:
            yield _gauge("redis_memory_bytes", "Memory that Redis uses.", [((), server[0])])
            yield _gauge("redis_connections", "Clients connected to Redis.", [((), server[1])])
        if rows is not None:
            yield from _loop_gauges(rows)
            yield from _chain_gauges(rows)
            yield from _work_gauges(rows)

    def describe(self) -> list[Metric]:
        """Name nothing beforehand: to be registered must need neither Redis nor Postgres."""
        return []

    def _read(self, source: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (RedisError, Unavailable) as error:
            log.warning("gauges_absent", source=source, error=str(error))
            return None


def _queue_gauges(depths: list[Depth], rows: overview.Overview | None) -> Iterator[Metric]:
    counts = [
        ((depth.queue, state), count)
        for depth in depths
        for state, count in (("ready", depth.ready), ("in_flight", depth.in_flight), ("delayed", depth.delayed))
    ]
    ages = [((depth.queue, "ready"), depth.oldest_ready_age_s or 0) for depth in depths]
    if rows is not None:
        letters = rows.dead_letters
        for queue in {letter.queue for letter in letters} | {depth.queue for depth in depths}:
            of_queue = [letter for letter in letters if letter.queue == queue]
            counts.append(((queue, "dead"), sum(letter.count for letter in of_queue)))
            oldest = min((letter.oldest_at for letter in of_queue), default=rows.taken_at)
            ages.append(((queue, "dead"), (rows.taken_at - oldest).total_seconds()))
        yield _gauge(
            "dead_letters",
            "Dead letters that were not replayed.",
            [((letter.queue, letter.actor), letter.count) for letter in letters],
            labels=("queue", "actor"),
        )
    by_state = ("queue", "state")
    yield _gauge("queue_messages", "Messages of a queue, by where they are.", counts, labels=by_state)
    yield _gauge("queue_oldest_message_age_seconds", "How long the oldest one has waited.", ages, labels=by_state)
    if depths:
        yield _of_queues("queue_delayed_overdue_seconds", "How late the first delayed message is.", depths, "overdue_s")
        yield _of_queues("queue_workers", "Worker processes that live.", depths, "workers")
        stranded = sum(depth.stranded for depth in depths)
        yield _gauge("queue_stranded_messages", "Messages that a worker which is gone had taken.", [((), stranded)])


def _loop_gauges(rows: overview.Overview) -> Iterator[Metric]:
    ticked = [((loop.name,), loop.last_tick_at.timestamp()) for loop in rows.loops if loop.last_tick_at is not None]
    every = [((loop.name,), loop.every.total_seconds()) for loop in rows.loops]
    yield _gauge("loop_last_tick_timestamp_seconds", "When a loop last ended a run.", ticked, labels=("loop",))
    yield _gauge("loop_interval_seconds", "The time between two runs of a loop.", every, labels=("loop",))


def _chain_gauges(rows: overview.Overview) -> Iterator[Metric]:
    families = {
        "chain_head_block": ("The newest block that a node told of.", "head_block"),
        "chain_read_block": ("The newest block that was read.", "read_block"),
        "chain_final_block": ("The newest block that has the chain's confirmations.", "final_block"),
        "chain_lag_blocks": ("Blocks that the node has and we did not read.", "lag_blocks"),
        "chain_stopped": ("1 where a reorg stopped the chain until an operator resumes it.", "is_stopped"),
        "sweeps_pending": ("Sweeps and top-ups that are not over.", "live_sweeps"),
    }
    for name, (meaning, field) in families.items():
        samples = [((chain.chain,), getattr(chain, field)) for chain in rows.chains]
        yield _gauge(name, meaning, samples, labels=("chain",))
    gas = [
        ((chain.chain,), chain.gas_balance / 10**chain.coin_decimals)
        for chain in rows.chains
        if chain.gas_balance is not None
    ]
    yield _gauge("gas_balance", "Coin that the gas wallet holds.", gas, labels=("chain",))


def _work_gauges(rows: overview.Overview) -> Iterator[Metric]:
    counts = [((count.chain, count.symbol, count.status), count.count) for count in rows.payments]
    yield _gauge("payments", "Payments by where they stand.", counts, labels=("chain", "token", "status"))
    since = rows.outbox.due_since
    late_s = 0.0 if since is None else max(0.0, (rows.taken_at - since).total_seconds())
    yield _gauge("webhook_pending", "Deliveries that are still to be made.", [((), rows.outbox.pending)])
    yield _gauge("webhook_oldest_pending_age_seconds", "How long the first due delivery has been due.", [((), late_s)])


def _of_queues(name: str, meaning: str, depths: list[Depth], field: str) -> Metric:
    return _gauge(name, meaning, [((depth.queue,), getattr(depth, field)) for depth in depths], labels=("queue",))


def _gauge(
    name: str, meaning: str, samples: Iterable[tuple[tuple[str, ...], float]], *, labels: tuple[str, ...] = ()
) -> Metric:
    family = GaugeMetricFamily(f"ctrip_{name}", meaning, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
