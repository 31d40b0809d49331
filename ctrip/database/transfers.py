"""Transfers: stored once per block that holds them, orphaned with it, final when it is deep enough."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import Session

from ctrip.database.batches import byte_array, given, is_among, is_in
from ctrip.database.models import chain_cursors, payments, sweep_attempts, transfers
from ctrip.database.superseding import supersede
from ctrip.domain.chains import Chain
from ctrip.domain.finality import Finality, FinalityRule
from ctrip.domain.ids import Prefix
from ctrip.domain.scanning import BlockRange
from ctrip.domain.transfers import Reason, Sighting, Source, Transfer, TransferStatus, Verdict, source_of

_PLACE = ("block_hash", "tx_hash", "log_index", "recipient", "token")
"""What tells two transfers of a block apart, inferred ones too."""


# What the listener asks at each block is built once: to build it anew costs as much as to ask.
_ISSUED = sa.select(payments.c.address).where(is_in(payments.c.address, sa.bindparam("addresses", type_=sa.Text)))
_PASSED = sa.select(transfers.c.payment_id).where(
    transfers.c.chain_id == sa.bindparam("of_chain"),
    transfers.c.block_number.between(sa.bindparam("first"), sa.bindparam("last")),
    transfers.c.status != TransferStatus.ORPHANED,
)


@dataclass(frozen=True)
class Owner:
    """The payment that an address was issued for, with the asset that it asked for, and what makes that final."""

    payment_id: str
    chain_id: int
    token: bytes
    rule: FinalityRule


def owners(session: Session, addresses: Sequence[bytes]) -> dict[bytes, Owner]:
    """Return which of `addresses` were issued, and for which payment.

    One query for a whole batch of blocks: the set of issued addresses lives in Postgres alone.
    """
    query = sa.select(
        payments.c.address,
        payments.c.id.label("payment_id"),
        payments.c.chain_id,
        payments.c.token,
        payments.c.required,
        payments.c.finality,
    ).where(is_among(payments.c.address, addresses))
    return {
        row.address: Owner(row.payment_id, row.chain_id, row.token, FinalityRule(Finality(row.finality), row.required))
        for row in session.execute(query)
    }


def issued(session: Session, addresses: Iterable[bytes]) -> set[bytes]:
    """Return which of `addresses` were issued: what is asked for every batch of blocks, by the index alone."""
    return set(session.scalars(_ISSUED, {"addresses": byte_array(addresses)}))


def own_hashes(session: Session, tx_hashes: Sequence[bytes]) -> set[bytes]:
    """Return which of `tx_hashes` are our own signed transactions. They are stored before they are ever broadcast."""
    query = sa.select(sweep_attempts.c.tx_hash).where(is_among(sweep_attempts.c.tx_hash, tx_hashes))
    return set(session.scalars(query))


def store(session: Session, new: Iterable[Transfer]) -> list[Transfer]:
    """Store transfers of canonical blocks. One that stands already, orphaned or not, becomes canonical again.

    Returns those that were not canonical before.
    """
    told_of = list(new)
    rows = [_values(transfer) for transfer in told_of]
    if not rows:
        return []
    statement = pg.insert(transfers).on_conflict_do_update(
        index_elements=["chain_id", "block_hash", "tx_hash", "log_index"],
        set_={"status": TransferStatus.SEEN},
        where=transfers.c.status == TransferStatus.ORPHANED,
    )
    now_canonical = session.execute(statement.returning(*(transfers.c[name] for name in _PLACE)), rows)
    stored = {tuple(row) for row in now_canonical}
    return [transfer for transfer in told_of if tuple(getattr(transfer, name) for name in _PLACE) in stored]


def store_sightings(
    session: Session, chain: Chain, sightings: Sequence[Sighting], *, endpoint: str, new_id: Callable[[Prefix], str]
) -> list[Transfer]:
    """Store what `endpoint` showed in canonical blocks: whose it is, and whether it is our own doing. Returns all."""
    if not sightings:
        return []
    owned = owners(session, sorted({sighting.recipient for sighting in sightings}))
    ours = own_hashes(session, sorted({sighting.tx_hash for sighting in sightings}))
    found = [
        sighted(
            chain,
            each,
            owner=owned[each.recipient],
            is_own=each.tx_hash in ours,
            endpoint=endpoint,
            transfer_id=new_id(Prefix.TRANSFER),
        )
        for each in sightings
    ]
    supersede(session, store(session, found), new_id=new_id)
    return found


def passed(session: Session, chain_id: int, blocks: BlockRange) -> set[str]:
    """Return the ids of the payments with canonical transfers in `blocks`."""
    return set(session.scalars(_PASSED, {"of_chain": chain_id, "first": blocks.first, "last": blocks.last}))


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


def of_payments(session: Session, payment_ids: Sequence[str]) -> dict[str, list[Transfer]]:
    """Return the transfers of each payment, orphaned ones included, oldest block first.

    A block that was read ahead of the cursor does not count yet: what lies before it may not be known.
    """
    found: dict[str, list[Transfer]] = {payment_id: [] for payment_id in payment_ids}
    query = (
        sa.select(transfers)
        .join(chain_cursors, chain_cursors.c.chain_id == transfers.c.chain_id)
        .where(
            transfers.c.payment_id.in_(payment_ids),
            sa.or_(
                transfers.c.block_number <= chain_cursors.c.read_block,
                transfers.c.status == TransferStatus.ORPHANED,
            ),
        )
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
        {"id": v.transfer.id, "counts": v.counts, "reason": v.reason}
        for v in verdicts
        if (v.counts, v.reason) != (v.transfer.counts, v.transfer.reason)
    ]
    if changed:
        to = given("verdicts", *(sa.column(name, transfers.c[name].type) for name in ("id", "counts", "reason"))).c
        statement = sa.update(transfers).where(transfers.c.id == to.id).values(counts=to.counts, reason=to.reason)
        session.execute(statement, {"verdicts": changed}, execution_options={"synchronize_session": False})


def mark_announced(session: Session, transfer_ids: Sequence[str]) -> None:
    """Note that merchants were told of unexpected transfers."""
    session.execute(sa.update(transfers).where(transfers.c.id.in_(transfer_ids)).values(is_announced=True))


def sighted(
    chain: Chain, sighting: Sighting, *, owner: Owner, is_own: bool, endpoint: str, transfer_id: str
) -> Transfer:
    """Make the transfer that a sighting is, for the payment that its address was issued for."""
    token = chain.token_at(sighting.token) or chain.native
    # What was not asked for is final by what it is worth itself.
    is_asked_for = (owner.chain_id, owner.token) == (chain.chain_id, sighting.token)
    rule = owner.rule if is_asked_for else chain.rule_for(token, sighting.amount)
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
        source=source_of(token=sighting.token, log_index=sighting.log_index),
        status=TransferStatus.SEEN,
        required=rule.confirmations,
        finality=rule.finality,
        endpoint=endpoint,
        is_verified=False,
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
