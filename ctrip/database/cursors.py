"""How far each chain was read, and the headers of the reorg window."""

from collections.abc import Collection, Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import Session

from ctrip.database.models import chain_cursors, chain_headers
from ctrip.domain.scanning import Cursor, Header, Tagged, tagged_after

_OF_CHAIN: sa.BindParameter[int] = sa.bindparam("of_chain")
# What the listener asks at each block is built once: to build it anew costs as much as to ask.
_FIND = sa.select(chain_cursors).where(chain_cursors.c.chain_id == _OF_CHAIN)
_NEWEST = (
    sa.select(chain_headers)
    .join(chain_cursors, chain_cursors.c.chain_id == chain_headers.c.chain_id)
    .where(chain_headers.c.chain_id == _OF_CHAIN, chain_headers.c.number == chain_cursors.c.read_block)
)
_ADVANCE = (
    sa.update(chain_cursors)
    .where(chain_cursors.c.chain_id == _OF_CHAIN, chain_cursors.c.read_hash == sa.bindparam("was_at"))
    .values(
        {column: sa.bindparam(column) for column in ("read_block", "read_hash", "head_block")}
        | {column: sa.bindparam(column) for column in ("safe_block", "safe_time", "finalized_block", "finalized_time")}
        | {"start_block": sa.func.least(chain_cursors.c.start_block, sa.bindparam("base")), "updated_at": sa.func.now()}
    )
)
_STORE_HEADERS = pg.insert(chain_headers).on_conflict_do_nothing()
_DROP_BELOW = sa.delete(chain_headers).where(
    chain_headers.c.chain_id == _OF_CHAIN, chain_headers.c.number < sa.bindparam("below")
)


def find(session: Session, chain_id: int) -> Cursor | None:
    """Return a chain's cursor; None where it was never read."""
    row = session.execute(_FIND, {"of_chain": chain_id}).one_or_none()
    return None if row is None else _cursor(row)


def find_all(session: Session) -> dict[int, Cursor]:
    """Return every cursor by chain id."""
    return {row.chain_id: _cursor(row) for row in session.execute(sa.select(chain_cursors))}


def start(session: Session, chain_id: int, header: Header, *, head_block: int | None = None) -> None:
    """Begin a chain at `header`, whose block and all before it are not read. Does nothing where it has begun.

    `head_block` is the newest block that the node told of, where that is another.
    """
    statement = pg.insert(chain_cursors).values(
        chain_id=chain_id,
        start_block=header.number,
        read_block=header.number,
        read_hash=header.hash,
        head_block=header.number if head_block is None else head_block,
    )
    session.execute(statement.on_conflict_do_nothing())
    store_headers(session, chain_id, [header])


def advance(
    session: Session,
    cursor: Cursor,
    *,
    base: Header,
    to: Header,
    head_block: int,
    safe: Header | None = None,
    finalized: Header | None = None,
) -> None:
    """Move a cursor to `to`, forward or, after a reorg, back. The WHERE names where it stood: a late writer loses.

    The blocks after `base` were read for it, and where a reorg took the first blocks of all, that is a new start.
    `safe` and `finalized` are what the node calls so, where it was asked.
    """
    is_safe = tagged_after(cursor.safe, safe, base=base, to=to)
    is_finalized = tagged_after(cursor.finalized, finalized, base=base, to=to)
    new = {
        "of_chain": cursor.chain_id,
        "was_at": cursor.read_hash,
        "read_block": to.number,
        "read_hash": to.hash,
        "base": base.number,
        "head_block": head_block,
        **tag_values(safe=is_safe, finalized=is_finalized),
    }
    moved = session.execute(_ADVANCE, new)
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        raise RuntimeError(f"the cursor of chain {cursor.chain_id} moved under a fenced transaction")


def stop(session: Session, chain_id: int, reason: str) -> None:
    """Note why a chain is not read any more until an operator has looked."""
    session.execute(sa.update(chain_cursors).where(chain_cursors.c.chain_id == chain_id).values(stopped_reason=reason))


def headers(session: Session, chain_id: int, *, numbers: Collection[int] | None = None) -> list[Header]:
    """Return the stored headers of a chain, oldest first: those of `numbers`, or all up to the cursor's block."""
    of = chain_headers.c
    read_block = sa.select(chain_cursors.c.read_block).where(chain_cursors.c.chain_id == chain_id).scalar_subquery()
    wanted = of.number <= read_block if numbers is None else of.number.in_(numbers)
    rows = session.execute(sa.select(chain_headers).where(of.chain_id == chain_id, wanted).order_by(of.number))
    return [Header(row.number, row.hash, row.parent_hash, row.time) for row in rows]


def newest_header(session: Session, chain_id: int) -> Header:
    """Return the header of the block that the cursor stands on."""
    row = session.execute(_NEWEST, {"of_chain": chain_id}).one()
    return Header(row.number, row.hash, row.parent_hash, row.time)


def store_headers(session: Session, chain_id: int, new: Iterable[Header]) -> None:
    """Store headers; one that stands at its number already must have been dropped before."""
    rows = [
        {"chain_id": chain_id, "number": h.number, "hash": h.hash, "parent_hash": h.parent_hash, "time": h.time}
        for h in new
    ]
    if rows:
        session.execute(_STORE_HEADERS, rows)


def drop_headers_after(session: Session, chain_id: int, number: int) -> None:
    """Forget the headers above `number`: a reorg took them."""
    session.execute(
        sa.delete(chain_headers).where(chain_headers.c.chain_id == chain_id, chain_headers.c.number > number)
    )


def drop_headers_below(session: Session, chain_id: int, number: int) -> None:
    """Forget the headers below `number`: they left the reorg window."""
    session.execute(_DROP_BELOW, {"of_chain": chain_id, "below": number})


def tag_values(*, safe: Tagged | None, finalized: Tagged | None) -> dict[str, Any]:
    """Return the columns of the blocks that the chain's own word makes final."""
    return {
        "safe_block": safe and safe.number,
        "safe_time": safe and safe.time,
        "finalized_block": finalized and finalized.number,
        "finalized_time": finalized and finalized.time,
    }


def _cursor(row: sa.Row[Any]) -> Cursor:
    return Cursor(
        chain_id=row.chain_id,
        start_block=row.start_block,
        read_block=row.read_block,
        read_hash=row.read_hash,
        head_block=row.head_block,
        stopped_reason=row.stopped_reason,
        safe=None if row.safe_block is None else Tagged(row.safe_block, row.safe_time),
        finalized=None if row.finalized_block is None else Tagged(row.finalized_block, row.finalized_time),
    )
