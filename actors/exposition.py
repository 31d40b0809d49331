"""Gauges of the state that all processes share, read at each scrape of the scheduler's page.

What cannot be read is absent, never stale: `exporter_up` says which source was away.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from redis import RedisError

from actors import TABLE
from actors.queues import Depth, Queues, Server
from ctrip import metrics
from ctrip.context import Context
from ctrip.domain.payments import Status
from ctrip.errors import Unavailable
from ctrip.log import get_logger
from ctrip.services import overview

T = TypeVar("T")
PAYMENTS_KEPT_S = 30.0
"""Counting the payments reads them all, so one count serves the scrapes of half a minute."""
_OWN = (
    metrics.LOOP_KICKS,
    metrics.DEAD_LETTERS,
    metrics.DEAD_LETTERS_REPLAYED,
    metrics.SCHEDULER_TASK_LAST_RUN,
    metrics.HEADS,
    metrics.HEADS_CONNECTED,
    metrics.RATE_REFUSALS,
    metrics.BUILD_INFO,
)
log = get_logger()


def registry(ctx: Context, queues: Queues, *, names: tuple[str, ...]) -> CollectorRegistry:
    """Build what the scheduler's page shows: the shared state of these queues and all rows, and its own counters."""
    shown = CollectorRegistry()
    shown.register(SharedState(ctx, queues, names=names))
    for family in _OWN:
        shown.register(family)
    ProcessCollector(registry=shown)
    return shown


class SharedState(Collector):
    """Gauges of queues and rows: absent, not stale, where Redis or Postgres is away."""

    def __init__(self, ctx: Context, queues: Queues, *, names: tuple[str, ...]) -> None:
        self._ctx = ctx
        self._queues = queues
        self._names = names
        self._payments = Kept(lambda: overview.count_payments(ctx), for_s=PAYMENTS_KEPT_S)
        self._no_payments = {
            (chain.name, token.symbol, str(status)): 0
            for chain in ctx.settings.chains
            for token in chain.tokens
            if chain.enabled and token.is_payable
            for status in Status
        }

    def collect(self) -> Iterator[Metric]:
        """Read both sources; a scrape fails for neither."""
        broker = self._read("redis", lambda: (self._queues.depths(self._names), self._queues.server()))
        rows = self._read("postgres", lambda: overview.take(self._ctx))
        payments = None if rows is None else self._read("postgres", self._payments.value)
        up = [(("redis",), broker is not None), (("postgres",), payments is not None)]
        yield _gauge("exporter_up", "1 where this source of gauges could be read.", up, labels=("source",))
        yield from _queue_gauges(self._names, [] if broker is None else broker[0], rows)
        if broker is not None:
            yield from _server_gauges(broker[1])
        if rows is not None:
            yield from _loop_gauges(rows)
            yield from _chain_gauges(rows)
            yield from _work_gauges(rows)
            yield from _rate_gauges(rows)
        if payments is not None:
            counts = {**self._no_payments, **{(each.chain, each.symbol, each.status): each.count for each in payments}}
            meaning, labels = "Payments by where they stand.", ("chain", "token", "status")
            yield _gauge("payments", meaning, counts.items(), labels=labels)

    def describe(self) -> list[Metric]:
        """Name nothing beforehand: to be registered must need neither Redis nor Postgres."""
        return []

    def _read(self, source: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (RedisError, Unavailable) as error:
            log.warning("gauges_absent", source=source, error=str(error))
            return None


class Kept(Generic[T]):
    """A value that is read anew only when the last one is older than `for_s`. A read that fails is not kept."""

    def __init__(self, read: Callable[[], T], *, for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._for_s = for_s
        self._clock = clock
        self._kept: tuple[float, T] | None = None

    def value(self) -> T:
        """Return the value; two scrapes at once may both read it."""
        kept, now = self._kept, self._clock()
        if kept is None or now - kept[0] >= self._for_s:
            kept = self._kept = (now, self._read())
        return kept[1]


def _queue_gauges(names: Iterable[str], depths: list[Depth], rows: overview.Overview | None) -> Iterator[Metric]:
    counts: list[tuple[tuple[str, str], float]] = []
    ages: list[tuple[tuple[str, str], float]] = []
    for depth in depths:
        counts += [((depth.queue, state), getattr(depth, state)) for state in ("ready", "in_flight", "delayed")]
        ages.append(((depth.queue, "ready"), depth.oldest_ready_age_s or 0))
        ages.append(((depth.queue, "in_flight"), depth.oldest_in_flight_age_s))
        ages.append(((depth.queue, "delayed"), depth.oldest_delayed_age_s))
    if rows is not None:
        letters = rows.dead_letters
        for queue in {*names, *(letter.queue for letter in letters)}:
            of_queue = [letter for letter in letters if letter.queue == queue]
            counts.append(((queue, "dead"), sum(letter.count for letter in of_queue)))
            oldest = min((letter.oldest_at for letter in of_queue), default=None)
            ages.append(((queue, "dead"), _age_s(oldest, rows.taken_at)))
        none = {(rule.queue, rule.actor): 0 for rule in TABLE if rule.queue in names}
        yield _gauge(
            "dead_letters",
            "Dead letters that were neither replayed nor purged.",
            {**none, **{(letter.queue, letter.actor): letter.count for letter in letters}}.items(),
            labels=("queue", "actor"),
        )
    by_state = ("queue", "state")
    yield _gauge("queue_messages", "Messages of a queue, by where they are.", counts, labels=by_state)
    yield _gauge(
        "queue_oldest_message_age_seconds",
        "The oldest message; ready, in_flight: since it was due; delayed: since it was sent; dead: since it died.",
        ages,
        labels=by_state,
    )
    if depths:
        yield _of_queues("queue_delayed_overdue_seconds", "How late the first delayed message is.", depths, "overdue_s")
        yield _of_queues("queue_workers", "Worker processes that live.", depths, "workers")
        stranded = sum(depth.stranded for depth in depths)
        yield _gauge("queue_stranded_messages", "Messages that a worker which is gone had taken.", [((), stranded)])


def _server_gauges(server: Server) -> Iterator[Metric]:
    yield _gauge("redis_memory_bytes", "Memory that Redis uses.", [((), server.memory_bytes)])
    limit = "What Redis may use: its maxmemory, or the machine's memory where none is set."
    yield _gauge("redis_memory_limit_bytes", limit, [((), server.memory_limit_bytes)])
    yield _gauge("redis_connections", "Clients connected to Redis.", [((), server.connections)])


def _loop_gauges(rows: overview.Overview) -> Iterator[Metric]:
    ticked = [((loop.name,), loop.last_tick_at.timestamp()) for loop in rows.loops if loop.last_tick_at is not None]
    every = [((loop.name,), loop.every.total_seconds()) for loop in rows.loops]
    enabled = [((loop.name,), float(loop.enabled)) for loop in rows.loops]
    yield _gauge("loop_last_tick_timestamp_seconds", "When a loop last ended a run.", ticked, labels=("loop",))
    yield _gauge("loop_interval_seconds", "The time between two runs of a loop.", every, labels=("loop",))
    yield _gauge("loop_enabled", "0 where an operator has paused the loop.", enabled, labels=("loop",))


def _chain_gauges(rows: overview.Overview) -> Iterator[Metric]:
    families = {
        "chain_head_block": ("The newest block that a node told of.", "head_block"),
        "chain_read_block": ("The newest block that was read.", "read_block"),
        "chain_final_block": ("The newest block that is final by the chain's rule.", "final_block"),
        "chain_unread_blocks": ("Blocks below what was read that some listed asset lacks.", "unread_blocks"),
        "chain_lag_blocks": ("Blocks that the node has and we did not read.", "lag_blocks"),
        "transfers_unverified": (
            "Transfers that have their confirmations, and wait for another endpoint to bear them out.",
            "unverified_transfers",
        ),
        "chain_stopped": ("1 where a reorg stopped the chain until an operator resumes it.", "is_stopped"),
    }
    for name, (meaning, field) in families.items():
        samples = [((chain.chain,), getattr(chain, field)) for chain in rows.chains]
        yield _gauge(name, meaning, samples, labels=("chain",))
    live = [(chain.chain, chain.live_sweeps) for chain in rows.chains]
    pending = [((chain,), 0 if sweeps is None else sweeps.count) for chain, sweeps in live]
    oldest = [(chain, None if sweeps is None else sweeps.oldest_at) for chain, sweeps in live]
    ages = [((chain,), _age_s(planned_at, rows.taken_at)) for chain, planned_at in oldest]
    yield _gauge("sweeps_pending", "Sweeps and top-ups that are not over.", pending, labels=("chain",))
    yield _gauge("sweeps_oldest_pending_age_seconds", "How long ago the first was planned.", ages, labels=("chain",))
    gas = [
        ((chain.chain,), chain.gas_balance / 10**chain.coin_decimals)
        for chain in rows.chains
        if chain.gas_balance is not None
    ]
    yield _gauge("gas_balance", "Coin that the gas wallet holds.", gas, labels=("chain",))


def _work_gauges(rows: overview.Overview) -> Iterator[Metric]:
    outboxes = {
        "webhook": ("Deliveries that are still to be made.", rows.deliveries),
        "email": ("E-mails that are still to be sent.", rows.emails),
        "jobs": ("Jobs of operators that are not over.", rows.jobs),
    }
    for name, (meaning, outbox) in outboxes.items():
        late_s = _age_s(outbox.due_since, rows.taken_at)
        yield _gauge(f"{name}_pending", meaning, [((), outbox.pending)])
        yield _gauge(f"{name}_oldest_pending_age_seconds", "How long the first due one has been due.", [((), late_s)])
    places = rows.destinations
    disabled = "Endpoints that get no more webhooks: their owner, a 410 or days of failures disabled them."
    yield _gauge("webhook_endpoints_disabled", disabled, [((), places.disabled_endpoints)])
    yield _gauge("webhook_slow_origins", "Origins whose last attempt was slow.", [((), places.slow_origins)])
    yield _gauge("webhook_slow_pending", "Deliveries that wait in the slow lane.", [((), places.slow_pending)])


def _rate_gauges(rows: overview.Overview) -> Iterator[Metric]:
    if not rows.rates.oldest:
        return
    ages = [((source,), _age_s(since, rows.taken_at)) for source, since in rows.rates.oldest.items() if since]
    oldest = "How old the oldest of its rates is; where it never told one, for how long it has failed."
    yield _gauge("rate_age_seconds", oldest, ages, labels=("source",))
    without = "Assets, each in each currency, of which nobody can ask for a price: too few sources agree."
    yield _gauge("rates_unavailable", without, [((), rows.rates.unavailable)])


def _age_s(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since) / timedelta(seconds=1))


def _of_queues(name: str, meaning: str, depths: list[Depth], field: str) -> Metric:
    return _gauge(name, meaning, [((depth.queue,), getattr(depth, field)) for depth in depths], labels=("queue",))


def _gauge(
    name: str, meaning: str, samples: Iterable[tuple[tuple[str, ...], float]], *, labels: tuple[str, ...] = ()
) -> Metric:
    family = GaugeMetricFamily(f"ctrip_{name}", meaning, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
