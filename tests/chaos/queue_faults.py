"""Faults of the queue that a story may be told with."""

import signal
import time
from collections.abc import Callable
from contextlib import closing

import psycopg2
from dramatiq.message import Message

from actors import CHECK_BALANCES, LISTEN_FOR_PAYMENTS, SWEEP_PAYMENTS
from actors.hardened import HardenedBroker
from ctrip.domain.loops import LoopKind
from tests.chaos.story import Story
from tests.waiting import wait_until

Fault = Callable[[Story], None]
_LOOPS = {
    LoopKind.LISTENER: LISTEN_FOR_PAYMENTS,
    LoopKind.SWEEPER: SWEEP_PAYMENTS,
    LoopKind.BALANCES: CHECK_BALANCES,
}
_PENDING = "SELECT id FROM webhook_deliveries WHERE next_attempt_at IS NOT NULL"


def send_all_five_fold(story: Story) -> None:
    """Start each loop five times over, and send five messages for each delivery that is pending."""
    stack = story.stack
    with closing(psycopg2.connect(stack["database_url"].replace("+psycopg2", ""))) as database:
        cursor = database.cursor()
        cursor.execute("SELECT kind, chain_id FROM loops WHERE enabled")
        messages: list[Message[object]] = [
            Message(_LOOPS[kind].queue, _LOOPS[kind].actor, (chain_id,), {}, {}) for kind, chain_id in cursor.fetchall()
        ]
        cursor.execute(_PENDING)
        messages += [Message("webhook", "send_webhook", (row_id,), {}, {}) for (row_id,) in cursor.fetchall()]
    broker = HardenedBroker(namespace="ctrip", middleware=[])
    broker.connect(stack["redis_url"])
    for message in messages * 5:
        broker.enqueue(message)


def kill(name: str) -> Fault:
    """kill -9 a process of the stack by its name, and let the story go on meanwhile."""

    def killing(story: Story) -> None:
        story.stack.wait_restarted(name, old_pid=story.stack.kill(name), within_s=60)

    return killing


def redis_away(seconds: float) -> Fault:
    """Kill Valkey, and let nobody start it again for so long: whoever connects is refused."""

    def going_away(story: Story) -> None:
        story.stack.supervisor.send_signal(signal.SIGSTOP)
        try:
            old_pid = story.stack.kill("valkey")
            wait_until(_has_passed(seconds), within_s=seconds + 5)
        finally:
            story.stack.supervisor.send_signal(signal.SIGCONT)
        story.stack.wait_restarted("valkey", old_pid=old_pid)

    return going_away


def _has_passed(seconds: float) -> Callable[[], bool]:
    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until
