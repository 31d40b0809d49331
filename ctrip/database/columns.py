"""What the tables' columns are made of: ids, moments, amounts, hashes, and what every row of work has.

Amounts are base units in NUMERIC(78,0) with a check, because NUMERIC alone takes NaN through `> 0`.
"""

from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator


class Uint256(TypeDecorator[int]):
    """An amount in base units: NUMERIC(78,0) in the database, an int in Python, also through sum()."""

    impl = sa.Numeric(78, 0)
    cache_ok = True

    def process_result_value(self, value: Decimal | None, dialect: Any) -> int | None:  # noqa: ARG002 (SQLAlchemy calls it so)
        """Make an int of what the driver reads."""
        return None if value is None else int(value)


def moment(name: str, *, required: bool = False, now: bool = False) -> sa.Column[Any]:
    """Return a column of aware moments; `now` fills it with the time of the insert."""
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=not (required or now), server_default=default)


def key(name: str = "id") -> sa.Column[Any]:
    """Return a text key, compared byte by byte: ids are in the order of time."""
    return sa.Column(name, sa.Text(collation="C"), primary_key=True)


def reference(name: str, target: str, *, required: bool = True) -> sa.Column[Any]:
    """Return a column that names a row of another table."""
    return sa.Column(name, sa.Text(collation="C"), sa.ForeignKey(target), nullable=not required)


def binary(name: str, length: int, *, required: bool = True) -> tuple[sa.Column[Any], sa.CheckConstraint]:
    """Return a column of exactly `length` bytes."""
    check = sa.CheckConstraint(f"octet_length({name}) = {length}", name=f"{name}_length")
    return sa.Column(name, sa.LargeBinary, nullable=not required), check


def amount(name: str, *, least: int = 0, required: bool = True) -> tuple[sa.Column[Any], sa.CheckConstraint]:
    """Return a column of base units, `least` and more."""
    check = sa.CheckConstraint(f"{name} >= {least} AND {name} < 2::numeric^256", name=f"{name}_range")
    return sa.Column(name, Uint256, nullable=not required), check


def work() -> tuple[sa.Column[Any] | sa.CheckConstraint, ...]:
    """Return what every row of work has: when it is due (null: it is over), and who is at it. See database/work.py."""
    return (
        moment("next_attempt_at"),
        moment("kicked_at"),
        moment("lease_until"),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        # A replay begins a new schedule, and the attempts go on counting.
        sa.Column("attempts_before_schedule", sa.Integer, nullable=False, server_default="0"),
        sa.CheckConstraint("attempts_before_schedule BETWEEN 0 AND attempts", name="attempts_range"),
    )


def due(table: str) -> sa.Index:
    """Return the index that the relay looks through for what is due."""
    return sa.Index(f"ix_{table}_due", "next_attempt_at", postgresql_where=sa.text("next_attempt_at IS NOT NULL"))


def listed(table: str, name: str, *pinned: str, time: str = "created_at", where: str | None = None) -> sa.Index:
    """Return the index that a list is read from, in its order, by what a filter pins. See database/pages.py."""
    condition = None if where is None else sa.text(where)
    return sa.Index(f"ix_{table}_{name}", *pinned, time, "id", postgresql_where=condition)


def one_of(name: str, values: Any) -> sa.CheckConstraint:
    """Return the check that a column holds one of these values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{name} IN ({listed})", name=f"{name}_known")
