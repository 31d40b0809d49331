"""Issued addresses by wallet, and the sequence that their derivation indexes come from."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.batches import is_among
from ctrip.database.models import chain_cursors, deposit_addresses, transfers
from ctrip.database.sweeps import owed
from ctrip.domain.transfers import TransferStatus


@dataclass(frozen=True)
class Issued:
    """An address that was given out, and the index below the wallet that it was derived at."""

    address: bytes
    index: int


@dataclass(frozen=True)
class Holding:
    """A chain at whose deposit addresses money lies that was not swept."""

    chain: str
    chain_id: int
    addresses: int


def issued(session: Connection, fingerprint: bytes, *, after: int, limit: int) -> list[Issued]:
    """Return a wallet's addresses by index, those above `after`; -1 for the first."""
    of = deposit_addresses.c
    query = sa.select(of.address, of.derivation_index).where(
        of.wallet_fingerprint == fingerprint, of.derivation_index > after
    )
    rows = session.execute(query.order_by(of.derivation_index).limit(limit))
    return [Issued(row.address, row.derivation_index) for row in rows]


def counts(session: Connection) -> dict[bytes, int]:
    """Return how many addresses each wallet gave out, by fingerprint. Reads the whole index: for tools."""
    of = deposit_addresses.c
    query = sa.select(of.wallet_fingerprint, sa.func.count().label("addresses")).group_by(of.wallet_fingerprint)
    return {row.wallet_fingerprint: row.addresses for row in session.execute(query)}


def has_others(session: Connection, fingerprint: bytes) -> bool:
    """True where another wallet gave out addresses too. Looks at both ends of the index alone."""
    column = deposit_addresses.c.wallet_fingerprint
    ends = (sa.select(column).order_by(order).limit(1) for order in (column, column.desc()))
    return any(found not in (None, fingerprint) for found in (session.scalar(end) for end in ends))


def given_out(session: Connection, addresses: Sequence[bytes]) -> set[bytes]:
    """Return which of `addresses` are deposit addresses."""
    of = deposit_addresses.c
    return set(session.scalars(sa.select(of.address).where(is_among(of.address, addresses))))


def skip_indexes(session: Connection, count: int) -> int:
    """Take `count` indexes without using them. Returns the last one taken.

    One by one, by nextval: setval could go back behind an index that a concurrent creation takes at this moment.
    """
    taken = sa.select(sa.func.nextval("deposit_index").label("index")).select_from(
        sa.func.generate_series(1, count).alias("each")
    )
    return session.scalar(sa.select(sa.func.max(taken.subquery().c.index))) or 0


def unconfigured_holdings(session: Connection, *, configured: Collection[int]) -> list[Holding]:
    """Return the chains outside `configured` at whose deposit addresses money lies: not final yet, or not swept.

    The cursors say cheaply which chains were ever read; only those that are missing have their transfers looked at.
    """
    forgotten = sa.select(chain_cursors.c.chain_id).where(chain_cursors.c.chain_id.not_in(list(configured)))
    of = transfers.c
    places = (
        sa.select(sa.func.min(of.chain).label("chain"), of.chain_id, of.recipient, of.token)
        .where(of.chain_id.in_(session.scalars(forgotten).all()), of.status != TransferStatus.ORPHANED, ~of.is_own)
        .group_by(of.chain_id, of.recipient, of.token)
        .subquery()
    )
    at = places.c
    is_not_final = sa.exists().where(
        of.chain_id == at.chain_id, of.recipient == at.recipient, of.token == at.token, of.status == TransferStatus.SEEN
    )
    query = (
        sa.select(
            sa.func.min(at.chain).label("chain"),
            at.chain_id,
            sa.func.count(sa.distinct(at.recipient)).label("addresses"),
        )
        .where(sa.or_(is_not_final, owed(at.chain_id, at.recipient, at.token) > 0))
        .group_by(at.chain_id)
        .order_by(at.chain_id)
    )
    return [Holding(row.chain, row.chain_id, row.addresses) for row in session.execute(query)]
