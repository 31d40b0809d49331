"""Workers of tests.actors.limited in processes of their own, and what their actors noted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dramatiq.message import Message
from redis import Redis

from actors.broker import NAMESPACE
from actors.hardened import HardenedBroker
from actors.queues import Depth, Queues
from ctrip.context import Context
from ctrip.database.models import dead_letters
from tests.actors.limited import QUEUE
from tests.actors.workers import running


class Limited:
    """Workers of tests.actors.limited, and what their actors noted."""

    def __init__(self, ctx: Context, environment: dict[str, str], redis: Redis, folder: Path) -> None:
        self.ctx = ctx
        self.redis = redis
        self.queues = Queues(redis, namespace=NAMESPACE, heartbeat_timeout_ms=30_000)
        self.environment = {**environment, "dramatiq_worker_timeout": "50"}
        self._log = folder / "workers.log"
        self._broker = HardenedBroker(namespace=NAMESPACE, middleware=[])
        self._broker.connect(environment["REDIS_URL"])

    def start(self, *, processes: int = 1, threads: int = 2, stop_within_ms: int = 50_000) -> Any:
        """Start a master as worker.sh does."""
        size = ["--processes", str(processes), "--threads", str(threads)]
        fixed = ["--queues", QUEUE, "--skip-logging", "--worker-fork-timeout", "10"]
        fixed += ["--worker-shutdown-timeout", str(stop_within_ms)]
        return running("dramatiq", "tests.actors.limited", *fixed, *size, environment=self.environment, log=self._log)

    def send(self, actor: str, *args: Any, delay_ms: int | None = None) -> None:
        self._broker.enqueue(Message(QUEUE, actor, args, {}, {}), delay=delay_ms)

    def noted(self, name: str) -> int:
        return int(self.redis.get(f"noted:{name}") or 0)

    def noted_each(self, names: Sequence[str], what: str) -> list[int]:
        return [self.noted(f"{name}:{what}") for name in names]

    def depth(self) -> Depth:
        (depth,) = self.queues.depths([QUEUE])
        return depth

    def letters(self) -> list[Any]:
        with self.ctx.sessions.begin() as session:
            return list(session.execute(sa.select(dead_letters)))
