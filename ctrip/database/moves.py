"""What a move of the cursor entails, asked as one statement: it is so at each block of each chain."""

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.deadlines import DUE
from ctrip.database.finality import SETTLE
from ctrip.database.models import transfers
from ctrip.database.prepared import Prepared
from ctrip.domain.scanning import BlockRange
from ctrip.domain.transfers import TransferStatus


def settle(session: Connection, chain_id: int, passed: BlockRange, *, most: int) -> set[str]:
    """Settle what is final where the cursor stands now, and return the ids of the payments that its move concerns.

    They have canonical transfers in the blocks that it passed, or transfers whose finality changed; or their deadline
    was passed by, or brought back by a reorg: of either kind `most` at the most, the rest is found the next time.
    """
    told = {"of_chain": chain_id, "first": passed.first, "last": passed.last, "most": most}
    return set(_SETTLE.scalars(session, told))


_PASSED = sa.select(transfers.c.payment_id).where(
    transfers.c.chain_id == sa.bindparam("of_chain"),
    transfers.c.block_number.between(sa.bindparam("first"), sa.bindparam("last")),
    transfers.c.status != TransferStatus.ORPHANED,
)
_SETTLE = Prepared(sa.union_all(_PASSED, SETTLE, DUE))
