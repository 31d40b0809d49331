"""Deadlines: which payments a final block has passed by, and which a reorg brought back before theirs.

A payment's final block is the newest with the confirmations that it requires itself.
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ctrip.database.models import chain_cursors, chain_headers, payments
from ctrip.domain.payments import Status


def passed(session: Session, chain_id: int, *, limit: int) -> list[str]:
    """Return the pending payments of a chain whose deadline lies before their final block."""
    of = payments.c
    newest = _of_headers(sa.func.max(chain_headers.c.time), chain_id)
    # No header is newer: without this bound the index could not tell the passed from all that are open.
    is_passed = sa.and_(of.expires_at < newest, of.expires_at < final_time())
    return _with_status(session, chain_id, Status.PENDING, is_passed, limit=limit)


def brought_back(session: Session, chain_id: int, *, limit: int) -> list[str]:
    """Return the expired payments of a chain whose deadline does not lie before their final block any more."""
    of = payments.c
    oldest = _of_headers(sa.func.min(chain_headers.c.time), chain_id)
    # The stored headers are the reorg window, and what lies before it stays as it is.
    not_final = sa.or_(of.expires_at >= final_time(), final_time().is_(None))
    is_back = sa.and_(of.expires_at >= oldest, not_final)
    return _with_status(session, chain_id, Status.EXPIRED, is_back, limit=limit)


def final_block() -> sa.ColumnElement[int]:
    """Return, as SQL over payments and their chain's cursor, the number of a payment's final block."""
    return chain_cursors.c.read_block - payments.c.required + 1


def final_time() -> sa.ScalarSelect[datetime]:
    """Return, as SQL over payments, the time of a payment's final block; NULL where it was not read."""
    chain = chain_cursors.alias()
    is_final = chain_headers.c.number == chain.c.read_block - payments.c.required + 1
    query = sa.select(chain_headers.c.time).join(chain, chain.c.chain_id == chain_headers.c.chain_id)
    return query.where(chain_headers.c.chain_id == payments.c.chain_id, is_final).scalar_subquery()


def _of_headers(value: sa.ColumnElement[datetime], chain_id: int) -> sa.ScalarSelect[datetime]:
    return sa.select(value).where(chain_headers.c.chain_id == chain_id).scalar_subquery()


def _with_status(
    session: Session, chain_id: int, status: Status, condition: sa.ColumnElement[bool], *, limit: int
) -> list[str]:
    query = sa.select(payments.c.id).where(payments.c.chain_id == chain_id, payments.c.status == status, condition)
    return list(session.scalars(query.order_by(payments.c.expires_at).limit(limit)))
