"""Transfers that were refused, once for each block that holds them: for the evidence alone, no money hangs on them."""

from collections.abc import Collection
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.models import refused_transfers
from ctrip.domain.refused_transfers import Refusal, RefusedTransfer
from ctrip.domain.transfers import Sighting

_of = refused_transfers.c


def store(session: Connection, chain_id: int, failed: Collection[Sighting], *, endpoint: str) -> None:
    """Store transfers of canonical blocks whose transactions failed, by the receipts of `endpoint`.

    Those that stand already stay as they are.
    """
    if failed:
        new = (
            RefusedTransfer(
                chain_id=chain_id,
                block_number=each.block_number,
                block_hash=each.block_hash,
                tx_hash=each.tx_hash,
                recipient=each.recipient,
                amount=each.amount,
                reason=Refusal.FAILED,
                endpoint=endpoint,
            )
            for each in failed
        )
        session.execute(pg.insert(refused_transfers).on_conflict_do_nothing(), [asdict(each) for each in new])


def drop_after(session: Connection, chain_id: int, number: int) -> None:
    """Forget those above block `number`: a reorg took them."""
    session.execute(sa.delete(refused_transfers).where(_of.chain_id == chain_id, _of.block_number > number))


def to(session: Connection, recipient: bytes, *, limit: int) -> list[RefusedTransfer]:
    """Return what was to reach an address, on every chain, oldest block first."""
    columns = [_of[name] for name in RefusedTransfer.__dataclass_fields__]
    query = sa.select(*columns).where(_of.recipient == recipient).order_by(_of.chain_id, _of.block_number, _of.tx_hash)
    rows = session.execute(query.limit(limit)).mappings()
    return [RefusedTransfer(**{**row, "reason": Refusal(row["reason"])}) for row in rows]
