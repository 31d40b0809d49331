"""How long a payment and a page of them take over HTTP, where there are 1,000 and where there are 1,000,000.

Two databases of one Postgres, with an API process each, answer in turns in this one run: each round asks both, so what
the machine does meanwhile befalls them alike. The requests are those of the merchant who has nine in ten of them all.
Prints a table and, last, one line of JSON.
"""

import http.client
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import sqlalchemy as sa

from bench.api_world import World, running_world
from ctrip.database import schema
from ctrip.database.engine import make_engine
from ctrip.services.merchants import create_key
from tests.long_lists import BIG, fill

FEW, MANY = 1_000, 1_000_000
ROUNDS, TURN_S = 10, 0.5
"""Each of the two is asked for each of the paths for so long, in each round."""
PATHS = {
    "get": "/api/v1/payments/{id}",
    "list": "/api/v1/payments",
    "list, the next page": "/api/v1/payments?starting_after={id}",
    "list of a status": "/api/v1/payments?status=expired&starting_after={id}",
    "list of a status nobody has": "/api/v1/payments?status=detected",
    "list of a chain": "/api/v1/payments?chain=base&starting_after={id}",
    "list of an order": "/api/v1/payments?order_id=order-{number}",
}


@dataclass
class Shop:
    """Payments that are asked for over one connection; how many milliseconds each answer took, by what was asked."""

    connection: http.client.HTTPConnection
    key: str
    ids: Iterator[str]
    took_ms: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PATHS})

    def take_turn(self, name: str, *, seconds: float) -> None:
        """Ask for one thing again and again, of one payment after the other."""
        ends_at = time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends_at:
            payment_id = next(self.ids)
            path = PATHS[name].format(id=payment_id, number=int(payment_id[-20:], 16))
            self.connection.request("GET", path, headers={"Authorization": f"Bearer {self.key}"})
            answer = self.connection.getresponse()
            answer.read()
            self.took_ms[name].append(1000 * (time.perf_counter() - began))
            if answer.status != 200:
                raise SystemExit(f"{path} was answered with {answer.status}")

    def percentile(self, name: str, of_hundred: int) -> float:
        """Return within how many milliseconds so many of a hundred answers came."""
        return statistics.quantiles(self.took_ms[name], n=100)[of_hundred - 1]


def main() -> None:
    with running_world() as world:
        print(json.dumps(measure(world)))


def measure(world: World, *, rounds: int = ROUNDS, many: int = MANY) -> dict[str, float]:
    """Print a table; return the p99 of each among `many`, and how many times that among FEW it is."""
    with ExitStack() as stack:
        few, long = (stack.enter_context(_shop(world, payments=payments)) for payments in (FEW, many))
        for number, name in itertools.product(range(rounds), PATHS):
            # Each begins as often as the other.
            for shop in (few, long) if number % 2 else (long, few):
                shop.take_turn(name, seconds=TURN_S)
    report: dict[str, float] = {}
    print(f"{'milliseconds, p50 and p99, of':<30}{FEW:>14,}{many:>20,}   ratio of p99")
    for name in PATHS:
        p50, p99, long_p50, long_p99 = (shop.percentile(name, part) for shop in (few, long) for part in (50, 99))
        print(f"{name:<30}{p50:>7.2f}{p99:>7.2f}{long_p50:>13.2f}{long_p99:>7.2f}{long_p99 / p99:>15.2f}")
        word = name.replace(",", "").replace(" ", "_")
        report |= {f"{word}_p99_ms": round(long_p99, 2), f"{word}_p99_ratio": round(long_p99 / p99, 2)}
    return report


@contextmanager
def _shop(world: World, *, payments: int) -> Iterator[Shop]:
    """Fill a database of its own, run an API on it, and yield a client of its biggest merchant."""
    name = f"lists_{payments}"
    with world.ctx.sessions.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    url = world.url.replace("/postgres?", f"/{name}?")
    engine = make_engine(url.replace("postgresql://", "postgresql+psycopg2://"), process="bench")
    schema.upgrade(engine)
    began = time.monotonic()
    fill(engine, payments=payments)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("SET statement_timeout = 0"))
        connection.execute(sa.text("VACUUM"))  # or it comes by itself, in the middle of what is measured
        spread = sa.text("SELECT id FROM payments WHERE merchant_id = :big ORDER BY random() LIMIT 500")
        ids = list(connection.scalars(spread, {"big": BIG}))
    engine.dispose()
    print(f"{payments:,} payments were made in {time.monotonic() - began:.0f} s", flush=True)
    _, key = create_key(world.context(url), by="bench", merchant_id=BIG, scopes=["payments:read"])
    with world.api_of(url) as address:
        yield Shop(http.client.HTTPConnection(urlsplit(address).netloc), key, itertools.cycle(ids))


if __name__ == "__main__":
    main()
