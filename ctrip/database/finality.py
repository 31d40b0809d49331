"""Finality: which transfers are deep enough, called final by the chain where their rule asks for it, and verified."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.batches import array, is_in
from ctrip.database.models import chain_cursors, transfers
from ctrip.database.prepared import Prepared
from ctrip.database.transfers import transfer_of
from ctrip.domain.finality import Finality
from ctrip.domain.transfers import Source, Transfer, TransferStatus

_LONGEST_WINDOW = 4096
"""No chain's reorg window is longer: what stands deeper than this stays final."""
_AT_EACH_BLOCK = timedelta(minutes=1)
_SHARE = 20
_LONGEST_PAUSE = timedelta(minutes=5)
"""What is younger than the first is asked for at each block. Then the pause grows with the time that it has waited, of
which it is a twentieth, up to the longest: half a minute after ten minutes, and no call for each block for ever."""
_of = transfers.c
_OF_CHAIN: sa.BindParameter[int] = sa.bindparam("of_chain")
_IS_MEANT = is_in(_of.id, sa.bindparam("transfer_ids", type_=sa.Text))


def settle_finality(session: Connection, chain_id: int) -> set[str]:
    """Mark as final what is so by its rule where the cursor stands, and as seen what no longer is.

    Returns the ids of the payments that this touched.
    """
    return set(_SETTLE.scalars(session, {"of_chain": chain_id}))


def to_verify(session: Connection, chain_id: int, *, up_to: int, head: int, limit: int) -> list[Transfer]:
    """Return transfers of blocks up to `up_to` that have their confirmations at block `head` and must be borne out.

    First come those that were never asked for, the oldest of them first, then those that were not for the longest: what
    nobody can tell of keeps nothing else waiting. It is asked for ever less often, or many such would be asked for at
    each block.

    Coin that a contract sent is left out: no receipt tells of it, and its balance is read again instead.
    """
    told = {"of_chain": chain_id, "up_to": up_to, "head": head, "limit": limit}
    return [transfer_of(row) for row in _TO_VERIFY.rows(session, told)]


def count_unverified(session: Connection) -> dict[int, int]:
    """Count, by chain id, the transfers that have their confirmations where the cursor stands, and only wait.

    They wait for another endpoint's word; coin that a contract sent does so too.
    """
    query = (
        sa.select(_of.chain_id, sa.func.count())
        .join(chain_cursors, chain_cursors.c.chain_id == _of.chain_id)
        .where(_of.status == TransferStatus.SEEN, ~_of.is_verified, _is_deep())
        .group_by(_of.chain_id)
    )
    return {chain_id: count for chain_id, count in session.execute(query)}


def mark_verified(session: Connection, transfer_ids: Collection[str]) -> None:
    """Note that transfers were borne out. `settle_finality` then says what follows."""
    if transfer_ids:
        _VERIFIED.run(session, {"transfer_ids": array(transfer_ids)})


def put_back(session: Connection, transfer_ids: Collection[str]) -> None:
    """Note that nobody told of transfers: their turn to be verified comes after that of all others, and later."""
    if transfer_ids:
        _PUT_BACK.run(session, {"transfer_ids": array(transfer_ids)})


def _to_verify() -> sa.Select[Any]:
    head = sa.bindparam("head", type_=sa.BigInteger)
    return (
        sa.select(transfers)
        .where(_of.chain_id == _OF_CHAIN, _of.status == TransferStatus.SEEN, ~_of.is_verified)
        .where(_of.block_number <= sa.bindparam("up_to"), _of.block_number <= head - _of.required + 1)
        .where(_of.source != Source.INTERNAL, _is_its_turn())
        .order_by(_of.asked_at.asc().nulls_first(), _of.block_number, _of.id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


def _is_its_turn() -> sa.ColumnElement[bool]:
    # Where the clock was set back, it was asked for in the future: that must not be waited for.
    rests_s = sa.func.abs(sa.extract("epoch", sa.func.now() - _of.asked_at))
    has_waited_s = sa.extract("epoch", _of.asked_at - _of.created_at - _AT_EACH_BLOCK)
    return sa.or_(_of.asked_at.is_(None), rests_s >= _LONGEST_PAUSE.total_seconds(), rests_s * _SHARE >= has_waited_s)


def _settle() -> sa.CompoundSelect[Any]:
    """Build both changes as one statement: it runs at each block, and no transfer is concerned by both."""
    is_final = sa.and_(_is_deep(), _is_called_final(), _of.is_verified)
    deepened = _change(TransferStatus.SEEN, TransferStatus.FINAL, is_final, name="deepened")
    # Where the head went back, only blocks near it can be concerned.
    near = _of.block_number > chain_cursors.c.read_block - _LONGEST_WINDOW
    risen = _change(TransferStatus.FINAL, TransferStatus.SEEN, sa.and_(near, is_final.is_not(True)), name="risen")
    return sa.select(deepened.c.payment_id).union_all(sa.select(risen.c.payment_id))


def _change(old: TransferStatus, new: TransferStatus, condition: sa.ColumnElement[bool], *, name: str) -> sa.CTE:
    of_chain = sa.and_(_of.chain_id == _OF_CHAIN, chain_cursors.c.chain_id == _of.chain_id)
    change = sa.update(transfers).where(of_chain, _of.status == old, condition).values(status=new)
    return change.returning(_of.payment_id).cte(name)


def _is_deep() -> sa.ColumnElement[bool]:
    return _of.block_number <= chain_cursors.c.read_block - _of.required + 1


def _is_called_final() -> sa.ColumnElement[bool]:
    """Say that the chain's word reaches a transfer's block, where its rule asks for it. Unknown where it gave none."""
    return sa.case(
        (_of.finality == Finality.SAFE, _of.block_number <= chain_cursors.c.safe_block),
        (_of.finality == Finality.FINALIZED, _of.block_number <= chain_cursors.c.finalized_block),
        else_=sa.true(),
    )


SETTLE = _settle()
"""Settle the transfers of chain `of_chain`, and return the payments that this touched."""
_SETTLE, _TO_VERIFY = Prepared(SETTLE), Prepared(_to_verify())
_VERIFIED = Prepared(sa.update(transfers).where(_IS_MEANT).values(is_verified=True))
_PUT_BACK = Prepared(sa.update(transfers).where(_IS_MEANT).values(asked_at=sa.func.now()))
