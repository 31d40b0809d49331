"""Merchants, the keys by which their programs are known, and what a key may do."""

import hmac
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ctrip.domain.mailboxes import is_address
from ctrip.domain.money import BASIS_POINTS
from ctrip.domain.times import timestamp
from ctrip.errors import InvalidValue

SECRET_BYTES = 32
OVERLAP, LONGEST_OVERLAP = timedelta(hours=24), timedelta(days=7)
"""How long a key that was rotated goes on working beside the one that took its place, unless said otherwise."""
MOST_NETWORKS = 50
_KEY = re.compile(r"sk_([0-9A-Z]{26})_([A-Za-z0-9_-]{43})", re.ASCII)


class Scope(StrEnum):
    """What a key may do. `admin` is an operator's alone, and an operator's only one."""

    PAYMENTS_READ = "payments:read"
    PAYMENTS_WRITE = "payments:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    ADMIN = "admin"


MERCHANT_SCOPES = frozenset(Scope) - {Scope.ADMIN}
OPERATOR_SCOPES = frozenset({Scope.ADMIN})


@dataclass(frozen=True)
class Identity:
    """Who sent a request. An operator has no merchant."""

    key_id: str
    merchant_id: str | None
    scopes: frozenset[Scope]


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret, which is nowhere."""

    id: str
    merchant_id: str | None
    scopes: frozenset[Scope]
    created_at: datetime
    is_expired: bool = False
    """Whether it had expired when it was read, by the database's clock."""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    allowed_ips: tuple[str, ...] | None = None
    """Networks in CIDR notation that it may be used from; None is anywhere."""
    replaced_by: str | None = None
    """The key that took its place; both work until this one expires."""

    @property
    def is_live(self) -> bool:
        """True where it opens something."""
        return self.revoked_at is None and not self.is_expired

    @property
    def lifetime(self) -> timedelta | None:
        """For how long it was made; None is for ever. One that was rotated has another end."""
        return None if self.expires_at is None else self.expires_at - self.created_at

    def is_allowed_from(self, address: str | None) -> bool:
        """True where a request from this address may use it. One whose address nobody knows may not use a bound key."""
        if self.allowed_ips is None:
            return True
        try:
            peer = ip_address(address or "")
        except ValueError:
            return False
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in ip_network(network) for network in self.allowed_ips)


def write_key(key_id: str, secret: bytes) -> str:
    """Write a key as its owner gets it: `sk_`, the body of its id, and 256 random bits."""
    return f"sk_{key_id.partition('_')[2]}_{urlsafe_b64encode(secret).decode().rstrip('=')}"


def read_key(key: str) -> tuple[str, bytes] | None:
    """Split a key into its public id and the SHA-256 of its secret; None where it is no key.

    One round of a fast hash is enough: 256 random bits cannot be guessed at any speed.
    """
    match = _KEY.fullmatch(key)
    return None if match is None else (match[1], secret_hash(match[2]))


def secret_hash(secret: str) -> bytes:
    """Return what is stored of a key's secret part."""
    return sha256(secret.encode()).digest()


def is_same(presented: bytes, stored: bytes | None) -> bool:
    """Compare hashes in a time that does not tell how much of them agrees, nor whether there is a stored one."""
    return hmac.compare_digest(presented, stored or bytes(len(presented))) and stored is not None


def write_webhook_secret(secret: bytes) -> str:
    """Write a signing secret as Standard Webhooks 1.0 does."""
    return f"whsec_{b64encode(secret).decode()}"


def check_merchant(*, name: str, email: str | None, tolerance_bps: int) -> None:
    """Raise InvalidValue where a merchant cannot be so."""
    if not 1 <= len(name.strip()) <= 200 or not name.isprintable():
        raise InvalidValue("the name has 1 to 200 printable characters", param="name")
    if email is not None and not is_address(email):
        raise InvalidValue("that is no e-mail address", param="email")
    if not 0 <= tolerance_bps < BASIS_POINTS:
        raise InvalidValue(f"the tolerance is in basis points, 0 to {BASIS_POINTS - 1}", param="underpayment_tolerance")


def check_scopes(scopes: Iterable[str], *, is_operator: bool) -> frozenset[Scope]:
    """Return scopes that belong together. Raises InvalidValue."""
    allowed = OPERATOR_SCOPES if is_operator else MERCHANT_SCOPES
    wanted = frozenset(scopes)
    if not wanted or not wanted <= allowed:
        whose = "an operator's key (one without merchant_id)" if is_operator else "a merchant's key"
        raise InvalidValue(f"{whose} has scopes out of {', '.join(sorted(allowed))}", param="scopes")
    return frozenset(Scope(scope) for scope in wanted)


def check_overlap(overlap: timedelta) -> timedelta:
    """Return how long a rotated key goes on working; none at all is allowed. Raises InvalidValue."""
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise InvalidValue(f"the overlap is 0 to {LONGEST_OVERLAP.total_seconds():.0f} s", param="overlap_seconds")
    return overlap


def check_networks(allowed_ips: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the networks that a key may be used from, as they are written best. Raises InvalidValue."""
    if allowed_ips is None:
        return None
    networks = tuple(dict.fromkeys(str(_network(text)) for text in allowed_ips))
    if not 1 <= len(networks) <= MOST_NETWORKS:
        raise InvalidValue(f"allowed_ips has 1 to {MOST_NETWORKS} networks, or is null: anywhere", param="allowed_ips")
    return networks


def _network(text: str) -> IPv4Network | IPv6Network:
    meant = '; write an address or a network, such as "203.0.113.7" or "2001:db8::/32"'
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidValue(f"{text[:60]!r} is no network{meant}", param="allowed_ips") from error
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise InvalidValue(f"{text[:60]!r} is an IPv4 network inside of IPv6; write it as IPv4", param="allowed_ips")
    if not _is_exact(text):
        meant = f"; do you mean {network}?" if network.prefixlen else meant
        raise InvalidValue(f"{text[:60]!r} is no network{meant}", param="allowed_ips")
    return network


def _is_exact(text: str) -> bool:
    """False where bits are set behind the prefix: an address, with the size of its network."""
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def key_object(key: ApiKey) -> dict[str, object]:
    """Render a key as operators see it: without its secret."""
    return {
        "id": key.id,
        "object": "api_key",
        "merchant_id": key.merchant_id,
        "scopes": sorted(key.scopes),
        "allowed_ips": None if key.allowed_ips is None else list(key.allowed_ips),
        "created_at": timestamp(key.created_at),
        "expires_at": key.expires_at and timestamp(key.expires_at),
        "revoked_at": key.revoked_at and timestamp(key.revoked_at),
        "last_used_at": key.last_used_at and timestamp(key.last_used_at),
        "replaced_by": key.replaced_by,
    }
