"""Whose balances are looked at next: addresses of payments that may still be paid, at their deadlines, and all others.

One row per chain says where the rounds stand. Coin may come to any address on any chain, so each chain has its own.
"""

from dataclasses import dataclass, fields
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.models import balance_checks, deposit_addresses, payments
from ctrip.domain.payments import Status

PAID = (Status.CONFIRMED, Status.SETTLED)
"""No money of these payments is missing. The others are watched: the index of that leaves out the same ones."""


@dataclass(frozen=True)
class Rounds:
    """Where the rounds of a chain stand; None is a round's beginning.

    Payments with deadlines until `deadlines_until` were looked at there. Of the watched ones the next comes after
    (`watched_until`, `watched_id`), of all others after the address `others_after`. The round of the watched ones began
    at `round_block`, and the one before it at `checked_block`: it missed none.
    """

    deadlines_until: datetime | None = None
    watched_until: datetime | None = None
    watched_id: str | None = None
    others_after: bytes | None = None
    round_block: int | None = None
    checked_block: int | None = None


@dataclass(frozen=True)
class Watched:
    """A payment whose address is looked at."""

    payment_id: str
    address: bytes
    expires_at: datetime


def find(session: Connection, chain_id: int) -> Rounds:
    """Return where the rounds of a chain stand."""
    row = session.execute(sa.select(balance_checks).where(balance_checks.c.chain_id == chain_id)).one_or_none()
    return Rounds() if row is None else Rounds(**{each.name: row._mapping[each.name] for each in fields(Rounds)})


def store(session: Connection, chain_id: int, rounds: Rounds) -> None:
    """Write down where the rounds of a chain stand."""
    values = {each.name: getattr(rounds, each.name) for each in fields(Rounds)}
    statement = pg.insert(balance_checks).values(chain_id=chain_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["chain_id"], set_=values))


def with_deadline(session: Connection, *, after: datetime, until: datetime, limit: int) -> list[Watched]:
    """Return the watched payments whose deadline lies after `after`, not after `until`, earliest first."""
    return _watched(session, payments.c.expires_at > after, payments.c.expires_at <= until, limit=limit)


def watched(session: Connection, *, since: datetime, after: tuple[datetime, str] | None, limit: int) -> list[Watched]:
    """Return the watched payments with a deadline later than `since`, by deadline, those after (deadline, id)."""
    place = sa.tuple_(payments.c.expires_at, payments.c.id)
    later = sa.true() if after is None else place > sa.tuple_(sa.literal(after[0]), sa.literal(after[1]))
    return _watched(session, payments.c.expires_at > since, later, limit=limit)


def addresses_after(session: Connection, address: bytes, *, limit: int) -> list[bytes]:
    """Return issued addresses in their order, those after one."""
    of = deposit_addresses.c.address
    return list(session.scalars(sa.select(of).where(of > address).order_by(of).limit(limit)))


def _watched(session: Connection, *conditions: sa.ColumnElement[bool], limit: int) -> list[Watched]:
    of = payments.c
    query = sa.select(of.id, of.address, of.expires_at).where(of.status.not_in(PAID), *conditions)
    return [Watched(*row) for row in session.execute(query.order_by(of.expires_at, of.id).limit(limit))]
