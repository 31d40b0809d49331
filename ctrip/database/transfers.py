"""Transfers: stored once per block that holds them, orphaned with it, final when it is deep enough."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import Session

from ctrip.database.batches import Given, byte_array, is_among, is_in
from ctrip.database.models import payments, sweep_attempts, transfers
from ctrip.database.rows import reader
from ctrip.database.superseding import supersede
from ctrip.domain.addresses import hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.finality import Finality, FinalityRule
from ctrip.domain.ids import Prefix
from ctrip.domain.transfers import Reason, Sighting, Transfer, TransferStatus, Verdict, source_of
from ctrip.errors import NodeUnavailable

_PLACE = ("block_hash", "tx_hash", "log_index", "recipient", "token")
"""What tells two transfers of a block apart, inferred ones too."""

_FIELDS = tuple(column.name for column in transfers.c if column.name not in ("created_at", "asked_at"))
_new = Given("new", *(transfers.c[name] for name in _FIELDS))
_judged = Given("judged", transfers.c.id, transfers.c.counts, transfers.c.reason)

# What the listener asks and says at each block is built once: to build it anew costs as much as to ask.
_ISSUED = sa.select(payments.c.address).where(is_in(payments.c.address, sa.bindparam("addresses", type_=sa.Text)))
_STORE = (
    pg.insert(transfers)
    .from_select(_FIELDS, sa.select(*_new.c))
    .on_conflict_do_update(
        index_elements=["chain_id", "block_hash", "tx_hash", "log_index"],
        set_={"status": TransferStatus.SEEN},
        where=transfers.c.status == TransferStatus.ORPHANED,
    )
    .returning(*(transfers.c[name] for name in _PLACE))
)
_JUDGE = (
    sa.update(transfers).where(transfers.c.id == _judged.c.id).values(counts=_judged.c.counts, reason=_judged.c.reason)
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
        for row in session.execute(query).all()
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
    if not told_of:
        return []
    now_canonical = session.execute(_STORE, _new.rows(map(attrgetter(*_FIELDS), told_of)))
    stored, place = {tuple(row) for row in now_canonical.all()}, attrgetter(*_PLACE)
    return [transfer for transfer in told_of if place(transfer) in stored]


def store_sightings(
    session: Session, chain: Chain, sightings: Sequence[Sighting], *, endpoint: str, new_id: Callable[[Prefix], str]
) -> list[Transfer]:
    """Store what `endpoint` showed in canonical blocks. Returns all."""
    found = of_sightings(session, chain, sightings, endpoint=endpoint, new_id=new_id)
    supersede(session, store(session, found), new_id=new_id)
    return found


def of_sightings(
    session: Session, chain: Chain, sightings: Sequence[Sighting], *, endpoint: str, new_id: Callable[[Prefix], str]
) -> list[Transfer]:
    """Make transfers, not stored yet, of what `endpoint` showed: whose each is, and whether it is our own doing."""
    if not sightings:
        return []
    owned = owners(session, sorted({sighting.recipient for sighting in sightings}))
    ours = own_hashes(session, sorted({sighting.tx_hash for sighting in sightings}))
    return [
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
    """Return the transfers of each payment, orphaned ones included, oldest block first."""
    found: dict[str, list[Transfer]] = {payment_id: [] for payment_id in payment_ids}
    query = (
        sa.select(transfers)
        .where(is_among(transfers.c.payment_id, payment_ids))
        .order_by(transfers.c.block_number, transfers.c.log_index, transfers.c.id)
    )
    for transfer in map(transfer_of, session.execute(query).all()):
        found[transfer.payment_id].append(transfer)
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
        (v.transfer.id, v.counts, v.reason)
        for v in verdicts
        if (v.counts, v.reason) != (v.transfer.counts, v.transfer.reason)
    ]
    if changed:
        session.execute(_JUDGE, _judged.rows(changed), execution_options={"synchronize_session": False})


def mark_announced(session: Session, transfer_ids: Sequence[str]) -> None:
    """Note that merchants were told of unexpected transfers."""
    session.execute(sa.update(transfers).where(transfers.c.id.in_(transfer_ids)).values(is_announced=True))


def sighted(
    chain: Chain, sighting: Sighting, *, owner: Owner, is_own: bool, endpoint: str, transfer_id: str
) -> Transfer:
    """Make the transfer that a sighting is, for the payment that its address was issued for.

    Raises NodeUnavailable where it is of a token that the chain does not list: nobody asked for it.
    """
    token = chain.token_at(sighting.token)
    if token is None:
        raise NodeUnavailable(f"a transfer of {hex_text(sighting.token)}, which {chain.name} does not list, was given")
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


transfer_of = reader(transfers, Transfer)
"""Make a transfer of its row."""
