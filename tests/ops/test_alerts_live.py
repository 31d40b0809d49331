"""Four alerts fire on a running stack, for what they are there for: with the shipped expressions, and no shorter waits.

Only the `for` of the rules and the scrape interval differ. Nothing is made up: workers are stopped, and time passes.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ctrip.local.children import free_port
from tests.ops.prometheus import Prometheus, scraping
from tests.shop import Shop
from tests.sink import Sink
from tests.stack import PORTS, RunningStack
from tests.waiting import wait_until

pytestmark = pytest.mark.chaos
AWAITED = {"DeadLetterArrived", "QueueLatencyHigh", "LoopStalled", "OutboxStuck"}


@pytest.fixture
def own_stack(anvil_binary: Path, tmp_path: Path) -> Iterator[RunningStack]:
    """A stack of its own, that gives a webhook up after two attempts."""
    stack = RunningStack(tmp_path / "data", NO_DEMO="1", WEBHOOK_RETRY_SCHEDULE="0,1")
    stack.start()
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


def fires(prometheus: Prometheus, alert: str, *, within_s: float, **labels: str) -> None:
    """Wait until an alert fires with these labels."""

    def is_firing() -> bool:
        return any(labels.items() <= found.items() for found in prometheus.firing().get(alert, ()))

    wait_until(is_firing, within_s=within_s, every_s=0.5, what=f"{alert} fires")


def signal_workers(stack: RunningStack, number: signal.Signals) -> None:
    """Stop or continue the webhook's and the sweeper's masters with all that they have forked."""
    for name in ("worker.webhook", "worker.sweeper"):
        os.killpg(stack.pids()[name], number)


def test_four_alerts_fire_for_what_they_are_there_for_and_end_with_it(own_stack: RunningStack, tmp_path: Path) -> None:
    pages = {name: [urlsplit(own_stack["metrics"][name]).netloc] for name in ("api", "worker", "scheduler")}
    shop, closed = Shop(own_stack.facts()), f"http://127.0.0.1:{free_port(24_400 + PORTS)}/gone"
    with scraping(tmp_path / "prometheus", pages, alerts_wait=False) as prometheus, Sink() as sink:
        wait_until(lambda: prometheus.query("queue_state:ctrip_queue_messages:max"), within_s=10)
        assert not AWAITED & set(prometheus.firing())

        shop.ask("0.1", webhook_url=closed)
        fires(prometheus, "DeadLetterArrived", within_s=60, queue="webhook", actor="send_webhook", reason="schedule")
        signal_workers(own_stack, signal.SIGSTOP)
        try:
            shop.ask("0.1", webhook_url=sink.url)
            assert not {"QueueLatencyHigh", "LoopStalled", "OutboxStuck"} & set(prometheus.firing())
            fires(prometheus, "LoopStalled", within_s=90, loop=f"sweeper:{own_stack['chain_id']}")
            fires(prometheus, "QueueLatencyHigh", within_s=90, queue="webhook")
            fires(prometheus, "OutboxStuck", within_s=150)
            stalled = {found["loop"] for found in prometheus.firing()["LoopStalled"]}
            assert stalled == {f"sweeper:{own_stack['chain_id']}"}, "the listener goes on"
        finally:
            signal_workers(own_stack, signal.SIGCONT)
        wait_until(lambda: sink.received, within_s=60, what="the webhook is sent after all")
        ended = {"QueueLatencyHigh", "LoopStalled", "OutboxStuck"}
        wait_until(lambda: not ended & set(prometheus.firing()), within_s=60, every_s=0.5, what="they have ended")
