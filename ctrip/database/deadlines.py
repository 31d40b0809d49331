"""Deadlines: which payments a final block has passed by, and which a reorg brought back before theirs.

A payment's final block is the newest that is final by its own rule.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.batches import is_among
from ctrip.database.models import chain_cursors, chain_headers, deposit_addresses, payments
from ctrip.domain.finality import Finality
from ctrip.domain.payments import Status


def passed_time() -> sa.ScalarSelect[datetime]:
    """Return, as SQL over payments, the moment before which deadlines have passed; NULL where that is not known.

    It is the time of the payment's final block, as far as the chain's clock is borne out.
    """
    return _final_time(is_bounded=True)


def _final_time(*, is_bounded: bool) -> sa.ScalarSelect[datetime]:
    """Return, as SQL over payments, the time of a payment's final block; NULL where it was not read.

    It is the block with the payment's confirmations, or an older one that its chain calls safe or finalized, where its
    rule asks for that: such a one was borne out with its time.
    """
    chain, header, rule = chain_cursors.alias(), chain_headers.alias(), payments.c.finality
    # LEAST passes NULL over: without a clock there is no bound, and where there is no header there is no time.
    bounded = sa.case((header.c.time.is_not(None), sa.func.least(header.c.time, chain.c.clock)))
    deep = chain.c.read_block - payments.c.required + 1
    is_deep = sa.and_(header.c.chain_id == chain.c.chain_id, header.c.number == deep)
    time = sa.case(
        # Where the chain gave no word there is no time: NULL is not above anything.
        (rule == Finality.SAFE, _earlier(chain.c.safe_block > deep, header.c.time, chain.c.safe_time)),
        (
            rule == Finality.FINALIZED,
            _earlier(chain.c.finalized_block > deep, header.c.time, chain.c.finalized_time),
        ),
        else_=bounded if is_bounded else header.c.time,
    )
    query = sa.select(time).select_from(chain.outerjoin(header, is_deep))
    return query.where(chain.c.chain_id == payments.c.chain_id).scalar_subquery()


def _earlier(
    is_beyond: sa.ColumnElement[bool], deep: sa.ColumnElement[datetime], tagged: sa.ColumnElement[datetime]
) -> sa.ColumnElement[datetime]:
    # The header's time may be one endpoint's word; no block is later than one that follows it.
    return sa.case((is_beyond, sa.func.least(deep, tagged)), else_=tagged)


def final_time_of(session: Connection, payment_id: str) -> datetime | None:
    """Return the time of a payment's final block; None where it was not read."""
    return session.scalar(sa.select(_final_time(is_bounded=False)).where(payments.c.id == payment_id))


def in_reach(session: Connection, chain_id: int, *, before: datetime) -> tuple[datetime, int] | None:
    """Return the earliest deadline before a moment, and the fewest confirmations that it may wait for.

    It is that of pending payments which wait for confirmations alone: a block that the chain itself calls final is
    borne out with its time. None where no deadline is near.
    """
    of = payments.c
    query = sa.select(sa.func.min(of.expires_at).label("deadline"), sa.func.min(of.required).label("required")).where(
        of.chain_id == chain_id,
        of.status == Status.PENDING,
        of.expires_at < before,
        of.finality == Finality.CONFIRMATIONS,
    )
    row = session.execute(query).one()
    return None if row.deadline is None else (row.deadline, row.required)


def of_addresses(
    session: Connection, chain_id: int, addresses: Collection[bytes], *, before: datetime
) -> dict[bytes, datetime]:
    """Return, by address, the deadlines of pending payments of a chain that lie before a moment."""
    of, at = payments.c, deposit_addresses.c
    if not addresses:
        return {}
    query = (
        sa.select(at.address, of.expires_at)
        .join(payments, of.id == at.payment_id)
        .where(
            is_among(at.address, addresses),
            of.chain_id == chain_id,
            of.status == Status.PENDING,
            of.expires_at < before,
        )
    )
    return {address: expires_at for address, expires_at in session.execute(query)}


def _passed() -> sa.Select[Any]:
    """Say which pending payments have a deadline before their final block."""
    # No header is newer: without this bound the index could not tell the passed from all that are open.
    newest = _of_headers(sa.func.max(chain_headers.c.time))
    return _with_status(Status.PENDING, payments.c.expires_at < newest, payments.c.expires_at < passed_time())


def _brought_back() -> sa.Select[Any]:
    """Say which expired payments have a deadline that does not lie before their final block any more."""
    # No reorg that is followed goes back beyond the stored headers.
    oldest = _of_headers(sa.func.min(chain_headers.c.time))
    not_final = sa.or_(payments.c.expires_at >= passed_time(), passed_time().is_(None))
    return _with_status(Status.EXPIRED, payments.c.expires_at >= oldest, not_final)


def _of_headers(value: sa.ColumnElement[datetime]) -> sa.ScalarSelect[datetime]:
    return sa.select(value).where(chain_headers.c.chain_id == sa.bindparam("of_chain")).scalar_subquery()


def _with_status(status: Status, *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    of = payments.c
    query = sa.select(of.id).where(of.chain_id == sa.bindparam("of_chain"), of.status == status, *conditions)
    return query.order_by(of.expires_at).limit(sa.bindparam("most"))


DUE = sa.union_all(_passed(), _brought_back())
"""The payments of chain `of_chain` whose deadline a final block has passed, or that a reorg brought back before it:
`most` of each kind."""
