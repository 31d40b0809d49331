"""Merchants' programs that ask for payments while processes die, and what they are answered."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPConnection, HTTPException, HTTPMessage
from random import Random
from typing import Any

from tests.waiting import wait_until

ANSWERED_WITHIN_S = 90
"""Longer than a process that died again and again is waited for until it is started anew."""
_CODES = {409: "idempotency_in_flight", 422: "idempotency_key_reused", 503: "unavailable"}


class Outcome(StrEnum):
    """All that a program may be told."""

    CREATED = "201"
    REPLAYED = "201, replayed"
    READ = "200"
    IN_FLIGHT = "409"
    OTHER_BODY = "422"
    UNAVAILABLE = "503"
    LOST = "no answer"


MADE = (Outcome.CREATED, Outcome.REPLAYED)


@dataclass(frozen=True)
class Ask:
    """A payment that is asked for under a key; its order has the key's name. `amount` is in coins, as text."""

    key: str
    amount: str
    hook: str


@dataclass(frozen=True)
class Answer:
    """What came back; `body` only where it was a payment."""

    outcome: Outcome
    body: bytes = b""


class Asker:
    """One program, with a connection that it keeps to each process of the API. For one thread.

    An answer that none may get fails the test. `on_sent` is called with an API's address when a create was sent there,
    before its answer is read.
    """

    def __init__(
        self, facts: Mapping[str, Any], *, dice: Random, on_sent: Callable[[str], None] = lambda _: None
    ) -> None:
        self._urls: list[str] = facts["apis"]
        self._chain: str = facts["chain"]
        self._headers = {"Authorization": f"Bearer {facts['api_key']}", "Content-Type": "application/json"}
        self._dice = dice
        self._on_sent = on_sent
        self._kept: dict[str, HTTPConnection] = {}

    def create(self, ask: Ask) -> Answer:
        """Ask once."""
        body = {"chain": self._chain, "amount": ask.amount, "order_id": ask.key, "webhook_url": ask.hook}
        return self._send("POST", "/api/v1/payments", json.dumps(body), {"Idempotency-Key": ask.key})

    def read(self, payment_id: str) -> Answer:
        """Look at a payment once."""
        return self._send("GET", f"/api/v1/payments/{payment_id}", None, {})

    def until_told(self, send: Callable[[], Answer]) -> list[Answer]:
        """Send something again and again until it is done or refused for good; return every answer."""
        told: list[Answer] = []

        def is_told() -> bool:
            told.append(send())
            return told[-1].outcome in (*MADE, Outcome.READ, Outcome.OTHER_BODY)

        wait_until(is_told, within_s=ANSWERED_WITHIN_S, every_s=0.05, what="an answer that stays")
        return told

    def close(self) -> None:
        for connection in self._kept.values():
            connection.close()

    def _send(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Answer:
        url = self._dice.choice(self._urls)
        connection = self._kept.get(url)
        if connection is None:
            connection = self._kept[url] = HTTPConnection(url.removeprefix("http://"), timeout=30)
        try:
            connection.request(method, path, body=body, headers=self._headers | dict(headers))
            if method == "POST":
                self._on_sent(url)
            response = connection.getresponse()
            return _answer(response.status, response.headers, response.read())
        except (OSError, HTTPException):
            with suppress(OSError):
                self._kept.pop(url).close()
            return Answer(Outcome.LOST)


def _answer(status: int, headers: HTTPMessage, body: bytes) -> Answer:
    if status == 200:
        return Answer(Outcome.READ, body)
    if status == 201:
        return Answer(Outcome.REPLAYED if headers.get("Idempotency-Replayed") == "true" else Outcome.CREATED, body)
    code = json.loads(body)["code"] if headers.get("Content-Type") == "application/problem+json" else None
    assert status in _CODES and _CODES[status] == code, f"{status}: {body!r}"
    assert status != 503 or int(headers["Retry-After"]) > 0
    return Answer(Outcome(str(status)))
