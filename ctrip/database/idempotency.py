"""Idempotency keys: the answer is stored in the transaction that made the object, so a crash cannot part them."""

import hashlib
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.batches import batch
from ctrip.database.models import idempotency_keys as keys
from ctrip.domain.idempotency import KEPT_FOR, Answer, Once
from ctrip.errors import IdempotencyInFlight, IdempotencyMismatch


def claim(session: Connection, merchant_id: str, once: Once, *, now: datetime) -> Answer | None:
    """Return the answer that this key got before; None where the key is free, and this transaction's alone.

    Raises IdempotencyInFlight while another transaction holds the key, IdempotencyMismatch where it came with another
    body. The hold ends with the transaction: a request that died leaves the key free.
    """
    name = "\n".join((merchant_id, once.route, once.key)).encode()
    number = int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True)
    if not session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(number))):
        raise IdempotencyInFlight("the first request with this Idempotency-Key is still running")
    # A second statement, because its snapshot must be younger than the lock: it sees what the last holder committed.
    row = session.execute(
        sa.select(keys.c.request_hash, keys.c.status, keys.c.response).where(
            keys.c.merchant_id == merchant_id,
            keys.c.route == once.route,
            keys.c.key == once.key,
            keys.c.created_at > now - KEPT_FOR,
        )
    ).one_or_none()
    if row is None:
        return None
    if row.request_hash != once.body_hash:
        raise IdempotencyMismatch("this Idempotency-Key was used with another body", param="Idempotency-Key")
    return Answer(status=row.status, body=row.response, is_replay=True)


def store(session: Connection, merchant_id: str, once: Once, *, answer: Answer, now: datetime) -> None:
    """Keep the answer of a claimed key; one that is out of date gives way."""
    values = {"request_hash": once.body_hash, "status": answer.status, "response": answer.body, "created_at": now}
    statement = pg.insert(keys).values(merchant_id=merchant_id, route=once.route, key=once.key, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["merchant_id", "route", "key"], set_=values))


def forget(session: Connection, *, before: datetime, limit: int) -> int:
    """Delete up to `limit` keys that were stored before `before`. Returns how many."""
    query = sa.select(keys.c.merchant_id, keys.c.route, keys.c.key).where(keys.c.created_at < before)
    old = batch(query, of=keys, limit=limit)
    name = sa.tuple_(keys.c.merchant_id, keys.c.route, keys.c.key)
    return len(session.execute(sa.delete(keys).where(name.in_(sa.select(old))).returning(keys.c.key)).all())
