"""The scheduler's process: it starts and revives loops, sends what is due, looks at the queues, and shows the gauges.

    every second   watchdog: loops that are overdue get a message        relay: work that is due gets one
                   replay: dead letters that somebody asked for are sent again
    on a ring      the relay and the replay at once (NOTIFY; see ctrip.services.relay.hear)
    on a new head  the chain's listener gets a message (WebSocket, where a chain has one; see actors.heads)
    every 3 s      queue snapshots for those who do not know Redis
    every 5 s      sources of rates whose turn it is are asked (RATE_REFRESH_SECONDS)
    every 10 s     dead messages that no worker could record
    every minute   the operator gets an e-mail of dead letters that are new; gaps in what was read are asked for
    every 10 min   what is out of date is forgotten

Any number of schedulers may run: each row that is kicked, taken or replayed goes to one of them. Where Postgres or
Redis is away, a task says so once and goes on when it is back.
"""

import logging
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import dramatiq
from apscheduler.schedulers.background import BackgroundScheduler
from dramatiq.errors import BrokerConnectionError, DecodeError
from redis import RedisError

from actors import QUEUES, SEND_EMAIL, SEND_WEBHOOK, zeros
from actors.boot import MISCONFIGURED
from actors.broker import broker, queues, wake
from actors.dead_letters import collect, resend
from actors.email import send_email  # noqa: F401 (the relay finds the actor by its name)
from actors.exposition import registry
from actors.heads import HeadWatch, watches
from actors.listener import check_balances, listen_for_payments
from actors.queues import Depth, Queues
from actors.sweeper import sweep_payments
from ctrip import metrics
from ctrip.bootstrap import bootstrap
from ctrip.context import Context
from ctrip.domain.ids import Prefix
from ctrip.domain.loops import LoopKind
from ctrip.domain.queues import QueueSnapshot
from ctrip.errors import MisconfiguredError, Unavailable
from ctrip.log import get_logger
from ctrip.services import dead_letters, emails, housekeeping, loops, prices, rates, relay, rereading
from ctrip.services import queues as snapshots
from ctrip.settings import Role

BACKLOG = 1_000
"""With more ready messages than this the queue is busy, not lost: due rows wait in Postgres instead."""
ROUNDS = 10
"""How many batches one task sends before it lets others have their turn."""
FLOODED_BY = {Prefix.DELIVERY: (SEND_WEBHOOK.queue,), Prefix.EMAIL: (SEND_EMAIL.queue,)}
"""Which queues the rows of a kind may flood. Open jobs are few, and wait for nobody."""
RING_DELAY_S = 0.15
"""A transaction that made work due often sends the message itself; this is its head start before the relay looks."""
LOOPS: dict[LoopKind, dramatiq.Actor[[int], None]] = {
    LoopKind.LISTENER: listen_for_payments,
    LoopKind.SWEEPER: sweep_payments,
    LoopKind.BALANCES: check_balances,
}
log = get_logger()


class Patient:
    """A task that says once that Postgres or Redis is away, and once that it is back."""

    def __init__(self, name: str, task: Callable[[], None]) -> None:
        self.name = name
        self._task = task
        self.is_waiting = False

    def __call__(self) -> None:
        """Run the task. What it does not expect goes on to APScheduler, which logs it and runs it again in time."""
        try:
            self._task()
        except (Unavailable, RedisError, BrokerConnectionError) as error:
            if not self.is_waiting:
                log.warning("task_waits", task=self.name, error=str(error))
            self.is_waiting = True
        else:
            if self.is_waiting:
                log.info("task_goes_on", task=self.name)
            self.is_waiting = False
        metrics.SCHEDULER_TASK_LAST_RUN.labels(task=self.name).set_to_current_time()


class Tasks:
    """What a scheduler does, each piece safe beside that of another scheduler."""

    def __init__(self, ctx: Context, queues: Queues) -> None:
        self._ctx = ctx
        self._queues = queues
        self._has_loops = False

    def watch_loops(self) -> None:
        """Send a message for each loop that has none; the first time, for each that is due."""
        # Redis first: a kick that cannot be sent would count as one that was.
        self._queues.ready(LoopKind.LISTENER)
        grace = loops.GRACE
        if not self._has_loops:
            loops.ensure_loops(self._ctx)
            grace = timedelta(0)
        for kind, chain_id in loops.kick_overdue(self._ctx, grace=grace):
            wake(LOOPS[kind], [chain_id])
        self._has_loops = True

    def relay_due(self) -> None:
        """Send a message for each delivery, e-mail and job that is due and has none."""
        for kind in relay.KINDS:
            for _ in range(ROUNDS):
                if not self._relay_some(kind):
                    break

    def _relay_some(self, kind: Prefix) -> bool:
        """Send for a batch of due rows. Returns whether there may be more that can be sent."""
        if any(self._queues.ready(queue) > BACKLOG for queue in FLOODED_BY.get(kind, ())):
            return False
        due = relay.claim_due(self._ctx, kind)
        return all(wake(broker.get_actor(row.actor), [row.row_id]) for row in due) and len(due) == relay.BATCH

    def replay_dead_letters(self) -> None:
        """Send the dead letters again whose replay was asked for. Those that Redis does not take wait on."""
        self._queues.ready(SEND_WEBHOOK.queue)
        letters = dead_letters.take_requested(self._ctx)
        for place, letter in enumerate(letters):
            try:
                resend(broker, letter)
            except DecodeError as error:
                log.warning("dead_letter_unreadable", dead_letter_id=letter.id, error=str(error))
            except BrokerConnectionError:
                dead_letters.give_back(self._ctx, letters[place:])
                raise

    def schedule_backfills(self) -> None:
        """Have read what was never read of an asset: it was listed later."""
        rereading.schedule_backfills(self._ctx)

    def take_snapshots(self) -> None:
        """Store what the queues look like."""
        taken_at = self._ctx.now()
        depths = self._queues.depths(QUEUES)
        snapshots.store_snapshots(self._ctx, [_snapshot(depth, taken_at) for depth in depths])

    def collect_dead(self) -> None:
        """Record the dead messages that their workers could not."""
        for queue in QUEUES:
            collect(self._ctx, self._queues, queue=queue, known_actors=broker.get_declared_actors())

    def refresh_rates(self) -> None:
        """Ask the sources of rates that are due. It takes as long as the slowest of them, 20 s at the most."""
        rates.refresh(self._ctx)

    def watch_served(self) -> None:
        """Let nobody wait for a chain that was taken out of service."""
        prices.watch_served(self._ctx)

    def write_digest(self) -> None:
        """Write to the operator of dead letters that are new."""
        emails.digest(self._ctx)

    def forget(self) -> None:
        """Delete what is kept for a limited time."""
        for _ in range(ROUNDS):
            if housekeeping.forget(self._ctx) == 0:
                return


class Doorbell(threading.Thread):
    """Hears the rings of transactions that made work due, and does it at once."""

    def __init__(self, ctx: Context, answer: Callable[[], None]) -> None:
        super().__init__(name="doorbell", daemon=True)
        self._ctx = ctx
        self._answer = answer
        self._stopping = threading.Event()

    def run(self) -> None:
        """Listen until stopped, and again whenever the connection was lost. The tasks poll meanwhile."""
        while not self._stopping.is_set():
            try:
                with closing(relay.hear(self._ctx)) as bell:
                    self._listen(bell.wait)
            except Unavailable:
                self._stopping.wait(1)
            except Exception:  # the tasks outlive what nobody expects, and so does this
                log.exception("doorbell_failed")
                self._stopping.wait(1)

    def stop(self) -> None:
        """Stop listening."""
        self._stopping.set()

    def _listen(self, wait: Callable[[float], bool]) -> None:
        while not self._stopping.is_set():
            if wait(1.0):
                self._stopping.wait(RING_DELAY_S)
                self._answer()


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    stopping = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopping.set())
    try:
        ctx = bootstrap(Role.SCHEDULER)
        broker.connect(ctx.settings.redis_url)
        _show_gauges(ctx)
    except MisconfiguredError as error:
        sys.stderr.write(f"{error.detail}\n")
        return MISCONFIGURED
    # It tells of each run at INFO, and of each that waits for the one before at WARNING.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    scheduler, doorbell = _make(ctx)
    scheduler.start()
    threads: list[Doorbell | HeadWatch] = [doorbell, *watches(ctx)]
    for thread in threads:
        thread.start()
    log.info("scheduler_ready")
    stopping.wait()
    for thread in threads:
        thread.stop()
    scheduler.shutdown(wait=True)
    log.info("scheduler_stopped")
    return 0


def _make(ctx: Context) -> tuple[BackgroundScheduler, Doorbell]:
    tasks = Tasks(ctx, queues())
    relay_due, replay = Patient("relay", tasks.relay_due), Patient("replay", tasks.replay_dead_letters)
    scheduler = BackgroundScheduler(
        timezone=UTC, job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    )
    periods = {
        Patient("watchdog", tasks.watch_loops): 1,
        relay_due: 1,
        replay: 1,
        Patient("snapshots", tasks.take_snapshots): 3,
        Patient("dead", tasks.collect_dead): 10,
        Patient("rates", tasks.refresh_rates): 5,
        Patient("served", tasks.watch_served): 60,
        Patient("digest", tasks.write_digest): 60,
        Patient("backfills", tasks.schedule_backfills): 60,
        Patient("forget", tasks.forget): 600,
    }
    for task, seconds in periods.items():
        scheduler.add_job(task, "interval", seconds=seconds, id=task.name, next_run_time=datetime.now(UTC))

    def answer() -> None:
        relay_due()
        replay()

    return scheduler, Doorbell(ctx, answer)


def _show_gauges(ctx: Context) -> None:
    settings = ctx.settings
    if not settings.metrics_port:
        return
    zeros.of_scheduler(settings)
    shown = registry(ctx, queues(), names=QUEUES)
    metrics.serve(host=settings.metrics_host, port=settings.metrics_port, registry=shown)


def _snapshot(depth: Depth, taken_at: datetime) -> QueueSnapshot:
    return QueueSnapshot(
        queue=depth.queue,
        ready=depth.ready,
        in_flight=depth.in_flight,
        delayed=depth.delayed,
        dead=depth.dead,
        completed_1h=depth.completed_1h,
        oldest_ready_age_seconds=depth.oldest_ready_age_s,
        workers=depth.workers,
        taken_at=taken_at,
    )


if __name__ == "__main__":
    sys.exit(main())
