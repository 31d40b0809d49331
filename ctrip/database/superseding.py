"""Inferred coin gives way to a transfer that explains it: one of the two stands, in the same transaction."""

from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ctrip.database.models import transfers
from ctrip.domain.addresses import NATIVE
from ctrip.domain.ids import Prefix
from ctrip.domain.inflows import Explanation, Inferred, superseded
from ctrip.domain.transfers import Reason, Transfer, TransferStatus


def supersede(session: Session, new: Sequence[Transfer], *, new_id: Callable[[Prefix], str]) -> None:
    """Let transfers that were not canonical before take the place of what was inferred without them.

    What they do not explain of an inferred transfer stands as one of its own. `new` are of one chain; whoever stores
    them reassesses their payments.
    """
    by = [
        Explanation(each.recipient, each.block_number, each.amount)
        for each in new
        if each.token == NATIVE and each.tx_hash is not None
    ]
    if not by:
        return
    of = transfers.c
    query = sa.select(transfers).where(
        of.chain_id == new[0].chain_id,
        of.recipient.in_(sorted({each.recipient for each in by})),
        of.token == NATIVE,
        of.tx_hash.is_(None),
        of.status != TransferStatus.ORPHANED,
        of.block_number >= min(each.block for each in by),
    )
    rows = {row.id: row for row in session.execute(query)}
    standing = [Inferred(row.id, row.recipient, row.block_number, row.amount) for row in rows.values()]
    left = superseded(standing, by)
    if not left:
        return
    session.execute(
        sa.update(transfers)
        .where(of.id.in_(left))
        .values(status=TransferStatus.ORPHANED, counts=False, reason=Reason.SUPERSEDED)
    )
    rests = [
        {key: value for key, value in rows[transfer_id]._mapping.items() if key != "created_at"}
        | {"id": new_id(Prefix.TRANSFER), "amount": amount, "status": TransferStatus.SEEN}
        for transfer_id, amount in left.items()
        if amount
    ]
    if rests:
        session.execute(sa.insert(transfers), rests)
