"""Object ids: a prefix that names the kind and a ULID body (https://github.com/ulid/spec)."""

from enum import StrEnum

DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32."""
_PAIRS = [first + second for first in DIGITS for second in DIGITS]
RANDOM_BYTES = 10


class Prefix(StrEnum):
    """The kinds of object that have an id of their own."""

    PAYMENT = "pay"
    TRANSFER = "trf"
    EVENT = "evt"
    ENDPOINT = "whe"
    DELIVERY = "whd"
    EMAIL = "eml"
    JOB = "job"
    SWEEP = "swp"
    MERCHANT = "mer"
    KEY = "key"
    DEAD_LETTER = "dlt"
    AUDIT = "aud"
    REQUEST = "req"


def make_id(prefix: Prefix, *, now_ms: int, random: bytes) -> str:
    """Return `prefix_` and 26 characters that sort by `now_ms` and carry 80 random bits.

    `random` is exactly RANDOM_BYTES fresh bytes from a cryptographic source: ids must not be guessable.
    """
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"an id needs {RANDOM_BYTES} random bytes, got {len(random)}")
    number = (now_ms << 80) | int.from_bytes(random)
    body = "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])
    return f"{prefix}_{body}"
