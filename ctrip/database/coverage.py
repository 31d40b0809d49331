"""Which blocks were read for which asset: one row for each range that was told without a break.

Whoever writes here holds the row of the chain's listener loop: it is what keeps two from growing one range.
"""

from collections.abc import Collection
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.models import chain_cursors, coverage
from ctrip.database.prepared import Prepared
from ctrip.domain import coverage as rules
from ctrip.domain.coverage import SEPARATOR, Covered
from ctrip.domain.scanning import BlockRange, Header

_OLD = timedelta(hours=1)
"""Ranges of several endpoints stay apart for so long; then they are one, which names them all, and goes on growing."""
_of = coverage.c


def extend(
    session: Connection,
    chain_id: int,
    *,
    tokens: Collection[bytes],
    read: BlockRange,
    parent_hash: bytes,
    last_hash: bytes,
    endpoint: str,
) -> None:
    """Note that `read` was read for each of `tokens`: one statement, however many they are.

    The range that ends right before it grows, where it names the same endpoint and its last block is the parent.
    """
    told = {
        "of_chain": chain_id,
        "tokens": sorted(set(tokens)),
        "first": read.first,
        "last": read.last,
        "parent": parent_hash,
        "newest": last_hash,
        "told_by": endpoint,
    }
    _EXTEND.run(session, told)


def cut(session: Connection, chain_id: int, *, after: Header) -> None:
    """Forget the blocks after `after`, which a reorg took."""
    above = sa.and_(_of.chain_id == chain_id, _of.last_block > after.number)
    session.execute(sa.delete(coverage).where(above, _of.first_block > after.number))
    session.execute(sa.update(coverage).where(above).values(last_block=after.number, last_hash=after.hash))


def gaps(session: Connection, chain_id: int, token: bytes, within: BlockRange) -> list[BlockRange]:
    """Return the blocks of `within` that were never read for this asset, oldest first."""
    query = sa.select(_of.first_block, _of.last_block).where(
        _of.chain_id == chain_id,
        _of.token == token,
        _of.first_block <= within.last,
        _of.last_block >= within.first,
    )
    return rules.gaps((BlockRange(*row) for row in session.execute(query)), within)


def beyond(session: Connection, chain_id: int, *, tokens: Collection[bytes], after: int) -> dict[bytes, list[Covered]]:
    """Return, for each of `tokens`, the ranges that reach beyond block `after`, oldest first."""
    found: dict[bytes, list[Covered]] = {token: [] for token in tokens}
    query = sa.select(coverage).where(_of.chain_id == chain_id, _of.token.in_(tokens), _of.last_block > after)
    for row in session.execute(query.order_by(_of.first_block, _of.id)):
        found[row.token].append(_covered(row))
    return found


def unread(session: Connection, chain_id: int, *, tokens: Collection[bytes]) -> dict[bytes, list[BlockRange]]:
    """Return, for each of `tokens`, the blocks from the chain's start up to its cursor that were never read for it."""
    of = chain_cursors.c
    cursor = session.execute(sa.select(of.start_block, of.read_block).where(of.chain_id == chain_id)).one_or_none()
    if cursor is None or cursor.read_block == cursor.start_block:
        return {token: [] for token in tokens}
    read = beyond(session, chain_id, tokens=tokens, after=cursor.start_block)
    within = BlockRange(cursor.start_block + 1, cursor.read_block)
    return {token: rules.gaps((each.blocks for each in covered), within) for token, covered in read.items()}


def find(session: Connection, chain_id: int, token: bytes) -> list[Covered]:
    """Return the ranges that were read for an asset, oldest block first."""
    query = sa.select(coverage).where(_of.chain_id == chain_id, _of.token == token)
    return [_covered(row) for row in session.execute(query.order_by(_of.first_block, _of.id))]


def ends(session: Connection, chain_id: int, *, upto: int, most: int) -> list[tuple[int, bytes]]:
    """Return the last blocks of ranges up to block `upto`, by number and hash: of the newest ranges and the oldest."""
    query = sa.select(_of.last_block, _of.last_hash).where(_of.chain_id == chain_id, _of.last_block <= upto).distinct()
    newest = query.order_by(_of.last_block.desc()).limit(most // 2).subquery()
    oldest = query.order_by(_of.last_block).limit(most // 2).subquery()
    rows = session.execute(sa.union(sa.select(newest), sa.select(oldest)))
    return [(row.last_block, row.last_hash) for row in rows]


def join(session: Connection, chain_id: int, *, upto: int, limit: int) -> int:
    """Make one row of rows that follow one another, up to block `upto` and `limit` at once. Returns how many went.

    Those of several endpoints are joined when they are old; the row names them all then.
    """
    kept: dict[int, Covered] = {}
    gone: dict[int, int] = {}
    followed: set[int] = set()
    for row in session.execute(_following(chain_id, upto=upto).limit(limit)):
        (earlier_id, earlier), (later_id, later) = _of_pair(row, "earlier"), _of_pair(row, "later")
        # Where blocks were read twice, two rows may follow one, or one two: it is joined to one of them.
        if earlier_id in followed or later_id in gone:
            continue
        followed.add(earlier_id)
        first_id = gone[later_id] = gone.get(earlier_id, earlier_id)
        kept[first_id] = rules.joined(kept.get(first_id, earlier), later)
    for row_id, covered in kept.items():
        session.execute(sa.update(coverage).where(_of.id == row_id).values(_values(covered)))
    session.execute(sa.delete(coverage).where(_of.id.in_(gone)))
    return len(gone)


def _following(chain_id: int, *, upto: int) -> sa.Select[Any]:
    """Select the pairs of rows of which the later goes on where the earlier ends, in the order of blocks."""
    earlier, later = coverage.alias("earlier"), coverage.alias("later")
    old = sa.func.now() - _OLD
    return (
        sa.select(
            *(column.label(f"earlier_{column.name}") for column in earlier.c),
            *(column.label(f"later_{column.name}") for column in later.c),
        )
        .where(
            earlier.c.chain_id == chain_id,
            later.c.chain_id == chain_id,
            later.c.token == earlier.c.token,
            later.c.first_block == earlier.c.last_block + 1,
            later.c.parent_hash == earlier.c.last_hash,
            later.c.last_block <= upto,
            sa.or_(
                _labels(earlier.c.endpoint).contains(_labels(later.c.endpoint)),
                sa.and_(earlier.c.last_read_at < old, later.c.last_read_at < old),
            ),
        )
        .order_by(later.c.first_block, earlier.c.id, later.c.id)
    )


def _of_pair(row: sa.Row[Any], which: str) -> tuple[int, Covered]:
    values = {column.name: row._mapping[f"{which}_{column.name}"] for column in coverage.c}
    return values["id"], _covered(SimpleNamespace(**values))


def _labels(endpoint: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
    return sa.func.string_to_array(endpoint, SEPARATOR, type_=pg.ARRAY(sa.Text))


def _extend() -> sa.Insert:
    # No parameter has the name of a column: SQLAlchemy would set that column of the updated rows too.
    of = {
        "token": sa.func.unnest(sa.bindparam("tokens", type_=pg.ARRAY(sa.LargeBinary))),
        "chain_id": sa.cast(sa.bindparam("of_chain"), sa.BigInteger),
        "first_block": sa.cast(sa.bindparam("first"), sa.BigInteger),
        "last_block": sa.cast(sa.bindparam("last"), sa.BigInteger),
        "parent_hash": sa.cast(sa.bindparam("parent"), sa.LargeBinary),
        "last_hash": sa.cast(sa.bindparam("newest"), sa.LargeBinary),
        "endpoint": sa.cast(sa.bindparam("told_by"), sa.Text),
    }
    read = sa.select(*(value.label(name) for name, value in of.items())).cte("read").prefix_with("MATERIALIZED")
    # Of each asset the range that begins latest before this one, found by the index: no other can end right before it,
    # save where blocks were read twice, and then another row is no harm.
    newest = (
        sa.select(_of.id, _of.last_block, _of.last_hash, _of.endpoint)
        .where(_of.chain_id == read.c.chain_id, _of.token == read.c.token, _of.first_block < read.c.first_block)
        .order_by(_of.first_block.desc(), _of.id.desc())
        .limit(1)
        .lateral("newest")
    )
    continues = sa.and_(
        newest.c.last_hash == read.c.parent_hash,
        read.c.endpoint == sa.any_(_labels(newest.c.endpoint)),
    )
    chosen = (
        sa.select(newest.c.id, read.c.last_block, read.c.last_hash)
        .select_from(read.join(newest, sa.true()))
        .where(continues)
        .cte("chosen")
    )
    grown = (
        sa.update(coverage)
        .where(_of.id == chosen.c.id)
        .values(last_block=chosen.c.last_block, last_hash=chosen.c.last_hash, last_read_at=sa.func.now())
        .returning(_of.token)
        .cte("grown")
    )
    fresh = sa.select(read).where(read.c.token.not_in(sa.select(grown.c.token)))
    return sa.insert(coverage).from_select(list(of), fresh, include_defaults=False).add_cte(grown)


def _covered(row: Any) -> Covered:
    return Covered(
        blocks=BlockRange(row.first_block, row.last_block),
        parent_hash=row.parent_hash,
        last_hash=row.last_hash,
        endpoint=row.endpoint,
        first_read_at=row.first_read_at,
        last_read_at=row.last_read_at,
    )


def _values(covered: Covered) -> dict[str, Any]:
    return {
        "last_block": covered.blocks.last,
        "last_hash": covered.last_hash,
        "endpoint": covered.endpoint,
        "first_read_at": covered.first_read_at,
        "last_read_at": covered.last_read_at,
    }


_EXTEND = Prepared(_extend())
