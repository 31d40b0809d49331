"""Lists as they are after years, and what a page of them costs Postgres by its own count."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from tests.factories import CHAIN_ID

BIG, MIDDLING, SMALL, NEW = (f"mer_01{name:0>24}" for name in ("B16", "D1D", "5MA11", "NEW"))
ENDPOINTS = {merchant: f"whe_{merchant.removeprefix('mer_')}" for merchant in (BIG, MIDDLING, SMALL)}
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
"""A payment is made each second from then on."""

# Nine in ten are one merchant's, and nearly all before were another's, who has left since. Nobody has a payment that is
# `detected`, and none on base is `expired`; of the big one the three oldest alone are canceled, and those on polygon.
_PAYMENTS = """
INSERT INTO payments (id, merchant_id, chain_id, chain, token, symbol, decimals, amount, tolerance_bps, required,
    finality, address, version, status, received, confirmed, amount_status, settlement, order_id, metadata, created_at,
    expires_at)
SELECT 'pay_01' || lpad(upper(to_hex(n)), 24, '0'), merchant, :chain_id, chain, decode(repeat('70', 20), 'hex'), 'USDC',
    6, 1000, 0, 3, 'confirmations', substring(sha256(int8send(n)) FOR 20), 1,
    CASE WHEN n <= 3 THEN 'canceled' WHEN n % 50 = 7 THEN 'pending' WHEN n % 4 = 3 AND chain <> 'base' THEN 'expired'
         WHEN n % 9 = 4 THEN 'confirmed' ELSE 'settled' END,
    0, 0, 'none', 'none',
    CASE WHEN n % 3 = 0 THEN NULL WHEN n % 100 = 1 THEN 'donation' ELSE 'order-' || n END,
    '{"plan": "pro"}', at, at + interval '30 minutes'
FROM (SELECT n, CAST(:first AS timestamptz) + n * interval '1 second' AS at,
          CASE WHEN n <= 3 THEN :big WHEN n < :payments / 10 THEN :middling
               WHEN n % 1000 BETWEEN 20 AND 28 THEN :small WHEN n % 1000 = 30 THEN :new ELSE :big END AS merchant,
          CASE WHEN n <= 3 THEN 'polygon' WHEN n % 5 = 0 THEN 'base' ELSE 'anvil' END AS chain
      FROM generate_series(1, :payments) AS n) AS numbered
"""
_EVENTS = """
INSERT INTO events (id, merchant_id, payment_id, version, type, body, created_at)
SELECT 'evt' || substr(id, 4), merchant_id, id, 1, 'payment.created', '{"payment": {}, "previous_status": null}',
    created_at
FROM payments ORDER BY id
"""
# Two of the oldest are dead, of one more our own code failed; the rest was delivered.
_DELIVERIES = """
INSERT INTO webhook_deliveries (id, event_id, merchant_id, payment_id, endpoint_id, url, origin, status, attempts,
    last_status_code, dead_reason, created_at, delivered_at)
SELECT 'whd' || substr(id, 4), 'evt' || substr(id, 4), merchant_id, id, 'whe' || substr(merchant_id, 4),
    'https://shop.example/hooks', 'https://shop.example', status, 1, 200,
    CASE WHEN status = 'dead' THEN 'schedule' END, created_at, CASE WHEN status = 'delivered' THEN created_at END
FROM (SELECT id, merchant_id, created_at, CASE number WHEN 1 THEN 'dead' WHEN 2 THEN 'failed' WHEN 3 THEN 'dead'
          ELSE 'delivered' END AS status
      FROM (SELECT *, row_number() OVER (ORDER BY id) AS number FROM payments WHERE merchant_id <> :new) AS numbered
     ) AS owed ORDER BY id
"""
_ATTEMPTS = """
INSERT INTO webhook_attempts (delivery_id, number, at, status_code, duration_ms, response)
SELECT id, 1, created_at, 200, 40, 'ok' FROM webhook_deliveries
"""
_OTHERS = (
    """INSERT INTO webhook_endpoints (id, merchant_id, url, origin, events, status, secret)
    SELECT 'whe' || substr(id, 4), id, 'https://shop.example/hooks', 'https://shop.example', '{*}', 'enabled', 'sealed'
    FROM merchants WHERE id <> :new""",
    """INSERT INTO api_keys (id, public_id, secret_hash, merchant_id, scopes)
    SELECT 'key_01' || lpad(upper(to_hex(n)), 24, '0'), n::text, 'hash',
        CASE WHEN n <= 3 THEN :small ELSE :big END, '{payments:read}' FROM generate_series(1, :payments / 10) AS n""",
    """INSERT INTO audit_log (id, by, action, target, detail)
    SELECT 'aud_01' || lpad(upper(to_hex(n)), 24, '0'), CASE WHEN n <= 3 THEN 'cli:somebody' ELSE 'scheduler' END,
        CASE WHEN n <= 5 THEN 'keys.revoke' WHEN n % 2 = 0 THEN 'dead_letters.forget' ELSE 'dead_letters.replay' END,
        NULL, '{}' FROM generate_series(1, :payments / 10) AS n""",
    """INSERT INTO jobs (id, kind, params, status, requested_by, ended_at, error)
    SELECT 'job_01' || lpad(upper(to_hex(n)), 24, '0'), CASE WHEN n <= 3 THEN 'backfill' ELSE 'scan-now' END, '{}',
        CASE WHEN n <= 5 THEN 'failed' ELSE 'done' END, 'key_1', now(), CASE WHEN n <= 5 THEN 'no' END
    FROM generate_series(1, :payments / 10) AS n""",
    """INSERT INTO dead_letters (id, queue, actor, message, message_id, reason, first_at, died_at, replayed_at)
    SELECT 'dlt_01' || lpad(upper(to_hex(n)), 24, '0'), CASE WHEN n <= 3 THEN 'email' ELSE 'webhook' END,
        CASE WHEN n <= 3 THEN 'send_email' ELSE 'send_webhook' END, '{}', n::text, 'retries', now(), now(),
        CASE WHEN n <= 6 THEN NULL ELSE now() END
    FROM generate_series(1, :payments / 10) AS n""",
)


def fill(engine: sa.Engine, *, payments: int) -> None:
    """Store so many payments, an event and a delivery of each, and of all else that is listed a tenth as many.

    Indexes are built when the rows are there, which takes a third of the time; statistics are up to date then.
    """
    values: dict[str, object] = {"payments": payments, "chain_id": CHAIN_ID, "first": FIRST}
    values |= {"big": BIG, "middling": MIDDLING, "small": SMALL, "new": NEW}
    with engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL session_replication_role = replica; SET LOCAL statement_timeout = 0"))
        connection.execute(sa.text("SET LOCAL maintenance_work_mem = '256MB'"))
        indexes = connection.execute(sa.text(_SECONDARY_INDEXES)).all()
        for name, _ in indexes:
            connection.execute(sa.text(f"DROP INDEX {name}"))
        for merchant in (BIG, MIDDLING, SMALL, NEW):
            stored = {"id": merchant}
            connection.execute(
                sa.text("INSERT INTO merchants (id, name, webhook_secret) VALUES (:id, 'A shop', 'sealed')"), stored
            )
        for statement in (_PAYMENTS, _EVENTS, _DELIVERIES, _ATTEMPTS, *_OTHERS):
            connection.execute(sa.text(statement), values)
        for _, definition in indexes:
            connection.execute(sa.text(definition))
        connection.execute(sa.text("ANALYZE"))


_SECONDARY_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
WHERE relnamespace = 'public'::regnamespace AND NOT indisprimary
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""


@dataclass(frozen=True)
class Reading:
    """What a page cost: blocks of Postgres's that were looked at, and rows, those included that were left out."""

    buffers: int
    rows: int


@contextmanager
def statements(engine: sa.Engine) -> Iterator[list[tuple[str, Any]]]:
    """Note each statement that is run meanwhile, with its parameters."""
    run: list[tuple[str, Any]] = []

    def note(*event: Any) -> None:
        run.append((event[2], event[3]))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield run
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def cost(engine: sa.Engine, run: Sequence[tuple[str, Any]]) -> Reading:
    """Run the queries among statements again and add up what they cost."""
    read = Reading(0, 0)
    with engine.connect() as connection:
        for statement, parameters in run:
            if not statement.lstrip().startswith(("SELECT", "WITH")):
                continue
            explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            told = explained.scalar_one()
            plan = (json.loads(told) if isinstance(told, str) else told)[0]["Plan"]
            buffers = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            read = Reading(read.buffers + buffers, read.rows + sum(_rows(plan)))
    return read


def _rows(plan: Mapping[str, Any]) -> Iterator[int]:
    """Yield how many rows each scan of a table looked at."""
    if "Relation Name" in plan:
        seen = sum(plan.get(name, 0) for name in ("Actual Rows", "Rows Removed by Filter", *_RECHECKED))
        yield round(seen * plan["Actual Loops"])
    for below in plan.get("Plans", ()):
        yield from _rows(below)


_RECHECKED = ("Rows Removed by Index Recheck",)
