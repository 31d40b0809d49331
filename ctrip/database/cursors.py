"""How far each chain was read, and the headers of the blocks that a reorg may take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.batches import Given
from ctrip.database.models import chain_cursors, chain_headers, payments, transfers
from ctrip.database.prepared import Prepared
from ctrip.domain.finality import Finality
from ctrip.domain.scanning import Cursor, Header, Move, Tagged, tagged_after
from ctrip.domain.standings import Status
from ctrip.domain.transfers import TransferStatus

_OF_CHAIN: sa.BindParameter[int] = sa.bindparam("of_chain")
# What the listener asks at each block is built once: to build it anew costs as much as to ask.
_FIND = Prepared(sa.select(chain_cursors).where(chain_cursors.c.chain_id == _OF_CHAIN))
_FIND_ALL = Prepared(sa.select(chain_cursors))
_HEADERS = Prepared(
    sa.select(chain_headers).where(chain_headers.c.chain_id == _OF_CHAIN).order_by(chain_headers.c.number)
)
_NEW = Given(
    "new", *(sa.column(name, chain_headers.c[name].type) for name in ("number", "hash", "parent_hash", "time"))
)
_STORE_HEADERS = Prepared(
    pg.insert(chain_headers)
    .from_select(list(chain_headers.c), sa.select(sa.cast(_OF_CHAIN, sa.BigInteger), *_NEW.c))
    .on_conflict_do_nothing()
)


@dataclass(frozen=True)
class Position:
    """Where a chain's listener stands: its cursor, and the header of the block that this is on.

    `has_unverified` where a transfer waits for another endpoint's word. `latest_time` is that of all stored headers,
    and `deadline` the earliest one of a pending payment.
    """

    cursor: Cursor
    newest: Header
    has_unverified: bool
    latest_time: datetime
    deadline: datetime | None


def find(session: Connection, chain_id: int) -> Cursor | None:
    """Return a chain's cursor; None where it was never read."""
    row = _FIND.execute(session, {"of_chain": chain_id}).one_or_none()
    return None if row is None else _cursor(row)


def position(session: Connection, chain_id: int) -> Position | None:
    """Return where the listener of a chain stands; None where the chain was never read."""
    row = _POSITION.execute(session, {"of_chain": chain_id}).one_or_none()
    if row is None:
        return None
    newest = Header(row.read_block, row.read_hash, row.parent_hash, row.time)
    return Position(
        _cursor(row),
        newest,
        has_unverified=row.has_unverified,
        latest_time=row.latest_time,
        deadline=row.deadline,
    )


def find_all(session: Connection) -> dict[int, Cursor]:
    """Return every cursor by chain id."""
    return {row.chain_id: _cursor(row) for row in _FIND_ALL.execute(session, {})}


def start(session: Connection, chain_id: int, header: Header, *, head_block: int | None = None) -> None:
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


def advance(session: Connection, cursor: Cursor, move: Move, *, window: int) -> Cursor:
    """Move a cursor forward or, after a reorg, back. The WHERE names where it stood: a late writer loses.

    The blocks after the move's base were read for it, and where a reorg took the first blocks of all, that is a new
    start. Forgotten are the headers from before the reorg `window` of the newest block that is shared: what one
    endpoint alone has made up on top of that moves nothing out of it.
    """
    base, to = move.base, move.to
    safe = tagged_after(cursor.safe, move.tags.get(Finality.SAFE), base=base, to=to)
    finalized = tagged_after(cursor.finalized, move.tags.get(Finality.FINALIZED), base=base, to=to)
    new = {
        "of_chain": cursor.chain_id,
        "was_at": cursor.read_hash,
        "read_block": to.number,
        "read_hash": to.hash,
        "base": base.number,
        "below": 0 if move.shared_block is None else move.shared_block - window,
        "head_block": move.head_block,
        "clock": move.clock,
        **tag_values(safe=safe, finalized=finalized),
    }
    if _ADVANCE.scalar(session, new) is None:
        raise RuntimeError(f"the cursor of chain {cursor.chain_id} moved under a fenced transaction")
    return replace(
        cursor,
        start_block=min(cursor.start_block, base.number),
        read_block=to.number,
        read_hash=to.hash,
        head_block=move.head_block,
        safe=safe,
        finalized=finalized,
        clock=move.clock,
    )


def stop(session: Connection, chain_id: int, reason: str) -> None:
    """Note why a chain is not read any more until an operator has looked."""
    session.execute(sa.update(chain_cursors).where(chain_cursors.c.chain_id == chain_id).values(stopped_reason=reason))


def window(session: Connection, chain_id: int, *, reorg_window: int) -> list[Header]:
    """Return the newest block that was read, after those of the reorg window alone: of them nodes have the state."""
    return headers(session, chain_id)[-reorg_window - 1 :]


def headers(session: Connection, chain_id: int) -> list[Header]:
    """Return the stored headers of a chain, oldest first: they end at the block that the cursor is on."""
    rows = _HEADERS.execute(session, {"of_chain": chain_id})
    return [Header(row.number, row.hash, row.parent_hash, row.time) for row in rows]


def store_headers(session: Connection, chain_id: int, new: Sequence[Header]) -> None:
    """Store headers; one that stands at its number already must have been dropped before."""
    rows = _NEW.rows((header.number, header.hash, header.parent_hash, header.time) for header in new)
    _STORE_HEADERS.run(session, {"of_chain": chain_id, **rows})


def correct_time(session: Connection, chain_id: int, header: Header) -> None:
    """Give a stored header the time that is borne out: the one who told of it told another one."""
    of = chain_headers.c
    this = (of.chain_id == chain_id, of.number == header.number, of.hash == header.hash)
    session.execute(sa.update(chain_headers).where(*this).values(time=header.time))


def drop_headers_after(session: Connection, chain_id: int, number: int) -> None:
    """Forget the headers above `number`: a reorg took them."""
    session.execute(
        sa.delete(chain_headers).where(chain_headers.c.chain_id == chain_id, chain_headers.c.number > number)
    )


def tag_values(*, safe: Tagged | None, finalized: Tagged | None) -> dict[str, Any]:
    """Return the columns of the blocks that the chain's own word makes final."""
    return {
        "safe_block": safe and safe.number,
        "safe_time": safe and safe.time,
        "finalized_block": finalized and finalized.number,
        "finalized_time": finalized and finalized.time,
    }


def _position() -> sa.Select[Any]:
    unverified = sa.exists().where(
        transfers.c.chain_id == _OF_CHAIN, transfers.c.status == TransferStatus.SEEN, ~transfers.c.is_verified
    )
    newest = sa.and_(
        chain_headers.c.chain_id == chain_cursors.c.chain_id, chain_headers.c.number == chain_cursors.c.read_block
    )
    every = chain_headers.alias("every")
    latest = sa.select(sa.func.max(every.c.time)).where(every.c.chain_id == _OF_CHAIN).scalar_subquery()
    # Written out, for the index is of two statuses alone, and no plan for any status could go by it.
    is_pending = payments.c.status == sa.literal_column(f"'{Status.PENDING}'")
    first = sa.select(sa.func.min(payments.c.expires_at)).where(payments.c.chain_id == _OF_CHAIN, is_pending)
    # Written out as well: see `ix_payments_waits_for`.
    waits = sa.and_(payments.c.waits_for == _OF_CHAIN, payments.c.chain_id.is_(None))
    unchosen = sa.select(sa.func.min(payments.c.expires_at)).where(waits, is_pending)
    return (
        sa.select(
            chain_cursors,
            chain_headers.c.parent_hash,
            chain_headers.c.time,
            unverified.label("has_unverified"),
            latest.label("latest_time"),
            sa.func.least(first.scalar_subquery(), unchosen.scalar_subquery()).label("deadline"),
        )
        .join(chain_headers, newest)
        .where(chain_cursors.c.chain_id == _OF_CHAIN)
    )


def _advance() -> sa.Update:
    tagged = ("safe_block", "safe_time", "finalized_block", "finalized_time")
    below = sa.delete(chain_headers).where(
        chain_headers.c.chain_id == _OF_CHAIN, chain_headers.c.number < sa.bindparam("below")
    )
    return (
        sa.update(chain_cursors)
        .where(chain_cursors.c.chain_id == _OF_CHAIN, chain_cursors.c.read_hash == sa.bindparam("was_at"))
        .values(
            **{column: sa.bindparam(column) for column in ("read_block", "read_hash", "head_block", "clock", *tagged)},
            start_block=sa.func.least(chain_cursors.c.start_block, sa.bindparam("base")),
            updated_at=sa.func.now(),
        )
        .returning(chain_cursors.c.chain_id)
        .add_cte(below.cte("dropped"))
    )


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
        clock=row.clock,
    )


_POSITION, _ADVANCE = Prepared(_position()), Prepared(_advance())
