"""Where secrets could have got to in a running stack: every place that is kept or shown, looked through for each.

Two searches: for the very values that the test knows, in each form that they could be written in, and for whatever
looks like a secret (`ctrip.log.SECRET_PATTERN`, seed phrases), which finds those that nobody thought of.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

import psycopg2
import requests
from psycopg2 import sql
from redis import Redis

from ctrip.services.audit import find_secrets
from tests.stack import RunningStack

_OF_A_PROCESS = re.compile(r"\d\d:\d\d:\d\d \S+ +\|")
Texts = Iterable[tuple[str, str]]
"""A place and what it says."""


def told_secrets(stack: RunningStack) -> dict[str, str]:
    """The secrets that the stack made for itself, by name."""
    keys = json.loads((stack.folder / "keys.json").read_text())
    found = {name: keys[name] for name in ("mnemonic", "gas_key", "secrets_key", "xpub")}
    return found | {name: stack[name] for name in ("api_key", "admin_key", "webhook_secret")}


def everything(stack: RunningStack) -> Iterator[tuple[str, str]]:
    """What Redis and Postgres hold, the logs and metrics pages of all processes, and their command lines."""
    yield from in_redis(stack["redis_url"])
    yield from in_postgres(stack["database_url"])
    for number, line in enumerate(stack.log.read_text(errors="replace").splitlines(), start=1):
        # Lines without a process's name are the local stack's own words to whoever started it: the demo's key, too.
        if _OF_A_PROCESS.match(line):
            yield f"log line {number}", line
    for name, url in stack["metrics"].items():
        yield f"metrics of {name}", requests.get(url, timeout=5).text
    for pid, command in stack.family().items():
        if "anvil" not in command:  # the dev chain is told the phrase of its own accounts, which is in every textbook
            yield f"command line of {pid}", command


def in_redis(url: str) -> Iterator[tuple[str, str]]:
    """Every key with its value, whatever its type."""
    with Redis.from_url(url) as client:
        for key in client.scan_iter(count=1_000):
            value = _value(client, key)
            yield f"redis {key!r}", f"{_text(key)} {_text(value)}"


def in_postgres(url: str) -> Iterator[tuple[str, str]]:
    """Every row of every table as JSON; bytes are hex in it."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        for (table,) in cursor.fetchall():
            cursor.execute(sql.SQL("SELECT row_to_json(t)::text FROM {} t").format(sql.Identifier(table)))
            for (row,) in cursor.fetchall():
                yield f"row of {table}", row


def leaks(texts: Texts, secrets: Mapping[str, str]) -> list[str]:
    """Name each place that holds one of these secrets or what looks like one, without repeating it."""
    forms = {form: name for name, secret in secrets.items() for form in _forms(secret)}
    found = []
    for place, text in texts:
        found += [f"{place} holds {name}" for form, name in forms.items() if form in text]
        found += [violation.sentence for violation in find_secrets([(place, text)])]
    return found


def _forms(secret: str) -> set[str]:
    """How a secret could be written: as it is, without what announces it, in base64 and in hex."""
    bare = secret.removeprefix("0x").removeprefix("whsec_")
    raw = secret.encode()
    return {secret, bare, bare.upper(), raw.hex(), base64.b64encode(raw).decode()}


def _value(client: Redis, key: Any) -> Any:
    match client.type(key):
        case b"string":
            return client.get(key)
        case b"list":
            return client.lrange(key, 0, -1)
        case b"hash":
            return client.hgetall(key)
        case b"set":
            return client.smembers(key)
        case b"zset":
            return client.zrange(key, 0, -1)
        case b"none":
            return b""  # it has expired meanwhile
        case other:
            raise AssertionError(f"{key!r} is a {other!r}, which nobody looks through here")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return " ".join(f"{_text(key)} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | set):
        return " ".join(_text(inner) for inner in value)
    return str(value)
