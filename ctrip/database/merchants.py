"""Merchants and API keys."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import pages
from ctrip.database.models import api_keys, merchants
from ctrip.domain.merchants import ApiKey, Scope

MOST_SUCCESSORS = 1_000
_of = api_keys.c
_IS_EXPIRED = sa.func.coalesce(_of.expires_at <= sa.func.now(), sa.false()).label("is_expired")


@dataclass(frozen=True)
class Credential:
    """A key as it is looked up. Whether it was not used for five minutes, the database's clock says."""

    key: ApiKey
    secret_hash: bytes
    is_unused_lately: bool


def add(
    session: Connection, merchant_id: str, *, name: str, email: str | None, tolerance_bps: int, webhook_secret: bytes
) -> None:
    """Store a merchant. `webhook_secret` is encrypted."""
    session.execute(
        sa.insert(merchants).values(
            id=merchant_id, name=name, email=email, tolerance_bps=tolerance_bps, webhook_secret=webhook_secret
        )
    )


def exists(session: Connection, merchant_id: str) -> bool:
    """True where there is such a merchant."""
    return session.scalar(sa.select(merchants.c.id).where(merchants.c.id == merchant_id)) is not None


def tolerance_bps(session: Connection, merchant_id: str) -> int:
    """Return by how many basis points this merchant's payments may fall short."""
    found: int = session.execute(sa.select(merchants.c.tolerance_bps).where(merchants.c.id == merchant_id)).scalar_one()
    return found


def add_key(session: Connection, key: ApiKey, *, public_id: str, secret_hash: bytes) -> None:
    """Store a key: of its secret, the hash alone."""
    session.execute(
        sa.insert(api_keys).values(
            id=key.id,
            public_id=public_id,
            secret_hash=secret_hash,
            merchant_id=key.merchant_id,
            scopes=sorted(key.scopes),
            allowed_ips=None if key.allowed_ips is None else list(key.allowed_ips),
            expires_at=key.expires_at,
            created_at=key.created_at,
        )
    )


def find_credential(session: Connection, public_id: str) -> Credential | None:
    """Look a key up by the part of it that is no secret."""
    five_minutes_ago = sa.func.now() - sa.text("interval '5 minutes'")
    is_unused = sa.func.coalesce(_of.last_used_at < five_minutes_ago, sa.true()).label("is_unused")
    query = sa.select(api_keys, _IS_EXPIRED, is_unused).where(_of.public_id == public_id)
    row = session.execute(query).one_or_none()
    return None if row is None else Credential(_key(row), row.secret_hash, row.is_unused)


def note_use(session: Connection, key_id: str) -> None:
    """Write down that a key was used just now."""
    session.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=sa.func.now()))


def keys(session: Connection, *, merchant_id: str | None, limit: int, after: str | None) -> list[ApiKey]:
    """Return keys, newest first, one merchant's where one is given, those after the key `after` likewise."""
    wanted = [] if merchant_id is None else [_of.merchant_id == merchant_id]
    if after is not None:
        wanted.append(pages.after(session, api_keys, after))
    query = pages.newest(api_keys, [wanted], limit=limit).add_columns(_IS_EXPIRED)
    return [_key(row) for row in session.execute(query)]


def find_key(session: Connection, key_id: str) -> ApiKey | None:
    """Return one key."""
    row = session.execute(sa.select(api_keys, _IS_EXPIRED).where(_of.id == key_id)).one_or_none()
    return None if row is None else _key(row)


def revoke_key(session: Connection, key_id: str) -> bool:
    """End a key. Returns False where there is no such key, or it was revoked before: the first time stays."""
    is_live = sa.and_(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    revoked = sa.update(api_keys).where(is_live).values(revoked_at=sa.func.now()).returning(api_keys.c.id)
    return session.scalar(revoked) is not None


def lock_key(session: Connection, key_id: str) -> ApiKey | None:
    """Return one key, locked for this transaction."""
    row = session.execute(sa.select(api_keys, _IS_EXPIRED).where(_of.id == key_id).with_for_update()).one_or_none()
    return None if row is None else _key(row)


def successors(session: Connection, key_id: str) -> list[ApiKey]:
    """Return the keys that took the place of one, each that of the one before it, in this order."""
    first = sa.select(_of.replaced_by.label("id"), sa.literal(1).label("place")).where(_of.id == key_id)
    line = first.cte("line", recursive=True)
    following = sa.select(_of.replaced_by, line.c.place + 1).join(line, _of.id == line.c.id)
    line = line.union_all(following.where(line.c.place < MOST_SUCCESSORS))
    query = sa.select(api_keys, _IS_EXPIRED).join(line, _of.id == line.c.id).order_by(line.c.place)
    return [_key(row) for row in session.execute(query)]


def replace_key(session: Connection, key_id: str, *, by: str, ends_at: datetime) -> datetime:
    """Let another key take the place of one, which ends at a moment, or sooner where it does anyway. Returns when."""
    ends = sa.func.least(_of.expires_at, ends_at)
    replaced = sa.update(api_keys).where(_of.id == key_id).values(expires_at=ends, replaced_by=by)
    moment: datetime = session.execute(replaced.returning(_of.expires_at)).scalar_one()
    return moment


def _key(row: sa.Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        merchant_id=row.merchant_id,
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        created_at=row.created_at,
        is_expired=row.is_expired,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        allowed_ips=None if row.allowed_ips is None else tuple(row.allowed_ips),
        replaced_by=row.replaced_by,
    )
