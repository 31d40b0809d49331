"""Idempotency keys: `creating` stores the answer with what it tells of, so a crash cannot part them."""

import hashlib
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.batches import batch
from ctrip.database.models import idempotency_keys as keys
from ctrip.domain.idempotency import KEPT_FOR, Answer, Once
from ctrip.errors import IdempotencyMismatch


def lock_number(merchant_id: str, once: Once) -> int:
    """Return the number of the advisory lock that whoever stores the answer of a key holds until the commit."""
    name = "\n".join((merchant_id, once.route, once.key)).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True)


def find(session: Connection, merchant_id: str, once: Once, *, now: datetime) -> Answer | None:
    """Return the answer that this key got before; None where it got none, or long ago.

    Raises IdempotencyMismatch where it came with another body.
    """
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


def forget(session: Connection, *, before: datetime, limit: int) -> int:
    """Delete up to `limit` keys that were stored before `before`. Returns how many."""
    query = sa.select(keys.c.merchant_id, keys.c.route, keys.c.key).where(keys.c.created_at < before)
    old = batch(query, of=keys, limit=limit)
    name = sa.tuple_(keys.c.merchant_id, keys.c.route, keys.c.key)
    return len(session.execute(sa.delete(keys).where(name.in_(sa.select(old))).returning(keys.c.key)).all())
