"""The broker of cTrip: what guards its messages, how an actor is declared, and how one is woken."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import ParamSpec

import dramatiq
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import TimeLimit

from actors import Rule, dead_letters, zeros
from actors.boot import Boot
from actors.hardened import HEARTBEAT_TIMEOUT_MS, HardenedBroker
from actors.measure import Measure
from actors.middleware.crowds import DropCrowds
from actors.middleware.dead_letters import Death, TellDeaths
from actors.middleware.due import StampDue
from actors.middleware.lifetime import DieWithMaster, StopOnce
from actors.middleware.poison import PoisonGuard
from actors.middleware.presence import Presence
from actors.middleware.retries import Retries
from actors.page import ServePage
from actors.queues import Queues
from ctrip.bootstrap import bootstrap, shut_down
from ctrip.context import Context
from ctrip.errors import LostFence, Unavailable
from ctrip.log import get_logger
from ctrip.settings import Role

P = ParamSpec("P")
NAMESPACE = "ctrip"
DROPPED = (Unavailable, LostFence)
"""Postgres away, or another run at work: trying the message again would help nobody, its row is woken again anyway."""
log = get_logger()


def context() -> Context:
    """Return the context of this worker process."""
    return _boot.context


def queues() -> Queues:
    """Return this broker's queues in Redis."""
    return Queues(broker.client, namespace=NAMESPACE, heartbeat_timeout_ms=HEARTBEAT_TIMEOUT_MS)


def actor(rule: Rule) -> Callable[[Callable[P, None]], dramatiq.Actor[P, None]]:
    """Declare an actor by its row of the table."""
    return dramatiq.actor(
        broker=broker,
        actor_name=rule.actor,
        queue_name=rule.queue,
        time_limit=_milliseconds(rule.time_limit),
        max_retries=rule.retries,
        min_backoff=_milliseconds(rule.first_wait),
        max_backoff=_milliseconds(rule.longest_wait),
        throws=DROPPED,
    )


def wake(
    actor: dramatiq.Actor[[str], None] | dramatiq.Actor[[int], None],
    row_ids: Iterable[str | int],
    *,
    after: timedelta = timedelta(0),
) -> bool:
    """Send one message for each row. Returns False where Redis is away: relay and watchdog send what was not sent."""
    delay = after if after > timedelta(0) else None
    for row_id in row_ids:
        try:
            actor.send_with_options(args=(row_id,), delay=delay)
        except BrokerConnectionError as error:
            log.warning("messages_not_sent", actor=actor.actor_name, error=str(error))
            return False
    return True


def _start(queue: str) -> Context:
    ctx = bootstrap(Role(queue))
    broker.connect(ctx.settings.redis_url)
    zeros.of_worker(ctx.settings, queue)
    return ctx


def _stop(ctx: Context) -> None:
    shut_down(ctx)
    broker.client.close()


def _page() -> tuple[str, int]:
    settings = context().settings
    return settings.metrics_host, settings.metrics_port


def _tell(death: Death) -> None:
    dead_letters.record(context(), queues(), death)


def _milliseconds(span: timedelta) -> int:
    return int(span / timedelta(milliseconds=1))


_boot = Boot(_start, _stop)

# What comes first hears of a start first and of an end last: Retries decides whether a message is dead before Measure
# and TellDeaths ask, and the time limit is lifted before anything else is done after a run.
broker = HardenedBroker(
    namespace=NAMESPACE,
    middleware=[
        DieWithMaster(),
        StopOnce(),
        _boot,
        ServePage(_page),
        Presence(),
        TellDeaths(_tell),
        Measure(dropped=DROPPED),
        StampDue(),
        DropCrowds(),
        PoisonGuard(),
        Retries(dropped=DROPPED),
        TimeLimit(),
    ],
)
dramatiq.set_broker(broker)
