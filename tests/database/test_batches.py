"""What a statement is given arrives as it was, and rows become objects by the names of their columns."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.batches import Given, is_among
from ctrip.database.columns import Uint256
from ctrip.database.engine import Sessions
from ctrip.database.rows import reader
from ctrip.domain.money import MAX_AMOUNT

TEXTS = ["", "NULL", " a ", '"', "\\", '\\"', "{a,b}", "a\nb\tc", "'; --", "%(x)s", "é😀\u2028", "\\x00"]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


GIVEN = [
    (sa.Text(), [*TEXTS, None, Colour.RED]),
    # Columns of one kind are written at once.
    (sa.Text(), TEXTS),
    (sa.Text(), ["", "plain", '","', "", "}"]),
    (sa.Text(), ['"']),
    (sa.Text(), ["\\"]),
    (sa.Text(), list(Colour)),
    (sa.Text(), [None, None]),
    (sa.LargeBinary(), [b"", b"\x00\xff", b'"\\']),
    (Uint256(), [0, MAX_AMOUNT]),
    (sa.BigInteger(), [-1, 2**63 - 1]),
    (sa.Boolean(), [True, False]),
    (sa.TIMESTAMP(timezone=True), [MOMENT, MOMENT.replace(microsecond=0)]),
    (sa.Text(collation="C"), ["pay_1", None]),
    (sa.LargeBinary(), [b"", b"\x00\xff", b'"\\', None]),
    (Uint256(), [0, MAX_AMOUNT, None]),
    (sa.BigInteger(), [-1, 2**63 - 1, None]),
    (sa.Boolean(), [True, False, None]),
    (sa.TIMESTAMP(timezone=True), [MOMENT, MOMENT.replace(microsecond=0), None]),
]


@pytest.mark.infra
@pytest.mark.parametrize(("kind", "values"), GIVEN, ids=lambda each: type(each).__name__)
def test_what_a_statement_is_given_arrives_as_it_was(sessions: Sessions, kind: Any, values: list[object]) -> None:
    given = Given("given", sa.column("place", sa.Integer), sa.column("value", kind))
    query = sa.select(given.c.value).order_by(given.c.place)
    with sessions.begin() as session:
        assert list(session.scalars(query, given.rows(enumerate(values)))) == values


@pytest.mark.infra
def test_a_document_that_a_statement_is_given_stays_as_it_is_written(sessions: Sessions) -> None:
    given, written = Given("given", sa.column("body", pg.JSON)), '{"b": "\\ud800 \\" \\\\",  "a": {}}'
    with sessions.begin() as session:
        assert session.scalar(sa.select(sa.cast(given.c.body, sa.Text)), given.rows([(written,)])) == written


@pytest.mark.infra
def test_a_column_is_among_thousands_of_values_or_none(sessions: Sessions) -> None:
    text = sa.literal('"\\', sa.Text)
    with sessions.begin() as session:
        assert session.scalar(sa.select(is_among(text, [*TEXTS, '"\\']))) is True
        assert session.scalar(sa.select(is_among(text, TEXTS))) is False
        assert session.scalar(sa.select(is_among(text, []))) is False


@dataclass(frozen=True)
class Inner:
    colour: Colour
    other: Colour | None


@dataclass(frozen=True)
class Outer:
    number: int
    inner: Inner
    last: Colour
    name: str | None = None


@pytest.mark.parametrize(
    "order", [("number", "colour", "other", "last", "name"), ("name", "more", "last", "other", "colour", "number")]
)
def test_a_row_becomes_an_object_in_whatever_order_its_table_has_its_columns(order: tuple[str, ...]) -> None:
    values: dict[str, object] = {"number": 7, "colour": "red", "other": None, "last": "blue", "name": "n", "more": 0}
    table = sa.Table("things", sa.MetaData(), *(sa.Column(name) for name in order))
    row: Any = tuple(values[name] for name in order)
    made = reader(table, Outer)(row)
    assert made == Outer(7, Inner(Colour.RED, None), Colour.BLUE, "n")
    assert (made.inner.colour, made.last) == (Colour.RED, Colour.BLUE)
    assert isinstance(made.last, Colour)
    assert isinstance(made.inner.colour, Colour)
