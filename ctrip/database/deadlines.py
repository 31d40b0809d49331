"""Deadlines: which payments a final block has passed by, and which a reorg brought back before theirs.

A payment's final block is the newest that is final by its own rule. One without an asset has such a block on each
chain that it accepts, and its deadline has passed when all of these are later.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from ctrip.database.batches import is_among
from ctrip.database.models import chain_cursors, chain_headers, deposit_addresses, payments
from ctrip.domain.finality import Finality
from ctrip.domain.payments import Status

Condition = sa.ColumnElement[bool]
Time = sa.ScalarSelect[datetime]


def passed_time() -> Time:
    """Return, as SQL over payments, the moment before which deadlines have passed; NULL where that is not known.

    It is the time of the payment's final block, as far as the chain's clock is borne out.
    """
    return _final_time(payments.c, is_bounded=True)


def _accepted() -> sa.TableValuedAlias:
    """Return, as rows of SQL over payments, the assets that may be chosen."""
    of = payments.c
    columns = (sa.column(name, of[name].type) for name in ("chain_id", "required", "finality"))
    return sa.func.jsonb_to_recordset(of.assets).table_valued(*columns, name="accepted").render_derived(with_types=True)


def _accepts(chain_id: sa.ColumnElement[int]) -> Condition:
    """Return, as SQL over payments, whether one has no asset yet, and may get one of this chain."""
    of = payments.c
    one = sa.func.jsonb_build_array(sa.func.jsonb_build_object("chain_id", chain_id))
    return sa.and_(of.chain_id.is_(None), of.assets.contains(one))


def times_of_unchosen(*, is_bounded: bool = True) -> sa.Select[Any]:
    """Select, of payments without an asset, the id, each accepted chain, and the time of the final block there."""
    of, accepted = payments.c, _accepted()
    time = _final_time(accepted.c, is_bounded=is_bounded)
    query = sa.select(of.id, accepted.c.chain_id, time.label("time")).select_from(payments.join(accepted, sa.true()))
    return query.where(of.chain_id.is_(None)).distinct()


def _time_on(chain_id: sa.ColumnElement[int]) -> Time:
    """Return, as SQL over payments without an asset, the time of the final block on one of the accepted chains."""
    accepted = _accepted()
    # All assets of a chain have its own rule there.
    rule = sa.select(accepted).where(accepted.c.chain_id == chain_id).limit(1).subquery()
    return sa.select(_final_time(rule.c, is_bounded=True)).select_from(rule).scalar_subquery()


def _final_time(of: ReadOnlyColumnCollection[str, Any], *, is_bounded: bool) -> Time:
    """Return, as SQL, the time of the newest block that is final by a rule; NULL where it was not read.

    `of` is the rule's `chain_id`, `required` and `finality`. It is the block with so many confirmations, or an older
    one that its chain calls safe or finalized, where the rule asks for that: such a one was borne out with its time.
    """
    chain, header, rule = chain_cursors.alias(), chain_headers.alias(), of.finality
    # LEAST passes NULL over: without a clock there is no bound, and where there is no header there is no time.
    bounded = sa.case((header.c.time.is_not(None), sa.func.least(header.c.time, chain.c.clock)))
    deep = chain.c.read_block - of.required + 1
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
    return query.where(chain.c.chain_id == of.chain_id).scalar_subquery()


def _earlier(
    is_beyond: sa.ColumnElement[bool], deep: sa.ColumnElement[datetime], tagged: sa.ColumnElement[datetime]
) -> sa.ColumnElement[datetime]:
    # The header's time may be one endpoint's word; no block is later than one that follows it.
    return sa.case((is_beyond, sa.func.least(deep, tagged)), else_=tagged)


def final_time_of(session: Connection, payment_id: str) -> datetime | None:
    """Return the time of a payment's final block; None where it was not read."""
    of, unchosen = payments.c, times_of_unchosen(is_bounded=False).where(payments.c.id == payment_id).subquery()
    # Of one without an asset that of the accepted chain that is farthest behind.
    times = sa.select(sa.case((sa.func.bool_and(unchosen.c.time.is_not(None)), sa.func.min(unchosen.c.time))))
    ours = _final_time(of, is_bounded=False)
    asked = sa.select(ours).where(of.id == payment_id, of.chain_id.is_not(None))
    found: datetime | None = session.scalar(
        sa.select(sa.func.coalesce(asked.scalar_subquery(), times.scalar_subquery()))
    )
    return found


def in_reach(session: Connection, chain_id: int, *, before: datetime) -> tuple[datetime, int] | None:
    """Return the earliest deadline before a moment, and the fewest confirmations that it may wait for.

    It is that of pending payments which wait for confirmations alone: a block that the chain itself calls final is
    borne out with its time. None where no deadline is near.
    """
    of, accepted = payments.c, _accepted()
    near = (of.status == Status.PENDING, of.expires_at < before)
    asked = sa.select(of.expires_at, of.required).where(
        *near, of.chain_id == chain_id, of.finality == Finality.CONFIRMATIONS
    )
    unchosen = (
        sa.select(of.expires_at, accepted.c.required)
        .select_from(payments.join(accepted, sa.true()))
        .where(*near, of.chain_id.is_(None), of.waits_for == chain_id, accepted.c.chain_id == chain_id)
        .where(accepted.c.finality == Finality.CONFIRMATIONS)
    )
    found = asked.union_all(unchosen).subquery()
    query = sa.select(
        sa.func.min(found.c.expires_at).label("deadline"), sa.func.min(found.c.required).label("required")
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


def _passed(whose: Condition, time: Time) -> sa.Select[Any]:
    """Say which pending payments have a deadline before their final block."""
    # No header is newer: without this bound the index could not tell the passed from all that are open.
    newest = _of_headers(sa.func.max(chain_headers.c.time))
    return _with_status(whose, Status.PENDING, payments.c.expires_at < newest, payments.c.expires_at < time)


def _brought_back(whose: Condition, time: Time) -> sa.Select[Any]:
    """Say which expired payments have a deadline that does not lie before their final block any more."""
    # No reorg that is followed goes back beyond the stored headers.
    oldest = _of_headers(sa.func.min(chain_headers.c.time))
    not_final = sa.or_(payments.c.expires_at >= time, time.is_(None))
    return _with_status(whose, Status.EXPIRED, payments.c.expires_at >= oldest, not_final)


def _of_headers(value: sa.ColumnElement[datetime]) -> Time:
    return sa.select(value).where(chain_headers.c.chain_id == sa.bindparam("of_chain")).scalar_subquery()


def _with_status(whose: Condition, status: Status, *conditions: Condition) -> sa.Select[Any]:
    of = payments.c
    query = sa.select(of.id).where(whose, of.status == status, *conditions)
    return query.order_by(of.expires_at).limit(sa.bindparam("most", type_=sa.Integer))


_OF_CHAIN: sa.BindParameter[int] = sa.bindparam("of_chain", type_=sa.BigInteger)
_ASKED = (payments.c.chain_id == _OF_CHAIN, passed_time())
_WAITING = sa.and_(payments.c.chain_id.is_(None), payments.c.waits_for == _OF_CHAIN)
DUE = sa.union_all(
    _passed(*_ASKED),
    _brought_back(*_ASKED),
    # One without an asset waits for one of its chains at a time, so that one which is stuck keeps no other one busy.
    _passed(_WAITING, _time_on(_OF_CHAIN)),
    _brought_back(_accepts(_OF_CHAIN), _time_on(_OF_CHAIN)),
)
"""The payments of chain `of_chain`, or without an asset, whose deadline a final block of it has passed, or that a reorg
brought back before it: `most` of each kind."""
