"""Webhooks on the real scheduler and workers: effects that outlive FLUSHALL, deliveries per second, mute endpoints.

`python -m bench.queue_webhooks` prints one line of JSON. It has a Postgres that syncs to disk and a Valkey of its own.
"""

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import sqlalchemy as sa
import yaml
from redis import Redis

from actors.broker import NAMESPACE
from actors.queues import Queues
from bench.queue_faults import Scene, kill_all
from bench.queue_sinks import Sinks, sinks
from bench.smoke import quantile
from ctrip.bootstrap import bootstrap
from ctrip.context import Context
from ctrip.database import schema
from ctrip.database.engine import make_engine
from ctrip.database.models import events, merchants, webhook_deliveries
from ctrip.domain.events import EventType
from ctrip.domain.ids import Prefix
from ctrip.domain.webhooks import AT_ONCE, DeliveryStatus, origin
from ctrip.local.postgres import embedded_postgres
from ctrip.settings import Role
from tests.actors.conftest import OwnRedis
from tests.actors.workers import Master, running
from tests.conftest import MERCHANT_ID, SECRETS_KEY, WEBHOOK_SECRET, XPUB
from tests.conftest import running as part
from tests.factories import CHAIN_ID, store_payment
from tests.waiting import wait_until

QUICK, MUTE = 250, 50
EFFECTS = AT_ONCE * QUICK
"""All of them have a message in Redis: the relay sends as many for an origin as may be tried there at once."""
BUSY, DELIVERIES = 24, 4_000
GOOD = 150
GOOD_WITHIN_S = 60
PYTHON = sys.executable


class World:
    """A Postgres, a Valkey and the environment of cTrip's processes on them."""

    def __init__(self, folder: Path, url: str, valkey: OwnRedis) -> None:
        self.folder, self.url, self.valkey = folder, url, valkey
        chains = folder / "chains.yaml"
        chain = {
            "name": "anvil",
            "chain_id": CHAIN_ID,
            "rpc_urls": ["http://127.0.0.1:9"],
            "native": {"symbol": "ETH", "decimals": 18},
            "confirmations": 3,
            "treasury": "0x" + "99" * 20,
            "sweep": {"max_fee_gwei": 200},
            "tokens": [],
        }
        chains.write_text(yaml.safe_dump({"chains": [chain]}))
        self.environment = {
            "ENV": "test",
            "DATABASE_URL": url,
            "REDIS_URL": valkey.url,
            "CHAINS_FILE": str(chains),
            "SECRETS_KEY": SECRETS_KEY,
            "WALLET_XPUB": XPUB,
            "WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8",
            "WEBHOOK_PROCESSES": "2",
            "WEBHOOK_RETRY_SCHEDULE": "0,5,5,5,5,5,5,5,5,5",
            "LOG_LEVEL": "WARNING",
        }
        engine = make_engine(url.replace("postgresql://", "postgresql+psycopg2://"), process="bench")
        schema.upgrade(engine)
        engine.dispose()
        self.ctx = bootstrap(Role.WEBHOOK, self.environment)
        self.queues = Queues(Redis.from_url(valkey.url), namespace=NAMESPACE, heartbeat_timeout_ms=30_000)

    def scheduler(self) -> Any:
        return self._running(PYTHON, "-m", "actors.scheduler", log="scheduler")

    def workers(self) -> Any:
        return self._running("./worker.sh", "webhook", log="webhook")

    def _running(self, *command: str, log: str) -> Any:
        return _killed_after(running(*command, environment=self.environment, log=self.folder / f"{log}.log"))


@contextmanager
def _killed_after(started: Any) -> Iterator[Master]:
    with started as master:
        try:
            yield master
        except BaseException:
            print(master.said[-4000:], file=sys.stderr)
            raise
        finally:
            kill_all(master)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ctrip-bench-webhooks-") as name:
        folder = Path(name)
        program, url = embedded_postgres(folder / "postgres")
        with part(program, folder):
            valkey = OwnRedis(folder / "valkey")
            try:
                print(json.dumps(measure(World(folder, url, valkey))))
            finally:
                valkey.stop()


def measure(world: World) -> dict[str, Any]:
    """Take all measures, one after the other."""
    _add_merchant(world.ctx)
    found: dict[str, Any] = {"outbox_effects": textbook_effects(world)}
    with sinks(quick=QUICK, mute=MUTE) as there, world.scheduler():
        owed = owe(world.ctx, there.quick, count=EFFECTS)
        wait_until(lambda: world.queues.ready("webhook") >= EFFECTS, within_s=30, what="all are in Redis")
        world.queues.client.flushall()
        with world.workers():
            found["flushed_effects"] = effects_after(owed, there)
            found["deliveries_per_s"] = deliveries_per_s(world.ctx, there, there.quick[:BUSY])
            found["deliveries_to_one_per_s"] = deliveries_per_s(world.ctx, there, there.quick[:1])
            found["good_p99_s"], found["good_p50_s"] = good_beside_mute(world.ctx, there)
    return found


def textbook_effects(world: World) -> int:
    """How many of EFFECTS happen after FLUSHALL if a row is done as soon as Redis has its message."""
    scene = Scene("stock", world.folder / "outbox")
    with psycopg2.connect(world.url) as database, database.cursor() as rows:
        rows.execute("CREATE TABLE outbox (id serial PRIMARY KEY, sent_at timestamptz)")

        def relay() -> None:
            rows.execute("SELECT id FROM outbox WHERE sent_at IS NULL ORDER BY id")
            for (number,) in rows.fetchall():
                scene.send("note", f"effect {number}")
                rows.execute("UPDATE outbox SET sent_at = now() WHERE id = %s", (number,))

        rows.execute("INSERT INTO outbox (sent_at) SELECT NULL FROM generate_series(1, %s)", (EFFECTS,))
        relay()
        scene.redis.flushall()
        rows.execute("INSERT INTO outbox DEFAULT VALUES")
        with scene.worker():
            relay()
            wait_until(lambda: scene.noted(f"effect {EFFECTS + 1}"), within_s=30, what="a later effect happens")
            time.sleep(3)
        rows.execute("DROP TABLE outbox")
    happened = sum(scene.noted(f"effect {number}") > 0 for number in range(1, EFFECTS + 1))
    scene.valkey.stop()
    return happened


def effects_after(owed: Sequence[str], there: Sinks) -> int:
    """How many of the owed events came exactly once."""
    wait_until(lambda: set(owed) <= {name for name, _ in there.arrived}, within_s=60, what="all effects happen")
    time.sleep(2)
    times = Counter(name for name, _ in there.arrived)
    return sum(times[name] == 1 for name in owed)


def deliveries_per_s(ctx: Context, there: Sinks, urls: Sequence[str]) -> float:
    """Deliveries per second to sinks that answer at once, from the first arrival to the last."""
    there.arrived.clear()
    owe(ctx, urls, count=DELIVERIES)
    wait_until(lambda: len(there.arrived) >= DELIVERIES, within_s=120, every_s=0.2, what=f"{len(there.arrived)} came")
    moments = sorted(at for _, at in there.arrived)
    return round((DELIVERIES - 1) / (moments[-1] - moments[0]), 1)


def good_beside_mute(ctx: Context, there: Sinks) -> tuple[float, float]:
    """Seconds (p99, p50) from a payment's commit to its webhook while MUTE others never answer, each tried before."""
    owe(ctx, there.mute, count=4 * MUTE)
    tried = sa.select(sa.func.count(webhook_deliveries.c.origin.distinct())).where(
        webhook_deliveries.c.url.in_(there.mute), webhook_deliveries.c.attempts > 0
    )
    wait_until(lambda: _ask(ctx, tried) == MUTE, within_s=240, every_s=0.5, what="each has timed out once")
    there.arrived.clear()
    committed: dict[str, float] = {}
    for _ in range(GOOD):
        with ctx.sessions.begin() as session:
            payment = store_payment(session, new_id=ctx.new_id, webhook_url=there.quick[0], merchant_id=MERCHANT_ID)
            event_id = session.scalars(sa.select(events.c.id).where(events.c.payment_id == payment.id)).one()
        committed[event_id] = time.time()
        time.sleep(0.15)
    until = time.time() + GOOD_WITHIN_S
    while time.time() < until and len(there.arrived) < GOOD:
        time.sleep(0.1)
    came = dict(there.arrived)
    # One that has not come by now took at least so long.
    took = [came.get(name, time.time()) - at for name, at in committed.items()]
    return quantile(took, 99), quantile(took, 50)


def owe(ctx: Context, urls: Sequence[str], *, count: int) -> list[str]:
    """Store `count` events of one payment, each with a delivery to the next of `urls`, due now. Returns the events."""
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id, merchant_id=MERCHANT_ID)
        whose = {"merchant_id": MERCHANT_ID, "payment_id": payment.id}
        made = [
            {
                "id": ctx.new_id(Prefix.EVENT),
                "type": EventType.PAYMENT_UPDATED,
                "version": n + 2,
                "body": {"payment": {"id": payment.id, "amount": "1"}},
                **whose,
            }
            for n in range(count)
        ]
        session.execute(sa.insert(events), made)
        owed = [
            {
                "id": ctx.new_id(Prefix.DELIVERY),
                "event_id": event["id"],
                "url": urls[n % len(urls)],
                "origin": origin(urls[n % len(urls)]),
                "status": DeliveryStatus.PENDING,
                "next_attempt_at": ctx.now(),
                **whose,
            }
            for n, event in enumerate(made)
        ]
        session.execute(sa.insert(webhook_deliveries), owed)
    return [str(event["id"]) for event in made]


def _add_merchant(ctx: Context) -> None:
    if ctx.box is None:
        raise SystemExit("no SECRETS_KEY")
    secret = ctx.box.encrypt(WEBHOOK_SECRET.encode())
    with ctx.sessions.begin() as session:
        session.execute(merchants.insert().values(id=MERCHANT_ID, name="A shop", webhook_secret=secret))


def _ask(ctx: Context, query: sa.Select[Any]) -> Any:
    with ctx.sessions.begin() as session:
        return session.scalar(query)


if __name__ == "__main__":
    main()
