"""How far each chain was read, and the headers of the reorg window."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import Session

from ctrip.database.models import chain_cursors, chain_headers
from ctrip.domain.scanning import Cursor, Header


def find(session: Session, chain_id: int) -> Cursor | None:
    """Return a chain's cursor; None where it was never read."""
    row = session.execute(sa.select(chain_cursors).where(chain_cursors.c.chain_id == chain_id)).one_or_none()
    return None if row is None else _cursor(row)


def find_all(session: Session) -> dict[int, Cursor]:
    """Return every cursor by chain id."""
    return {row.chain_id: _cursor(row) for row in session.execute(sa.select(chain_cursors))}


def start(session: Session, chain_id: int, header: Header) -> None:
    """Begin a chain at `header`, whose blocks and all before it are not read. Does nothing where it has begun."""
    statement = pg.insert(chain_cursors).values(
        chain_id=chain_id,
        start_block=header.number,
        read_block=header.number,
        read_hash=header.hash,
        head_block=header.number,
    )
    session.execute(statement.on_conflict_do_nothing())
    store_headers(session, chain_id, [header])


def advance(session: Session, cursor: Cursor, *, base: Header, to: Header, head_block: int) -> None:
    """Move a cursor to `to`, forward or, after a reorg, back. The WHERE names where it stood: a late writer loses.

    The blocks after `base` were read for it, and where a reorg took the first blocks of all, that is a new start.
    """
    moved = session.execute(
        sa.update(chain_cursors)
        .where(chain_cursors.c.chain_id == cursor.chain_id, chain_cursors.c.read_hash == cursor.read_hash)
        .values(
            read_block=to.number,
            read_hash=to.hash,
            start_block=sa.func.least(chain_cursors.c.start_block, base.number),
            head_block=head_block,
            updated_at=sa.func.now(),
        )
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        raise RuntimeError(f"the cursor of chain {cursor.chain_id} moved under a fenced transaction")


def stop(session: Session, chain_id: int, reason: str) -> None:
    """Note why a chain is not read any more until an operator has looked."""
    session.execute(sa.update(chain_cursors).where(chain_cursors.c.chain_id == chain_id).values(stopped_reason=reason))


def headers(session: Session, chain_id: int) -> list[Header]:
    """Return the stored headers of a chain, oldest first."""
    rows = session.execute(
        sa.select(chain_headers).where(chain_headers.c.chain_id == chain_id).order_by(chain_headers.c.number)
    )
    return [Header(row.number, row.hash, row.parent_hash, row.time) for row in rows]


def store_headers(session: Session, chain_id: int, new: Iterable[Header]) -> None:
    """Store headers; one that stands at its number already must have been dropped before."""
    rows = [
        {"chain_id": chain_id, "number": h.number, "hash": h.hash, "parent_hash": h.parent_hash, "time": h.time}
        for h in new
    ]
    if rows:
        session.execute(pg.insert(chain_headers).on_conflict_do_nothing(), rows)


def drop_headers_after(session: Session, chain_id: int, number: int) -> None:
    """Forget the headers above `number`: a reorg took them."""
    session.execute(
        sa.delete(chain_headers).where(chain_headers.c.chain_id == chain_id, chain_headers.c.number > number)
    )


def drop_headers_below(session: Session, chain_id: int, number: int) -> None:
    """Forget the headers below `number`: they left the reorg window."""
    session.execute(
        sa.delete(chain_headers).where(chain_headers.c.chain_id == chain_id, chain_headers.c.number < number)
    )


def header_times(session: Session, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], datetime]:
    """Return the times of the stored blocks among `wanted`, given as (chain id, number)."""
    if not wanted:
        return {}
    rows = session.execute(
        sa.select(chain_headers.c.chain_id, chain_headers.c.number, chain_headers.c.time).where(
            sa.tuple_(chain_headers.c.chain_id, chain_headers.c.number).in_(sorted(set(wanted)))
        )
    )
    return {(row.chain_id, row.number): row.time for row in rows}


def _cursor(row: sa.Row[Any]) -> Cursor:
    return Cursor(
        chain_id=row.chain_id,
        start_block=row.start_block,
        read_block=row.read_block,
        read_hash=row.read_hash,
        head_block=row.head_block,
        stopped_reason=row.stopped_reason,
    )
