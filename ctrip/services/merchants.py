"""Merchants and keys: made, listed, revoked, and asked for with each request."""

import secrets
from collections.abc import Iterable
from datetime import datetime

from ctrip.context import Context
from ctrip.database import audit_log, merchants
from ctrip.domain.ids import Prefix
from ctrip.domain.merchants import (
    SECRET_BYTES,
    ApiKey,
    Identity,
    check_merchant,
    check_scopes,
    is_same,
    read_key,
    write_key,
    write_webhook_secret,
)
from ctrip.errors import InvalidValue, MisconfiguredError, NotFound, Unauthorized
from ctrip.log import get_logger

log = get_logger()


def create_merchant(
    ctx: Context, *, by: str, name: str, email: str | None = None, tolerance_bps: int = 0
) -> tuple[str, str]:
    """Make a merchant. Returns its id and its webhook secret, which is shown this once and stored encrypted.

    Raises InvalidValue, and MisconfiguredError in a process without SECRETS_KEY.
    """
    check_merchant(name=name, email=email, tolerance_bps=tolerance_bps)
    if ctx.box is None:
        raise MisconfiguredError(
            "SECRETS_KEY: is missing; it is the key that the servers encrypt webhook secrets with (`ctrip secrets key`)"
        )
    merchant_id = ctx.new_id(Prefix.MERCHANT)
    secret = write_webhook_secret(secrets.token_bytes(SECRET_BYTES))
    with ctx.sessions.begin() as session:
        merchants.add(
            session,
            merchant_id,
            name=name,
            email=email,
            tolerance_bps=tolerance_bps,
            webhook_secret=ctx.box.encrypt(secret.encode()),
        )
        detail: dict[str, object] = {"name": name}
        audit_log.add(session, by=by, action="merchants.create", target=merchant_id, detail=detail, new_id=ctx.new_id)
    log.info("merchant_created", merchant_id=merchant_id)
    return merchant_id, secret


def create_key(
    ctx: Context, *, by: str, merchant_id: str | None, scopes: Iterable[str], expires_at: datetime | None = None
) -> tuple[str, str]:
    """Make a key: a merchant's, or without one an operator's. Returns its id and the key, which is shown this once.

    Raises InvalidValue.
    """
    now = ctx.now()
    if expires_at is not None and expires_at <= now:
        raise InvalidValue("expires_at is in the past", param="expires_at")
    key = ApiKey(
        id=ctx.new_id(Prefix.KEY),
        merchant_id=merchant_id,
        scopes=check_scopes(scopes, is_operator=merchant_id is None),
        created_at=now,
        expires_at=expires_at,
    )
    text = write_key(key.id, secrets.token_bytes(SECRET_BYTES))
    public_id, secret_hash = read_key(text) or ("", b"")
    with ctx.sessions.begin() as session:
        if merchant_id is not None and not merchants.exists(session, merchant_id):
            raise InvalidValue(f"there is no merchant {merchant_id[:60]!r}", param="merchant_id")
        merchants.add_key(session, key, public_id=public_id, secret_hash=secret_hash)
        detail = {"merchant_id": merchant_id, "scopes": sorted(key.scopes)}
        audit_log.add(session, by=by, action="keys.create", target=key.id, detail=detail, new_id=ctx.new_id)
    log.info("key_created", key_id=key.id, merchant_id=merchant_id, scopes=sorted(key.scopes))
    return key.id, text


def list_keys(
    ctx: Context, *, merchant_id: str | None = None, limit: int = 100, after: str | None = None
) -> list[ApiKey]:
    """Return keys, revoked ones included, newest first, those older than the id `after` where one is given."""
    with ctx.sessions.begin() as session:
        return merchants.keys(session, merchant_id=merchant_id, limit=limit, after=after)


def revoke_key(ctx: Context, key_id: str, *, by: str) -> ApiKey:
    """End a key from the next request on; again does nothing. Raises NotFound."""
    with ctx.sessions.begin() as session:
        if merchants.revoke_key(session, key_id):
            audit_log.add(session, by=by, action="keys.revoke", target=key_id, detail={}, new_id=ctx.new_id)
            log.info("key_revoked", key_id=key_id, by=by)
        key = merchants.find_key(session, key_id)
    if key is None:
        raise NotFound(f"there is no key {key_id[:60]!r}")
    return key


def authenticate(ctx: Context, key: str) -> Identity:
    """Return whose key this is. Raises Unauthorized.

    Only who knows the secret learns that a key was revoked or has expired; to others it is as unknown as any. That it
    was used is written down at most once in five minutes.
    """
    public_id, presented = read_key(key) or ("", bytes(32))
    with ctx.sessions.begin() as session:
        found = merchants.find_credential(session, public_id)
        if not is_same(presented, None if found is None else found.secret_hash) or found is None:
            raise Unauthorized("the API key is unknown")
        if found.key.revoked_at is not None:
            raise Unauthorized(f"the API key {found.key.id} was revoked")
        if found.is_expired:
            raise Unauthorized(f"the API key {found.key.id} has expired")
        if found.is_unused_lately:
            merchants.note_use(session, found.key.id)
    return Identity(key_id=found.key.id, merchant_id=found.key.merchant_id, scopes=found.key.scopes)
