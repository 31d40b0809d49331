"""Idempotency: a request that is sent again with the same key gets the first answer, and makes nothing anew."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

KEPT_FOR = timedelta(hours=72)


@dataclass(frozen=True)
class Once:
    """What a client wants to happen once: its key, on a route, with this body."""

    route: str
    key: str
    body_hash: bytes


@dataclass(frozen=True)
class Answer:
    """An answer as a client gets it. `body` is JSON text; `is_replay` is True where it was given before."""

    status: int
    body: str
    is_replay: bool = False


def hash_body(body: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of a JSON object; the order of its keys and its white space do not matter."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).digest()
