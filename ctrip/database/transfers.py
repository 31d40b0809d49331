"""Transfers: stored once per block that holds them, orphaned with it, final when it is deep enough."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import Session

from ctrip.database.models import payments, sweep_attempts, transfers
from ctrip.domain.chains import Chain
from ctrip.domain.finality import Finality
from ctrip.domain.ids import Prefix
from ctrip.domain.transfers import NATIVE_LOG_INDEX, Reason, Sighting, Source, Transfer, TransferStatus, Verdict


@dataclass(frozen=True)
class Owner:
    """The payment that an address was issued for, with its own chain and the confirmations it requires there."""

    payment_id: str
    chain_id: int
    required: int
    finality: Finality


def owners(session: Session, addresses: Sequence[bytes]) -> dict[bytes, Owner]:
    """Return which of `addresses` were issued, and for which payment.

    One query for a whole batch of blocks: the set of issued addresses lives in Postgres alone.
    """
    query = sa.select(
        payments.c.address,
        payments.c.id.label("payment_id"),
        payments.c.chain_id,
        payments.c.required,
        payments.c.finality,
    ).where(payments.c.address == sa.any_(sa.bindparam("addresses", list(addresses), type_=pg.ARRAY(sa.LargeBinary))))
    return {
        row.address: Owner(row.payment_id, row.chain_id, row.required, Finality(row.finality))
        for row in session.execute(query)
    }


def own_hashes(session: Session, tx_hashes: Sequence[bytes]) -> set[bytes]:
    """Return which of `tx_hashes` are our own signed transactions. They are stored before they are ever broadcast."""
    query = sa.select(sweep_attempts.c.tx_hash).where(
        sweep_attempts.c.tx_hash == sa.any_(sa.bindparam("hashes", list(tx_hashes), type_=pg.ARRAY(sa.LargeBinary)))
    )
    return set(session.scalars(query))


def store(session: Session, new: Iterable[Transfer]) -> None:
    """Store transfers of canonical blocks. One that stands already, orphaned or not, becomes canonical again."""
    rows = [_values(transfer) for transfer in new]
    if not rows:
        return
    statement = pg.insert(transfers)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["chain_id", "block_hash", "tx_hash", "log_index"],
            set_={"status": TransferStatus.SEEN},
            where=transfers.c.status == TransferStatus.ORPHANED,
        ),
        rows,
    )


def store_sightings(
    session: Session, chain: Chain, sightings: Sequence[Sighting], *, new_id: Callable[[Prefix], str]
) -> list[Transfer]:
    """Store what was sighted in canonical blocks: whose it is, and whether it is our own doing. Returns all of it."""
    owned = owners(session, sorted({sighting.recipient for sighting in sightings}))
    ours = own_hashes(session, sorted({sighting.tx_hash for sighting in sightings}))
    found = [
        _sighted(
            chain, each, owner=owned[each.recipient], is_own=each.tx_hash in ours, transfer_id=new_id(Prefix.TRANSFER)
        )
        for each in sightings
    ]
    store(session, found)
    return found


def orphan(session: Session, transfer_ids: Sequence[str]) -> None:
    """Mark transfers as orphaned: their blocks do not hold them."""
    session.execute(sa.update(transfers).where(transfers.c.id.in_(transfer_ids)).values(status=TransferStatus.ORPHANED))


def orphan_after(session: Session, chain_id: int, number: int) -> set[str]:
    """Mark the canonical transfers above block `number` as orphaned. Returns the ids of their payments."""
    return set(
        session.scalars(
            sa.update(transfers)
            .where(
                transfers.c.chain_id == chain_id,
                transfers.c.block_number > number,
                transfers.c.status != TransferStatus.ORPHANED,
            )
            .values(status=TransferStatus.ORPHANED)
            .returning(transfers.c.payment_id)
        )
    )


def settle_finality(session: Session, chain_id: int, read_block: int) -> set[str]:
    """Mark as final what has its confirmations at head `read_block`, and as seen what no longer has them.

    Returns the ids of the payments that this touched.
    """
    final_block = read_block - transfers.c.required + 1
    deepened = (
        sa.update(transfers)
        .where(
            transfers.c.chain_id == chain_id,
            transfers.c.status == TransferStatus.SEEN,
            transfers.c.block_number <= final_block,
        )
        .values(status=TransferStatus.FINAL)
        .returning(transfers.c.payment_id)
    )
    # The head went back: only blocks near it can be concerned, and no chain asks for more than this many.
    risen = (
        sa.update(transfers)
        .where(
            transfers.c.chain_id == chain_id,
            transfers.c.status == TransferStatus.FINAL,
            transfers.c.block_number > final_block,
            transfers.c.block_number > read_block - 4096,
        )
        .values(status=TransferStatus.SEEN)
        .returning(transfers.c.payment_id)
    )
    return set(session.scalars(deepened)) | set(session.scalars(risen))


def of_payments(session: Session, payment_ids: Sequence[str]) -> dict[str, list[Transfer]]:
    """Return the transfers of each payment, orphaned ones included, oldest block first."""
    found: dict[str, list[Transfer]] = {payment_id: [] for payment_id in payment_ids}
    query = (
        sa.select(transfers)
        .where(transfers.c.payment_id.in_(payment_ids))
        .order_by(transfers.c.block_number, transfers.c.log_index, transfers.c.id)
    )
    for row in session.execute(query):
        found[row.payment_id].append(transfer_of(row))
    return found


def exist(session: Session, payment_id: str) -> bool:
    """Return whether a canonical transfer to the payment's address is stored."""
    canonical = sa.select(transfers.c.id).where(
        transfers.c.payment_id == payment_id, transfers.c.status != TransferStatus.ORPHANED
    )
    return bool(session.scalar(sa.select(canonical.exists())))


def page(session: Session, payment_id: str, *, limit: int, after: str | None = None) -> list[Transfer]:
    """Return transfers of a payment, orphaned ones included, oldest block first, those after the id `after`."""
    place = (transfers.c.block_number, transfers.c.log_index, transfers.c.id)
    query = sa.select(transfers).where(transfers.c.payment_id == payment_id)
    if after is not None:
        passed = sa.select(*place).where(transfers.c.id == after).correlate(None)
        query = query.where(sa.tuple_(*place) > passed.scalar_subquery())
    return [transfer_of(row) for row in session.execute(query.order_by(*place).limit(limit))]


def store_verdicts(session: Session, verdicts: Iterable[Verdict]) -> None:
    """Write down which transfers count, where that is not what their rows say."""
    changed = [
        {"of_id": v.transfer.id, "now_counts": v.counts, "now_reason": v.reason}
        for v in verdicts
        if (v.counts, v.reason) != (v.transfer.counts, v.transfer.reason)
    ]
    if changed:
        session.execute(
            sa.update(transfers)
            .where(transfers.c.id == sa.bindparam("of_id"))
            .values(counts=sa.bindparam("now_counts"), reason=sa.bindparam("now_reason")),
            changed,
            execution_options={"synchronize_session": False},
        )


def mark_announced(session: Session, transfer_id: str) -> None:
    """Note that the merchant was told of an unexpected transfer."""
    session.execute(sa.update(transfers).where(transfers.c.id == transfer_id).values(is_announced=True))


def _sighted(chain: Chain, sighting: Sighting, *, owner: Owner, is_own: bool, transfer_id: str) -> Transfer:
    token = chain.token_at(sighting.token) or chain.native
    return Transfer(
        id=transfer_id,
        payment_id=owner.payment_id,
        chain_id=chain.chain_id,
        chain=chain.name,
        token=sighting.token,
        symbol=token.symbol,
        decimals=token.decimals,
        amount=sighting.amount,
        sender=sighting.sender,
        recipient=sighting.recipient,
        tx_hash=sighting.tx_hash,
        log_index=sighting.log_index,
        block_number=sighting.block_number,
        block_hash=sighting.block_hash,
        block_time=sighting.block_time,
        source=Source.NATIVE if sighting.log_index == NATIVE_LOG_INDEX else Source.ERC20,
        status=TransferStatus.SEEN,
        required=owner.required if owner.chain_id == chain.chain_id else chain.confirmations,
        finality=owner.finality if owner.chain_id == chain.chain_id else Finality.CONFIRMATIONS,
        endpoint=None,
        is_verified=True,
        is_own=is_own,
        is_payable=not token.fee_on_transfer and not token.rebasing,
        counts=not is_own,
        reason=Reason.OWN_TRANSACTION if is_own else None,
        is_announced=False,
    )


def _values(transfer: Transfer) -> dict[str, Any]:
    return {column.name: getattr(transfer, column.name) for column in transfers.c if column.name != "created_at"}


def transfer_of(row: sa.Row[Any]) -> Transfer:
    """Make a transfer of its row."""
    values = {key: value for key, value in row._mapping.items() if key != "created_at"}
    values["source"] = Source(row.source)
    values["status"] = TransferStatus(row.status)
    values["finality"] = Finality(row.finality)
    values["reason"] = None if row.reason is None else Reason(row.reason)
    return Transfer(**values)
