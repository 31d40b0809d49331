"""Starting a stopped chain again at a block that an operator names: what was known above it is rewritten."""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import cursors
from ctrip.database.loops import loop_name
from ctrip.database.models import chain_cursors, chain_headers, loops, sweep_intents, transfers
from ctrip.domain.loops import LoopKind
from ctrip.domain.scanning import Cursor, Header, tagged_after
from ctrip.domain.transfers import TransferStatus


def newest_trace(session: Connection, chain_id: int, *, up_to: int) -> tuple[int, bytes] | None:
    """Return number and hash of the newest block, `up_to` or below, that a header, transfer or sweep stands on.

    Where that block is canonical, so is all that the rows say of the blocks before it.
    """
    t, i, h = transfers.c, sweep_intents.c, chain_headers.c
    canonical = t.status != TransferStatus.ORPHANED
    traces = sa.union_all(
        sa.select(h.number, h.hash).where(h.chain_id == chain_id, h.number <= up_to),
        sa.select(t.block_number, t.block_hash).where(t.chain_id == chain_id, t.block_number <= up_to, canonical),
        sa.select(i.mined_block, i.mined_block_hash).where(i.chain_id == chain_id, i.mined_block <= up_to),
    ).subquery()
    row = session.execute(sa.select(traces).order_by(traces.c.number.desc()).limit(1)).one_or_none()
    return None if row is None else (row.number, row.hash)


def overtake(session: Connection, chain_id: int) -> None:
    """Lock the listener's loop row and raise its fence: a run under way writes nothing. The loop is due now."""
    session.execute(
        sa.update(loops)
        .where(loops.c.name == loop_name(LoopKind.LISTENER, chain_id))
        .values(fence=loops.c.fence + 1, lease_until=None, kicked_at=None, next_run_at=sa.func.now())
    )


def set_back(session: Connection, cursor: Cursor, *, headers: Sequence[Header], head_block: int) -> bool:
    """Replace a stopped chain's headers and let its cursor stand on the last of them, no longer stopped.

    False, and nothing is changed, where the chain is not as `cursor` says any more.
    """
    of, to = chain_cursors.c, headers[-1]
    tags = {
        "safe": tagged_after(cursor.safe, None, base=to, to=to),
        "finalized": tagged_after(cursor.finalized, None, base=to, to=to),
    }
    moved = session.scalar(
        sa.update(chain_cursors)
        .where(of.chain_id == cursor.chain_id, of.read_hash == cursor.read_hash, of.stopped_reason.is_not(None))
        .values(
            start_block=sa.func.least(of.start_block, to.number),
            read_block=to.number,
            read_hash=to.hash,
            head_block=head_block,
            stopped_reason=None,
            updated_at=sa.func.now(),
            **cursors.tag_values(**tags),
        )
        .returning(of.chain_id)
    )
    if moved is None:
        return False
    session.execute(sa.delete(chain_headers).where(chain_headers.c.chain_id == cursor.chain_id))
    cursors.store_headers(session, cursor.chain_id, headers)
    return True
