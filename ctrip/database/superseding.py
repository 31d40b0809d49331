"""Coin that was known otherwise gives way to a transfer that explains it: one of the two stands, at any time."""

from collections.abc import Callable, Sequence
from functools import cache

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping

from ctrip.database.batches import array, is_in
from ctrip.database.models import transfers
from ctrip.database.prepared import Prepared
from ctrip.domain.addresses import NATIVE
from ctrip.domain.ids import Prefix
from ctrip.domain.inflows import Coin, superseded
from ctrip.domain.transfers import INTERNAL_LOG_INDEX, NATIVE_LOG_INDEX, Reason, Source, Transfer, TransferStatus

_of = transfers.c
_OTHERWISE = {NATIVE_LOG_INDEX: _of.log_index != NATIVE_LOG_INDEX, 0: _of.log_index < 0}
"""What is told by another than each teller: a block's own transfers, thousands maybe, need not be read again."""


def supersede(
    session: Connection,
    new: Sequence[Transfer],
    *,
    instead_of: Sequence[Transfer] = (),
    new_id: Callable[[Prefix], str],
) -> None:
    """Let transfers that were not canonical before take the place of what was known of the same coin without them.

    What they do not explain of it stands as inferred. Those of `instead_of` were canonical, and are no transfers. All
    are of one chain; whoever stores them reassesses their payments.
    """
    by = _coins(new)
    if not by:
        return
    told = {
        "of_chain": new[0].chain_id,
        "recipients": array({each.recipient for each in by}),
        "tx_hashes": array({each.tx_hash for each in by if each.tx_hash is not None}),
        "since": min(each.block for each in by),
    }
    standing_of = _standing(frozenset(each.teller for each in by))
    rows = {row["id"]: row for row in standing_of.execute(session, told).mappings()}
    stored = {(each.tx_hash, each.log_index) for each in by}
    standing = [
        Coin(row["id"], row["recipient"], row["block_number"], row["amount"], row["tx_hash"], row["log_index"])
        for row in rows.values()
        if (row["tx_hash"], row["log_index"]) not in stored
    ]
    left = superseded(standing, by, instead_of=_coins(instead_of))
    if not left:
        return
    session.execute(
        sa.update(transfers)
        .where(_of.id.in_(left))
        .values(status=TransferStatus.ORPHANED, counts=False, reason=Reason.SUPERSEDED)
    )
    rests = [
        _rest(rows[transfer_id], amount, new_id(Prefix.TRANSFER)) for transfer_id, amount in left.items() if amount
    ]
    if rests:
        session.execute(sa.insert(transfers), rests)


@cache
def _standing(tellers: frozenset[int]) -> Prepared:
    """Select what the same transactions brought as far as was known, and what balances showed at or after them."""
    is_of_balance = sa.and_(_of.source == Source.INTERNAL, _of.block_number >= sa.bindparam("since"))
    is_same = is_in(_of.tx_hash, sa.bindparam("tx_hashes", type_=sa.Text))
    is_told_otherwise = sa.or_(*(_OTHERWISE[teller] for teller in tellers))
    return Prepared(
        sa.select(transfers).where(
            _of.chain_id == sa.bindparam("of_chain"),
            is_in(_of.recipient, sa.bindparam("recipients", type_=sa.Text)),
            _of.token == NATIVE,
            _of.status != TransferStatus.ORPHANED,
            is_of_balance | (is_same & is_told_otherwise),
        )
    )


def _coins(of: Sequence[Transfer]) -> list[Coin]:
    return [
        Coin(each.id, each.recipient, each.block_number, each.amount, each.tx_hash, each.log_index)
        for each in of
        if each.token == NATIVE and each.source is not Source.INTERNAL
    ]


def _rest(row: RowMapping, amount: int, transfer_id: str) -> dict[str, object]:
    """Make a transfer of what is left of one: what was told of its transaction does not hold for that."""
    inferred = {"sender": None, "tx_hash": None, "log_index": INTERNAL_LOG_INDEX, "source": Source.INTERNAL}
    rest = {"id": transfer_id, "amount": amount, "status": TransferStatus.SEEN} | inferred
    return {name: value for name, value in row.items() if name != "created_at"} | rest
