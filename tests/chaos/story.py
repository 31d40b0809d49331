"""Fifty payments are made, paid, swept and notified while things are killed. Then everything must add up."""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import redis

from tests.shop import Shop
from tests.sink import Sink
from tests.stack import RunningStack
from tests.waiting import wait_until

WALK = ["payment.created", "payment.detected", "payment.confirmed", "payment.settled"]
WORKERS = ("worker.listener", "worker.sweeper", "worker.webhook")
SETTLED_WITHIN_S = 180


@dataclass
class Story:
    """A run by one seed. `stack` is the running stack; `faults` are told to it between payments."""

    stack: RunningStack
    seed: int
    payments: int = 50
    kills: int = 20
    told: list[str] = field(default_factory=list)
    posts: Counter[str] = field(default_factory=Counter)
    """How often each webhook-id came, once the story is told."""

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def live(self, *extra: tuple[int, Callable[["Story"], None]]) -> None:
        """Tell the story. Each of `extra` is a fault and the number of the payment before which it happens."""
        print(f"seed {self.seed}: {self.payments} payments, {self.kills} kills")  # noqa: T201
        shop, treasury = Shop(self.stack.facts()), self.stack["treasury"]
        killed_before = {round((n + 1) * self.payments / (self.kills + 1)) for n in range(self.kills)}
        tokens_before = shop.balance(treasury, shop.usdc)
        with Sink() as sink:
            asked = []
            for number in range(self.payments):
                for _, fault in (each for each in extra if each[0] == number):
                    fault(self)
                if number in killed_before:
                    self.kill_a_worker()
                asked.append(self._ask_and_pay(shop, number, sink.url))
            self._settle(shop, sink, asked)
            self.posts = Counter(received.headers["webhook-id"] for received in sink.received)
        swept = shop.balance(treasury, shop.usdc) - tokens_before
        assert swept == sum(int(p["amount_atomic"]) for p in asked if p["token"]), "tokens swept exactly once"
        left = {p["id"]: shop.balance(p["address"]) for p in asked if p["token"] is None}
        assert not any(left.values()), left
        audited = self.stack.ctrip("audit")
        assert audited.returncode == 0, audited.stdout + audited.stderr

    def kill_a_worker(self) -> None:
        """kill -9 a worker, its master or a process below it that does the work, and wait until it is back."""
        victim = self._dice.choice(WORKERS)
        master = self.stack.pids()[victim]
        pid = self._dice.choice([master, *_children(master)])
        self.told.append(f"{victim} {pid}")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.stack.wait_restarted(victim, old_pid=master, within_s=60)

    def flush_redis(self) -> None:
        """Lose every message."""
        with redis.Redis.from_url(self.stack["redis_url"]) as client:
            client.flushall()

    def kill_redis(self) -> None:
        """kill -9 Valkey."""
        self.stack.wait_restarted("valkey", old_pid=self.stack.kill("valkey"))

    def freeze_node(self) -> None:
        """Let the node be silent for longer than any request waits for it."""
        told = self.stack.log.read_text().count("chain_unreadable")
        self.stack.kill("anvil", signal.SIGSTOP)
        try:
            wait_until(
                lambda: self.stack.log.read_text().count("chain_unreadable") > told,
                within_s=60,
                every_s=0.5,
                what="the listener misses the node",
            )
        finally:
            self.stack.kill("anvil", signal.SIGCONT)

    def _ask_and_pay(self, shop: Shop, number: int, url: str) -> dict[str, Any]:
        token = self._dice.choice([None, "USDC"])
        amount = f"{self._dice.randrange(1, 500)}.25" if token else f"0.{self._dice.randrange(1, 99):03}"
        asked = shop.ask(amount, token=token, webhook_url=url, order_id=f"{self.seed}-{number}-{os.getpid()}")
        shop.pay(asked)
        return asked

    def _settle(self, shop: Shop, sink: Sink, asked: list[dict[str, Any]]) -> None:
        def unsettled() -> list[str]:
            now = (shop.payment(p["id"]) for p in asked)
            return [f"{p['id']} {p['status']} {p['settlement']}" for p in now if p["status"] != "settled"]

        wait_until(lambda: not unsettled(), within_s=SETTLED_WITHIN_S, every_s=1, what="all are settled")
        for payment in asked:
            # A node that thaws may tell a balance a block too early: what was inferred of it goes by an update.
            evidence = partial(self._evidence, payment["id"])
            sink.wait_for(payment["id"], WALK, within_s=90, beside="payment.updated", evidence=evidence)

    def _evidence(self, payment_id: str) -> str:
        told = "\n".join(line for line in self.stack.log.read_text().splitlines() if payment_id in line)
        return f"{self.stack.ctrip('payments', 'show', payment_id).stdout}\n{told}"


def _children(pid: int) -> list[int]:
    with suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]
    return []
