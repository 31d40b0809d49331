"""No flood and no slow chain takes the threads of others."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from dramatiq.message import Message
from redis import Redis

from actors import GROUPS, LISTEN_FOR_PAYMENTS, SEND_WEBHOOK, Rule
from actors.broker import NAMESPACE
from actors.hardened import HardenedBroker
from actors.middleware.crowds import DropCrowds
from ctrip.bootstrap import bootstrap, shut_down
from ctrip.context import Context
from ctrip.database import webhooks
from ctrip.database.models import loops as loop_rows
from ctrip.database.models import webhook_deliveries
from ctrip.services import loops
from ctrip.settings import Role
from tests.actors.workers import declare, running, working
from tests.factories import CHAIN_ID, OTHER_CHAIN_ID
from tests.outbound.peers import peer, silence
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


def test_duplicates_of_a_message_that_hangs_leave_the_other_threads_to_others(make_broker: Any) -> None:
    broker, release, begun = make_broker(DropCrowds()), threading.Event(), []

    def look_at(row: str) -> None:
        begun.append(row)
        if row == "stuck":
            release.wait(20)

    actor = declare(broker, look_at)
    with working(broker, threads=4):
        for _ in range(50):
            actor.send("stuck")
        actor.send("other")
        wait_until(lambda: "other" in begun, within_s=10)
        assert begun.count("stuck") == 2
        release.set()
        wait_until(lambda: broker.client.hlen("test:q.msgs") == 0, within_s=10, what="every message is done with")
        actor.send("stuck")
        wait_until(lambda: begun.count("stuck") == 3, within_s=10, what="those that ended make room")


class Site:
    """Worker groups of cTrip as worker.sh starts them, on two chains: the dev chain, and one that never answers."""

    def __init__(self, environment: dict[str, str], folder: Path, *, stuck_url: str) -> None:
        (row,) = yaml.safe_load(Path(environment["CHAINS_FILE"]).read_text())["chains"]
        stuck = row | {"name": "stuck", "chain_id": OTHER_CHAIN_ID, "rpc_urls": [stuck_url]}
        chains_file = folder / "chains.yaml"
        chains_file.write_text(yaml.safe_dump({"chains": [row, stuck]}))
        self.environment = environment | {"CHAINS_FILE": str(chains_file)}
        self._log = folder / "workers.log"
        self._broker = HardenedBroker(namespace=NAMESPACE, middleware=[])
        self._broker.connect(environment["REDIS_URL"])

    def start(self, *queues: str) -> Any:
        return running("./worker.sh", *queues, environment=self.environment, log=self._log)

    def send(self, rule: Rule, row_id: int | str) -> None:
        self._broker.enqueue(Message(rule.queue, rule.actor, (row_id,), {}, {}))


def ticks(ctx: Context, chain_id: int) -> int:
    with ctx.sessions.begin() as session:
        query = sa.select(loop_rows.c.fence).where(loop_rows.c.name == f"listener:{chain_id}")
        return session.scalar(query) or 0


@contextmanager
def context_of(environment: dict[str, str]) -> Iterator[Context]:
    ctx = bootstrap(Role.SCHEDULER, environment)
    try:
        yield ctx
    finally:
        shut_down(ctx)


class Holding:
    """How many requests wait for an answer at once, now and at the worst."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, sock: socket.socket) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            silence(sock)
        finally:
            with self._lock:
                self.now -= 1


def test_a_chain_whose_node_never_answers_holds_two_threads_at_most_and_the_others_keep_their_pace(
    ctx: Context, environment: dict[str, str], redis_client: Redis, tmp_path: Path
) -> None:
    held = Holding()
    with ExitStack() as parts:
        node = parts.enter_context(peer(held))
        site = Site(environment, tmp_path, stuck_url=node.url)
        scheduler = parts.enter_context(context_of(site.environment))
        loops.ensure_loops(scheduler)
        started = parts.enter_context(site.start("listener"))
        wait_until(lambda: '"event": "worker_ready"' in started.said, within_s=30, what=started.said)
        held.most = 0  # each process asks every node once before it begins
        site.send(LISTEN_FOR_PAYMENTS, CHAIN_ID)

        def flooded_and_far_enough() -> bool:
            for _ in range(20):
                site.send(LISTEN_FOR_PAYMENTS, OTHER_CHAIN_ID)
            return ticks(ctx, CHAIN_ID) >= 12 and ticks(ctx, OTHER_CHAIN_ID) >= 2

        # At its own period of half a second, 12 ticks take 6 s, and the stuck chain's requests 4 s each.
        wait_until(flooded_and_far_enough, within_s=60, every_s=0.2, what="the other chain goes on")
        assert 1 <= held.most <= 2


def owe(ctx: Context, url: str, count: int) -> list[str]:
    """Store custom webhooks that are due."""
    with ctx.sessions.begin() as session:
        return [
            webhooks.owe_custom(session, url=url, payload="{}", merchant_id=None, new_id=ctx.new_id)
            for _ in range(count)
        ]


def never_tried(ctx: Context) -> int:
    with ctx.sessions.begin() as session:
        query = sa.select(sa.func.count()).select_from(webhook_deliveries).where(webhook_deliveries.c.attempts == 0)
        return session.scalar(query) or 0


def test_four_hundred_slow_webhooks_delay_no_listener(
    ctx: Context, environment: dict[str, str], redis_client: Redis, tmp_path: Path
) -> None:
    held = Holding()
    with ExitStack() as parts:
        node = parts.enter_context(peer(held))
        site = Site(environment, tmp_path, stuck_url=node.url)
        sinks = [parts.enter_context(peer(held)) for _ in range(20)]
        loops.ensure_loops(ctx)
        for sink in sinks:
            for delivery_id in owe(ctx, sink.url, 20):
                site.send(SEND_WEBHOOK, delivery_id)
        started = parts.enter_context(site.start("webhook", "listener"))
        wait_until(lambda: held.now >= 8, within_s=90, what=started.log)
        site.send(LISTEN_FOR_PAYMENTS, CHAIN_ID)
        wait_until(lambda: ticks(ctx, CHAIN_ID) >= 3, within_s=30, what="the listener goes on at its pace")
        assert never_tried(ctx) > 300, "the flood is still there"
        (webhook,) = (group for group in GROUPS if group.queue == "webhook")
        assert held.most <= webhook.most_at_once + 1, "and the flood is bounded too; one is the chain's first look"
