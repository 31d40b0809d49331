"""Merchants and keys: made, listed, revoked, and asked for with each request."""

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ctrip.context import Context
from ctrip.database import audit_log, clock, merchants
from ctrip.database.merchants import Credential
from ctrip.domain.ids import Prefix
from ctrip.domain.merchants import (
    OVERLAP,
    SECRET_BYTES,
    ApiKey,
    Identity,
    check_merchant,
    check_networks,
    check_overlap,
    check_scopes,
    is_same,
    read_key,
    write_key,
    write_webhook_secret,
)
from ctrip.domain.times import timestamp
from ctrip.errors import AddressRefused, Conflict, InvalidValue, MisconfiguredError, NotFound, Unauthorized
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
    ctx: Context,
    *,
    by: str,
    merchant_id: str | None,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    allowed_ips: Iterable[str] | None = None,
) -> tuple[str, str]:
    """Make a key: a merchant's, or without one an operator's. Returns its id and the key, which is shown this once.

    It works from `allowed_ips` alone, networks or addresses, where these are given. Raises InvalidValue.
    """
    allowed, networks = check_scopes(scopes, is_operator=merchant_id is None), check_networks(allowed_ips)
    with ctx.sessions.begin() as session:
        if merchant_id is not None and not merchants.exists(session, merchant_id):
            raise InvalidValue(f"there is no merchant {merchant_id[:60]!r}", param="merchant_id")
        key = ApiKey(
            id=ctx.new_id(Prefix.KEY),
            merchant_id=merchant_id,
            scopes=allowed,
            created_at=clock.read(session),
            expires_at=expires_at,
            allowed_ips=networks,
        )
        text = _store(session, key)
        detail = {"merchant_id": merchant_id, "scopes": sorted(key.scopes)} | _limits(key)
        audit_log.add(session, by=by, action="keys.create", target=key.id, detail=detail, new_id=ctx.new_id)
    log.info("key_created", key_id=key.id, merchant_id=merchant_id, scopes=sorted(key.scopes))
    return key.id, text


def rotate_key(
    ctx: Context,
    key_id: str,
    *,
    by: str,
    expires_at: datetime | None = None,
    allowed_ips: Iterable[str] | None = None,
    overlap: timedelta = OVERLAP,
) -> tuple[str, str]:
    """Make a key that takes the place of another one, which works for `overlap` more. Returns its id and the key.

    It may do the same, from the same addresses unless `allowed_ips` says otherwise, and lives as long as the other one
    was made for, unless `expires_at` does. A key has one live successor at a time: where the one that took its place
    was revoked or has expired, it may be rotated again, and ends no later than it does already. Raises NotFound,
    InvalidValue, and Conflict where the key has ended, or has such a successor.
    """
    networks = check_networks(allowed_ips)
    check_overlap(overlap)
    with ctx.sessions.begin() as session:
        old = merchants.lock_key(session, key_id)
        if old is None:
            raise NotFound(f"there is no key {key_id[:60]!r}")
        if not old.is_live:
            raise Conflict("the key has ended: there is nothing to overlap with; create a key")
        line = [old, *merchants.successors(session, old.id)]
        live = [each.id for each in line[1:] if each.is_live]
        if live:
            raise Conflict(f"key {live[-1]} has taken its place already; rotate that one")
        now = clock.read(session)
        # The end of a key that was rotated is that of the overlap; what it was made for, the last one still tells.
        lifetime = line[-1].lifetime
        ends_at = now + lifetime if expires_at is None and lifetime is not None else expires_at
        key = ApiKey(
            id=ctx.new_id(Prefix.KEY),
            merchant_id=old.merchant_id,
            scopes=old.scopes,
            created_at=now,
            expires_at=ends_at,
            allowed_ips=networks or old.allowed_ips,
        )
        text = _store(session, key)
        former_ends_at = merchants.replace_key(session, old.id, by=key.id, ends_at=now + overlap)
        detail = {"replaced_by": key.id, "former_expires_at": timestamp(former_ends_at)} | _limits(key)
        audit_log.add(session, by=by, action="keys.rotate", target=old.id, detail=detail, new_id=ctx.new_id)
    ctx.recent.clear()
    log.info("key_rotated", key_id=old.id, replaced_by=key.id, merchant_id=old.merchant_id)
    return key.id, text


def list_keys(
    ctx: Context, *, merchant_id: str | None = None, limit: int = 100, after: str | None = None
) -> list[ApiKey]:
    """Return keys, revoked ones included, newest first, those older than the id `after` where one is given."""
    with ctx.sessions.begin() as session:
        return merchants.keys(session, merchant_id=merchant_id, limit=limit, after=after)


def revoke_key(ctx: Context, key_id: str, *, by: str) -> ApiKey:
    """End a key: at once here, within a second in other processes. Again does nothing. Raises NotFound."""
    with ctx.sessions.begin() as session:
        if merchants.revoke_key(session, key_id):
            audit_log.add(session, by=by, action="keys.revoke", target=key_id, detail={}, new_id=ctx.new_id)
            log.info("key_revoked", key_id=key_id, by=by)
        key = merchants.find_key(session, key_id)
    ctx.recent.clear()
    if key is None:
        raise NotFound(f"there is no key {key_id[:60]!r}")
    return key


def authenticate(ctx: Context, key: str, *, address: str | None) -> Identity:
    """Return whose key this is. Raises Unauthorized, and AddressRefused where it may not be used from `address`.

    Only who knows the secret learns that a key was revoked or has expired; to others it is as unknown as any. What was
    read of it is believed for a second. That it was used is written down at most once in five minutes.
    """
    public_id, presented = read_key(key) or ("", bytes(32))

    def read() -> Credential | None:
        with ctx.sessions.at_once() as session:
            return merchants.find_credential(session, public_id)

    found = ctx.recent.get(("credential", public_id), read)
    if not is_same(presented, None if found is None else found.secret_hash) or found is None:
        raise Unauthorized("the API key is unknown")
    if found.key.revoked_at is not None:
        raise Unauthorized(f"the API key {found.key.id} was revoked")
    if found.key.is_expired:
        raise Unauthorized(f"the API key {found.key.id} has expired")
    if not found.key.is_allowed_from(address):
        # The secret is known where it should not be: nothing else tells of a stolen key.
        log.warning("key_address_refused", key_id=found.key.id, address=address)
        raise AddressRefused(f"the API key {found.key.id} may not be used from {address}")
    if found.is_unused_lately:
        with ctx.sessions.at_once() as session:
            merchants.note_use(session, found.key.id)
        ctx.recent.forget(("credential", public_id))
    return Identity(key_id=found.key.id, merchant_id=found.key.merchant_id, scopes=found.key.scopes)


def _store(session: Connection, key: ApiKey) -> str:
    """Store a new key, of its secret the hash alone. Returns its text. Raises InvalidValue for one that has ended."""
    if key.expires_at is not None and key.expires_at <= key.created_at:
        raise InvalidValue("expires_at is in the past", param="expires_at")
    text = write_key(key.id, secrets.token_bytes(SECRET_BYTES))
    public_id, secret_hash = read_key(text) or ("", b"")
    merchants.add_key(session, key, public_id=public_id, secret_hash=secret_hash)
    return text


def _limits(key: ApiKey) -> dict[str, object]:
    """Return how far a key reaches, for the audit log."""
    return {"allowed_ips": key.allowed_ips, "expires_at": key.expires_at and timestamp(key.expires_at)}
