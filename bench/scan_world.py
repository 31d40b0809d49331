"""What a scan is measured on: a Postgres that syncs to disk, issued addresses, and chains of the synthetic node."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml

from bench.costs import cpu_s
from bench.scan_blocks import COIN_AMOUNT, FIRST_BLOCK, USDC_AMOUNT, SyntheticChain, time_of
from bench.scan_bodies import DAI, USDC, USDT, Body, make_bodies
from bench.scan_node import BODIES, Node, running_node
from ctrip.database import cursors, loops, schema
from ctrip.database.engine import Sessions, make_engine
from ctrip.domain.addresses import checksum_address
from ctrip.domain.loops import LoopKind
from ctrip.domain.scanning import Header
from ctrip.local.postgres import embedded_postgres
from tests.conftest import running

CONFIRMATIONS = 12
_MERCHANT = {"merchant": "mer_01SCANNING0000000000000000"}
_ISSUE = (
    # Nothing is checked row by row while a million of them are made; what is made is right, however long it takes.
    "SET LOCAL session_replication_role = replica",
    "SET LOCAL statement_timeout = 0",
    "INSERT INTO merchants (id, name, webhook_secret) VALUES (:merchant, 'A shop', 'sealed')",
    """
    INSERT INTO payments (id, merchant_id, chain_id, chain, token, symbol, decimals, amount, tolerance_bps, required,
                          finality, address, version, status, received, confirmed, amount_status, settlement, metadata,
                          created_at, expires_at)
    SELECT 'pay_' || lpad(n::text, 26, '0'), :merchant, :chain_id, 'bench',
           CASE n % 3 WHEN 0 THEN :coin ELSE :usdc END, CASE n % 3 WHEN 0 THEN 'ETH' ELSE 'USDC' END,
           CASE n % 3 WHEN 0 THEN 18 ELSE 6 END, CASE n % 3 WHEN 0 THEN :coin_amount ELSE :usdc_amount END, 0,
           :confirmations, 'confirmations', substring(sha256(convert_to('issued ' || n, 'UTF8')) FOR 20),
           1, 'pending', 0, 0, 'none', 'none', '{}', now(), now() + interval '7 days'
    FROM generate_series(0, :count - 1) AS n
    """,
    """
    INSERT INTO deposit_addresses (address, wallet_fingerprint, derivation_index, payment_id)
    SELECT address, 'bench', row_number() OVER (), id FROM payments
    """,
)


class Place:
    """A database whose listener reads one chain, from its first block on, for `count` issued addresses.

    One block in `pays_every` pays three of them.
    """

    def __init__(self, world: "World", *, chain_id: int, count: int, pays_every: int = 1) -> None:
        self.chain_id, self.count = chain_id, count
        self.read_block = FIRST_BLOCK
        self.chain = SyntheticChain(chain_id, world.bodies, payees=count, pays_every=pays_every)
        self.world = world
        self.url = world.make_database(f"scan_{chain_id}")
        self.engine = make_engine(self.url, process="bench")
        schema.upgrade(self.engine)
        self._issue()
        world.node.begin(chain_id, payees=count, pays_every=pays_every)

    def scan(self, blocks: int, *, latency_ms: int) -> dict[str, Any]:
        """Let the chain grow by blocks while nobody looks; have them read. Raises SystemExit where a row is wrong."""
        first, last = self.read_block + 1, self.read_block + blocks
        self.world.node.set_head(self.chain_id, last)
        told = run(
            "bench.scan_ours", self.chain_id, last, environment=self.environment(latency_ms=latency_ms, poll_s=1)
        )
        self.check(first, last)
        self.read_block = last
        return told

    def check(self, first: int, last: int) -> None:
        """Compare what is stored of these blocks with what was planted there."""
        planted = {
            (number, paid.tx_hash, paid.log_index, paid.token, paid.recipient, paid.amount)
            for number in range(first, last + 1)
            for paid in self.chain.paid(number)
            if self.count
        }
        query = sa.text(
            "SELECT block_number, tx_hash, log_index, token, recipient, amount FROM transfers"
            " WHERE chain_id = :chain_id AND block_number BETWEEN :first AND :last AND status <> 'orphaned'"
        )
        with self.engine.begin() as connection:
            rows = connection.execute(query, {"chain_id": self.chain_id, "first": first, "last": last}).all()
        stored = [(n, bytes(tx), log, bytes(token), bytes(to), int(amount)) for n, tx, log, token, to, amount in rows]
        if set(stored) != planted or len(stored) != len(planted):
            missing, strange = len(planted - set(stored)), len(set(stored) - planted)
            raise SystemExit(f"of {len(planted)} payments {missing} were not found; {strange} rows are of no payment")

    def environment(self, *, latency_ms: int, poll_s: float) -> dict[str, str]:
        """Return the environment of a listener's process here."""
        file = self.world.folder / f"chains-{self.chain_id}-{latency_ms}.yaml"
        file.write_text(yaml.safe_dump({"chains": [self.row(latency_ms=latency_ms, poll_s=poll_s)]}))
        return self.world.environment(self.url, file)

    def row(self, *, latency_ms: int, poll_s: float) -> dict[str, Any]:
        """Return the chain as chains.yaml has it."""
        url = self.world.node.url(self.chain_id, latency_ms=latency_ms)
        return chain_row("bench", self.chain_id, url, poll_s=poll_s)

    def _issue(self) -> None:
        values = _MERCHANT | {
            "chain_id": self.chain_id,
            "coin": bytes(20),
            "usdc": bytes.fromhex(USDC[2:]),
            "coin_amount": COIN_AMOUNT,
            "usdc_amount": USDC_AMOUNT,
            "confirmations": CONFIRMATIONS,
            "count": self.count,
        }
        with self.engine.begin() as connection:
            for statement in _ISSUE:
                connection.execute(sa.text(statement), values)
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))
        start_chains(self.engine, [self.chain])


class World:
    """The node, the Postgres and the bodies of the blocks, for a whole measurement."""

    def __init__(self, folder: Path, url: str, node: Node, postgres_pid: int) -> None:
        self.folder, self.node = folder, node
        self.bodies: tuple[Body, ...] = make_bodies(BODIES)
        self._url = url
        self._postgres_pid = postgres_pid

    def make_database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        engine = sa.create_engine(self._url.replace("postgresql://", "postgresql+psycopg2://"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self._url.replace("/postgres?", f"/{name}?").replace("postgresql://", "postgresql+psycopg2://")

    def environment(self, database_url: str, chains_file: Path) -> dict[str, str]:
        """Return the environment of a listener's process."""
        return {
            **os.environ,
            "ENV": "test",
            "DATABASE_URL": database_url.replace("+psycopg2", ""),
            "REDIS_URL": "redis://127.0.0.1:9",  # nobody asks it: messages have no part in what is measured
            "CHAINS_FILE": str(chains_file),
            "LOG_LEVEL": "ERROR",
            # As worker.sh has them.
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_MMAP_THRESHOLD_": "131072",
            "MALLOC_TRIM_THRESHOLD_": "131072",
        }

    def postgres_cpu_s(self) -> float:
        """Return the seconds of CPU that Postgres has used."""
        return cpu_s(self._postgres_pid)


@contextmanager
def running_world() -> Iterator[World]:
    """Run Postgres and the node until the block ends."""
    with tempfile.TemporaryDirectory(prefix="ctrip-bench-scan-") as name, running_node() as node:
        folder = Path(name)
        program, url = embedded_postgres(folder / "postgres")
        with running(program, folder) as postgres:
            yield World(folder, url, node, postgres.pid)


def run(module: str, *arguments: object, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a module in a process of its own and return the JSON that it prints last."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    if ran.returncode != 0:
        raise SystemExit(f"{' '.join(command[2:])} failed:\n{ran.stdout[-4000:]}{ran.stderr[-4000:]}")
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return told


def chain_row(name: str, chain_id: int, url: str, *, poll_s: float) -> dict[str, Any]:
    """Return a chain as chains.yaml has it, with the three tokens that the node knows."""
    tokens = [("USDT", USDT, 6), ("USDC", USDC, 6), ("DAI", DAI, 18)]
    return {
        "name": name,
        "chain_id": chain_id,
        "rpc_urls": [url],
        "native": {"symbol": "ETH", "decimals": 18},
        "confirmations": CONFIRMATIONS,
        "poll_seconds": poll_s,
        "treasury": "0x" + "99" * 20,
        "sweep": {"max_fee_gwei": 200},
        "tokens": [
            {"symbol": symbol, "address": checksum_address(bytes.fromhex(address[2:])), "decimals": decimals}
            for symbol, address, decimals in tokens
        ],
    }


def start_chains(engine: sa.Engine, chains: Sequence[SyntheticChain]) -> None:
    """Make a listener's loop for each chain, which has read the first block and nothing after it."""
    with Sessions(engine).begin() as session:
        for chain in chains:
            loops.ensure(session, kind=LoopKind.LISTENER, chain_id=chain.chain_id, every=timedelta(seconds=1))
            cursors.start(session, chain.chain_id, _header(chain, FIRST_BLOCK))


def _header(chain: SyntheticChain, number: int) -> Header:
    time = datetime.fromtimestamp(time_of(number), UTC)
    return Header(number, chain.block_hash(number), chain.block_hash(number - 1), time)
