"""Merchants and API keys."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.models import api_keys, merchants
from ctrip.domain.merchants import ApiKey, Scope


@dataclass(frozen=True)
class Credential:
    """A key as it is looked up. Whether it is expired or was not used for five minutes, the database's clock says."""

    key: ApiKey
    secret_hash: bytes
    is_expired: bool
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
    of = api_keys.c
    query = sa.select(
        api_keys,
        sa.func.coalesce(of.expires_at <= sa.func.now(), sa.false()).label("is_expired"),
        sa.func.coalesce(of.last_used_at < sa.func.now() - sa.text("interval '5 minutes'"), sa.true()).label(
            "is_unused"
        ),
    ).where(of.public_id == public_id)
    row = session.execute(query).one_or_none()
    return None if row is None else Credential(_key(row), row.secret_hash, row.is_expired, row.is_unused)


def note_use(session: Connection, key_id: str) -> None:
    """Write down that a key was used just now."""
    session.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=sa.func.now()))


def keys(session: Connection, *, merchant_id: str | None, limit: int, after: str | None) -> list[ApiKey]:
    """Return keys, newest first, one merchant's where one is given, those older than the id `after` likewise."""
    query = sa.select(api_keys)
    if merchant_id is not None:
        query = query.where(api_keys.c.merchant_id == merchant_id)
    if after is not None:
        query = query.where(api_keys.c.id < after)
    return [_key(row) for row in session.execute(query.order_by(api_keys.c.id.desc()).limit(limit))]


def find_key(session: Connection, key_id: str) -> ApiKey | None:
    """Return one key."""
    row = session.execute(sa.select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
    return None if row is None else _key(row)


def revoke_key(session: Connection, key_id: str) -> bool:
    """End a key. Returns False where there is no such key, or it was revoked before: the first time stays."""
    is_live = sa.and_(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    revoked = sa.update(api_keys).where(is_live).values(revoked_at=sa.func.now()).returning(api_keys.c.id)
    return session.scalar(revoked) is not None


def lock_key(session: Connection, key_id: str) -> ApiKey | None:
    """Return one key, locked for this transaction."""
    row = session.execute(sa.select(api_keys).where(api_keys.c.id == key_id).with_for_update()).one_or_none()
    return None if row is None else _key(row)


def replace_key(session: Connection, key_id: str, *, by: str, ends_at: datetime) -> None:
    """Let another key take the place of one, which ends at a moment, or sooner where it does anyway."""
    ends = sa.func.least(api_keys.c.expires_at, ends_at)
    session.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(expires_at=ends, replaced_by=by))


def _key(row: sa.Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        merchant_id=row.merchant_id,
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        allowed_ips=None if row.allowed_ips is None else tuple(row.allowed_ips),
        replaced_by=row.replaced_by,
    )
