"""How long the listener's transaction takes where many payments are open and one block pays thousands of them.

100,000 payments are open. A block with 5,000 transfers is stored by the functions that the scanner itself uses, and
three blocks later those are final: each time, every payment concerned is assessed, moved, and told of by an event, to
an endpoint of its merchant, and at the end by e-mail. Nothing of the node is in these numbers.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import sqlalchemy as sa
import yaml

from ctrip.blockchain.reading import BlocksRead
from ctrip.bootstrap import bootstrap
from ctrip.context import Context
from ctrip.database import cursors, loops, schema
from ctrip.database.engine import make_engine
from ctrip.domain.loops import LoopKind
from ctrip.domain.scanning import Header, Move
from ctrip.domain.transfers import Sighting
from ctrip.local.children import is_ready, spawn, stop
from ctrip.local.postgres import embedded_postgres
from ctrip.runs import Run, run_loop
from ctrip.services.scanning.storing import move_cursor, store_blocks
from ctrip.settings import Role
from tests.waiting import wait_until

OPEN_PAYMENTS = 100_000
HITS = 5_000
CONFIRMATIONS = 3

_CHAIN_ID = 31337
_TOKEN = b"\x70" * 20
_AMOUNT = 1000
_FIRST_BLOCK = 100
_START = datetime.now(UTC).replace(microsecond=0)
_MERCHANT = "mer_01STORING00000000000000000"
_SEED = (
    "INSERT INTO merchants (id, name, email, webhook_secret) VALUES (:merchant, 'Shop', 'shop@example.com', 'sealed')",
    """
    INSERT INTO webhook_endpoints (id, merchant_id, url, origin, events, status, secret)
    VALUES ('whe_01STORING00000000000000000', :merchant, 'https://shop.example/hook', 'https://shop.example:443',
            ARRAY['*'], 'enabled', 'sealed')
    """,
    """
    INSERT INTO payments (id, merchant_id, chain_id, chain, token, symbol, decimals, amount, tolerance_bps, required,
                          finality, address, version, status, received, confirmed, amount_status, settlement,
                          customer_email, metadata, created_at, expires_at)
    SELECT 'pay_' || lpad(n::text, 26, '0'), :merchant, :chain_id, 'anvil', :token, 'USDC', 6, :amount, 0,
           :confirmations, 'confirmations', decode(lpad(to_hex(n), 40, '0'), 'hex'), 1, 'pending', 0, 0, 'none', 'none',
           'buyer@example.com', '{}', now(), now() + interval '1 hour'
    FROM generate_series(1, :payments) AS n
    """,
    """
    INSERT INTO events (id, merchant_id, payment_id, version, type, body)
    SELECT 'evt_' || substr(id, 5), merchant_id, id, 1, 'payment.created', '{}' FROM payments
    """,
)


def main() -> None:
    """Print a table, and as the last line JSON."""
    found = measure()
    for name, seconds in found.items():
        print(f"{name.removesuffix('_s').replace('_', ' '):<48}{seconds:>8.2f} s")
    print(json.dumps(found))


def measure(*, payments: int = OPEN_PAYMENTS, hits: int = HITS) -> dict[str, float]:
    """Return the seconds that storing took: of the block with the transfers, and of the one that makes them final."""
    with _database(payments) as ctx:
        # What a process does once in its life, at the first payment, is no part of this.
        _timed(ctx, _blocks(_FIRST_BLOCK + 1, _FIRST_BLOCK + 1, hits=1))
        paid = _blocks(_FIRST_BLOCK + 2, _FIRST_BLOCK + 2, hits=hits, apart=payments // hits)
        empty = _blocks(_FIRST_BLOCK + 3, _FIRST_BLOCK + 1 + CONFIRMATIONS)
        return {"detected_s": _timed(ctx, paid), "confirmed_s": _timed(ctx, empty)}


def _timed(ctx: Context, blocks: BlocksRead) -> float:
    """Store blocks as one step of the listener; return the seconds from claim to commit."""

    def work(run: Run) -> timedelta:
        with ctx.sessions.begin() as session:
            cursor = cursors.find(session, _CHAIN_ID)
        assert cursor is not None
        base, tip = _header(cursor.read_block), blocks.headers[-1]
        with run.storing() as session:
            store_blocks(session, run, blocks)
            move_cursor(session, run, cursor, Move(base, tip, tip.number))
            run.release(session, again_in=timedelta(0))
        return timedelta(0)

    with ctx.sessions.begin() as session:
        # What another endpoint would have to bear out is no part of this.
        session.execute(sa.text("UPDATE transfers SET is_verified = true WHERE NOT is_verified"))
    started = time.perf_counter()
    tick = run_loop(ctx, LoopKind.LISTENER, _CHAIN_ID, work=work)
    elapsed = time.perf_counter() - started
    assert tick.again_in == timedelta(0), "the claim was won"
    return round(elapsed, 3)


def _blocks(first: int, last: int, *, hits: int = 0, apart: int = 1) -> BlocksRead:
    """Return blocks whose first pays `hits` payments, each `apart` from the next in the table."""
    headers = tuple(_header(number) for number in range(first, last + 1))
    return BlocksRead(headers, tuple(_sightings(headers[0], hits, apart=apart)), (), "node.example")


def _sightings(header: Header, hits: int, *, apart: int) -> Iterator[Sighting]:
    for n in range(1, hits + 1):
        yield Sighting(
            block_number=header.number,
            block_hash=header.hash,
            block_time=header.time,
            tx_hash=sha256(f"payment {n * apart}".encode()).digest(),
            log_index=n,
            token=_TOKEN,
            sender=b"\xaa" * 20,
            recipient=(n * apart).to_bytes(20),
            amount=_AMOUNT,
        )


def _header(number: int) -> Header:
    def block_hash(of: int) -> bytes:
        return sha256(f"block {of}".encode()).digest()

    return Header(number, block_hash(number), block_hash(number - 1), _START + timedelta(seconds=number - _FIRST_BLOCK))


@contextmanager
def _database(payments: int) -> Iterator[Context]:
    """Run an embedded Postgres with a migrated schema, one merchant and open payments, and a chain that was read."""
    with tempfile.TemporaryDirectory(prefix="ctrip-bench-") as name:
        folder = Path(name)
        program, url = embedded_postgres(folder, durable=False)
        with (folder / "postgres.log").open("ab") as output:
            child = spawn(program, output=output)
        try:
            wait_until(lambda: is_ready(program), within_s=30, what="Postgres is ready")
            _prepare(url.replace("postgresql://", "postgresql+psycopg2://"), payments)
            ctx = bootstrap(Role.LISTENER, _environment(folder, url))
            yield ctx
            ctx.sessions.engine.dispose()
        finally:
            stop(child, program)


def _prepare(url: str, payments: int) -> None:
    engine = make_engine(url, process="bench")
    schema.upgrade(engine)
    values = {
        "merchant": _MERCHANT,
        "chain_id": _CHAIN_ID,
        "token": _TOKEN,
        "amount": _AMOUNT,
        "confirmations": CONFIRMATIONS,
        "payments": payments,
    }
    with engine.begin() as session:
        for statement in _SEED:
            needed = {key: value for key, value in values.items() if f":{key}" in statement}
            session.execute(sa.text(statement), needed)
        loops.ensure(session, kind=LoopKind.LISTENER, chain_id=_CHAIN_ID, every=timedelta(0))
        cursors.start(session, _CHAIN_ID, _header(_FIRST_BLOCK))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))
    engine.dispose()


def _environment(folder: Path, url: str) -> dict[str, str]:
    chain = {
        "name": "anvil",
        "chain_id": _CHAIN_ID,
        "rpc_urls": ["http://127.0.0.1:1"],
        "native": {"symbol": "ETH", "decimals": 18},
        "confirmations": CONFIRMATIONS,
        "treasury": "0x" + "99" * 20,
        "sweep": {"max_fee_gwei": 200},
        "tokens": [{"symbol": "USDC", "address": "0x" + _TOKEN.hex(), "decimals": 6}],
    }
    path = folder / "chains.yaml"
    path.write_text(yaml.safe_dump({"chains": [chain]}))
    return {"ENV": "test", "DATABASE_URL": url, "REDIS_URL": "redis://127.0.0.1:1", "CHAINS_FILE": str(path)}


if __name__ == "__main__":
    main()
