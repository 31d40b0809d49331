"""All that programs were told of the payments that they asked for, held against the rows."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg2

from tests.chaos.askers import MADE, Answer, Ask, Outcome
from tests.stack import RunningStack

_ROWS = """
SELECT p.order_id, p.id, encode(p.address, 'hex'), p.amount, k.response, count(DISTINCT e.id), count(DISTINCT d.id)
FROM payments AS p
LEFT JOIN idempotency_keys AS k ON k.merchant_id = p.merchant_id AND k.key = p.order_id
LEFT JOIN events AS e ON e.payment_id = p.id AND e.type = 'payment.created'
LEFT JOIN webhook_deliveries AS d ON d.event_id = e.id AND d.url = p.webhook_url
WHERE p.order_id LIKE %s || '%%' GROUP BY p.id, k.response
"""
_TWICE = "SELECT encode(address, 'hex') FROM payments GROUP BY address HAVING count(*) > 1"
_DECIMALS = 18


class _Row(NamedTuple):
    key: str
    payment_id: str
    address: str
    amount: Decimal
    kept: str | None
    events: int
    deliveries: int


@dataclass(frozen=True)
class _Told:
    """What the programs were told of one key."""

    made: list[tuple[Ask, Answer]]
    refused: list[Ask]


class Ledger:
    """Every answer to every create of a story, whose keys all begin with `name`. Threads may share it."""

    def __init__(self, stack: RunningStack, name: str) -> None:
        self.name = name
        self._stack = stack
        self._seen: list[tuple[Ask, Answer]] = []
        self.outcomes: Counter[Outcome] = Counter()

    def note(self, ask: Ask, told: Iterable[Answer]) -> None:
        self._seen += [(ask, answer) for answer in told]

    def check(self) -> None:
        """Compare it with the rows, and have everything audited."""
        self.outcomes = Counter(answer.outcome for _, answer in self._seen)
        print(f"{self.name}: {dict(self.outcomes)}")  # noqa: T201
        wrong = list(self._wrong())
        assert not wrong, "\n".join(wrong[:40])
        audited = self._stack.ctrip("audit")
        assert audited.returncode == 0, audited.stdout + audited.stderr

    def _wrong(self) -> Iterator[str]:
        rows: defaultdict[str, list[_Row]] = defaultdict(list)
        for row in self._ask(_ROWS, self.name):
            rows[row[0]].append(_Row(*row))
        for key, told in self._told().items():
            if len(rows[key]) != 1:
                yield f"{key} made {[row.payment_id for row in rows[key]]}"
                continue
            (row,) = rows[key]
            yield from _wrong_of(row, told)
        for key in rows.keys() - self._told().keys():
            yield f"{key} was asked for by nobody"
        for (address,) in self._ask(_TWICE):
            yield f"{address} belongs to two payments"

    def _told(self) -> dict[str, _Told]:
        by_key: defaultdict[str, _Told] = defaultdict(lambda: _Told([], []))
        for ask, answer in self._seen:
            of = by_key[ask.key]
            if answer.outcome in MADE:
                of.made.append((ask, answer))
            elif answer.outcome is Outcome.OTHER_BODY:
                of.refused.append(ask)
        return dict(by_key)

    def _ask(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        return ask_database(self._stack, query, *values)


def ask_database(stack: RunningStack, query: str, *values: str) -> list[tuple[Any, ...]]:
    """Ask the stack's database itself."""
    with closing(psycopg2.connect(stack["database_url"])) as database, database.cursor() as cursor:
        cursor.execute(query, values or None)
        return cursor.fetchall()


def _wrong_of(row: _Row, told: _Told) -> Iterator[str]:
    """What of a key is not as its programs were told."""
    bodies = {answer.body for _, answer in told.made}
    if bodies != {(row.kept or "").encode()}:
        yield f"{row.key} has the answer {row.kept}, and told were {bodies}"
        return
    shown = json.loads(row.kept or "")
    if (shown["id"], shown["address"].lower(), shown["order_id"]) != (row.payment_id, f"0x{row.address}", row.key):
        yield f"{row.key} is told to be {shown}, and is {row}"
    if int(shown["amount_atomic"]) != row.amount:
        yield f"{row.key} is told to be of {shown['amount_atomic']}, and is of {row.amount}"
    if {_atomic(ask) for ask, _ in told.made} != {row.amount}:
        yield f"{row.key} was made for another body than that of {row.payment_id}"
    if row.amount in map(_atomic, told.refused):
        yield f"{row.key} was refused to its own body"
    if sum(answer.outcome is Outcome.CREATED for _, answer in told.made) > 1:
        yield f"{row.key} was told to be made twice"
    if (row.events, row.deliveries) != (1, 1):
        yield f"{row.key} has {row.events} events and {row.deliveries} deliveries"


def _atomic(ask: Ask) -> Decimal:
    return Decimal(ask.amount).scaleb(_DECIMALS)
