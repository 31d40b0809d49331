"""Transfers: stored once per block that holds them, orphaned with it, final when it is deep enough."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.batches import Given, array, is_in
from ctrip.database.models import payments, sweep_attempts, transfers
from ctrip.database.prepared import Prepared
from ctrip.database.rows import reader
from ctrip.database.superseding import supersede
from ctrip.domain.addresses import ADDRESS_BYTES, hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.finality import Finality, FinalityRule
from ctrip.domain.ids import Prefix
from ctrip.domain.payments import Payment
from ctrip.domain.transfers import Reason, Sighting, Transfer, TransferStatus, Verdict, source_of
from ctrip.errors import NodeUnavailable

_PLACE = ("block_hash", "tx_hash", "log_index", "recipient", "token")
"""What tells two transfers of a block apart, inferred ones too."""

_FIELDS = tuple(column.name for column in transfers.c if column.name not in ("created_at", "asked_at"))
_new = Given("new", *(transfers.c[name] for name in _FIELDS))
_judged = Given("judged", transfers.c.id, transfers.c.counts, transfers.c.reason)

# What the listener asks and says at each block is built once: to build it anew costs as much as to ask.
_NTH = sa.func.generate_series(0, sa.cast(sa.bindparam("most"), sa.Integer) - 1).column_valued("nth")
_ASKED = sa.func.substring(sa.cast(sa.bindparam("packed"), sa.LargeBinary), ADDRESS_BYTES * _NTH + 1, ADDRESS_BYTES)
_ISSUED = Prepared(
    sa.select(payments.c.address).where(
        payments.c.address
        == sa.any_(sa.func.array(sa.select(_ASKED).scalar_subquery(), type_=pg.ARRAY(sa.LargeBinary)))
    )
)
_OWNERS = Prepared(
    sa.select(*(payments.c[name] for name in ("address", "id", "chain_id", "token", "finality", "required"))).where(
        is_in(payments.c.address, sa.bindparam("addresses", type_=sa.Text))
    )
)
_OWN_HASHES = Prepared(
    sa.select(sweep_attempts.c.tx_hash).where(is_in(sweep_attempts.c.tx_hash, sa.bindparam("tx_hashes", type_=sa.Text)))
)
_OF_PAYMENTS = (
    sa.select(transfers)
    .where(is_in(transfers.c.payment_id, sa.bindparam("payment_ids", type_=sa.Text)))
    .order_by(transfers.c.block_number, transfers.c.log_index, transfers.c.id)
)
# What is final, was told of, and is no part of the sum whatever else comes: anybody may send thousands of these.
_IS_DONE_WITH = sa.and_(
    transfers.c.status == TransferStatus.FINAL,
    transfers.c.is_announced,
    sa.func.coalesce(transfers.c.reason, Reason.AFTER_COMPLETION) != Reason.AFTER_COMPLETION,
)
_ALL = Prepared(_OF_PAYMENTS)
_TO_JUDGE = Prepared(_OF_PAYMENTS.where(transfers.c.status != TransferStatus.ORPHANED, ~_IS_DONE_WITH))
_INSERT = pg.insert(transfers).from_select(_FIELDS, sa.select(*_new.c))
_TOLD = _INSERT.excluded
_IS_THE_SAME = sa.and_(
    *(
        transfers.c[name].is_not_distinct_from(_TOLD[name])
        for name in ("payment_id", "token", "amount", "sender", "recipient", "block_time")
    )
)
# What stands at a place again may be another transfer than was told of before: it is told anew, of nobody's word yet.
_STORE = Prepared(
    _INSERT.on_conflict_do_update(
        index_elements=["chain_id", "block_hash", "tx_hash", "log_index"],
        set_={
            **{name: _TOLD[name] for name in _FIELDS},
            "id": sa.case((_IS_THE_SAME, transfers.c.id), else_=_TOLD.id),
            "is_announced": sa.and_(_IS_THE_SAME, transfers.c.is_announced),
            "asked_at": None,
        },
        where=transfers.c.status == TransferStatus.ORPHANED,
    ).returning(*(transfers.c[name] for name in _PLACE))
)
_JUDGE = Prepared(
    sa.update(transfers).where(transfers.c.id == _judged.c.id).values(counts=_judged.c.counts, reason=_judged.c.reason)
)


@dataclass(frozen=True)
class Owner:
    """The payment that an address was issued for, the asset that it asked for, and what makes that final; if chosen."""

    payment_id: str
    chain_id: int | None
    token: bytes | None
    rule: FinalityRule | None


def owners(session: Connection, addresses: Sequence[bytes]) -> dict[bytes, Owner]:
    """Return which of `addresses` were issued, and for which payment.

    One query for a whole batch of blocks: the set of issued addresses lives in Postgres alone.
    """
    rows = _OWNERS.rows(session, {"addresses": array(addresses)})
    return {
        address: Owner(payment_id, chain_id, token, finality and FinalityRule(Finality(finality), required))
        for address, payment_id, chain_id, token, finality, required in rows
    }


def issued(session: Connection, addresses: Collection[bytes]) -> set[bytes]:
    """Return which of `addresses` were issued: what is asked for every batch of blocks, by the index alone.

    They go as one value: to write thousands of them as an array takes us thrice as long.
    """
    return set(_ISSUED.scalars(session, {"packed": b"".join(addresses), "most": len(addresses)}))


def own_hashes(session: Connection, tx_hashes: Sequence[bytes]) -> set[bytes]:
    """Return which of `tx_hashes` are our own signed transactions. They are stored before they are ever broadcast."""
    return set(_OWN_HASHES.scalars(session, {"tx_hashes": array(tx_hashes)}))


def store(session: Connection, new: Iterable[Transfer]) -> list[Transfer]:
    """Store transfers of canonical blocks. Where an orphaned one is in the place of one, it becomes that one.

    One that is canonical stays as it is. Returns those that were not canonical before. The payment that had an orphaned
    one was assessed when it lost that.
    """
    told_of = list(new)
    if not told_of:
        return []
    now_canonical = _STORE.rows(session, _new.rows(map(attrgetter(*_FIELDS), told_of)))
    stored, place = set(now_canonical), attrgetter(*_PLACE)
    return [transfer for transfer in told_of if place(transfer) in stored]


def store_sightings(
    session: Connection, chain: Chain, sightings: Sequence[Sighting], *, endpoint: str, new_id: Callable[[Prefix], str]
) -> list[Transfer]:
    """Store what `endpoint` showed in canonical blocks. Returns what was not canonical before."""
    found = store(session, of_sightings(session, chain, sightings, endpoint=endpoint, new_id=new_id))
    supersede(session, found, new_id=new_id)
    return found


def of_sightings(
    session: Connection, chain: Chain, sightings: Sequence[Sighting], *, endpoint: str, new_id: Callable[[Prefix], str]
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


def orphan(session: Connection, transfer_ids: Sequence[str]) -> None:
    """Mark transfers as orphaned: their blocks do not hold them."""
    session.execute(sa.update(transfers).where(transfers.c.id.in_(transfer_ids)).values(status=TransferStatus.ORPHANED))


def orphan_after(session: Connection, chain_id: int, number: int) -> set[str]:
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


def of_payments(session: Connection, payment_ids: Sequence[str]) -> dict[str, list[Transfer]]:
    """Return the transfers of each payment, orphaned ones included, oldest block first."""
    return _by_payment(session, payment_ids, _ALL)


def to_judge(session: Connection, payment_ids: Sequence[str]) -> dict[str, list[Transfer]]:
    """Return the transfers of each payment that say where it stands, or of which nobody was told yet."""
    return _by_payment(session, payment_ids, _TO_JUDGE)


def exist(session: Connection, payment_id: str) -> bool:
    """Return whether a canonical transfer to the payment's address is stored."""
    canonical = sa.select(transfers.c.id).where(
        transfers.c.payment_id == payment_id, transfers.c.status != TransferStatus.ORPHANED
    )
    return bool(session.scalar(sa.select(canonical.exists())))


def page(session: Connection, payment_id: str, *, limit: int, after: str | None = None) -> list[Transfer]:
    """Return transfers of a payment, orphaned ones included, oldest block first, those after the id `after`."""
    place = (transfers.c.block_number, transfers.c.log_index, transfers.c.id)
    query = sa.select(transfers).where(transfers.c.payment_id == payment_id)
    if after is not None:
        passed = sa.select(*place).where(transfers.c.id == after).correlate(None)
        query = query.where(sa.tuple_(*place) > passed.scalar_subquery())
    return [transfer_of(row) for row in session.execute(query.order_by(*place).limit(limit))]


def most_telling(session: Connection, payment: Payment, *, limit: int) -> tuple[list[Transfer], int]:
    """Return transfers of a payment, oldest block first, and how many there are in all.

    Where there are more than `limit`, those of the asset that was asked for go before others, the newest first: dust
    that anybody may send hides nothing.
    """
    of = transfers.c
    of_payment = of.payment_id == payment.id
    order, asked = [of.block_number.desc(), of.id.desc()], payment.asked
    if asked is not None:
        order.insert(0, sa.and_(of.chain_id == asked.chain_id, of.token == asked.token).desc())
    query = sa.select(transfers).where(of_payment).order_by(*order)
    found = [transfer_of(row) for row in session.execute(query.limit(limit))]
    count = session.scalar(sa.select(sa.func.count()).where(of_payment)) or 0
    return sorted(found, key=lambda transfer: (transfer.block_number, transfer.log_index, transfer.id)), count


def store_verdicts(session: Connection, verdicts: Iterable[Verdict]) -> None:
    """Write down which transfers count, where that is not what their rows say."""
    changed = [
        (v.transfer.id, v.counts, v.reason)
        for v in verdicts
        if (v.counts, v.reason) != (v.transfer.counts, v.transfer.reason)
    ]
    if changed:
        _JUDGE.run(session, _judged.rows(changed))


def mark_announced(session: Connection, transfer_ids: Sequence[str]) -> None:
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
    rule = owner.rule if owner.rule and is_asked_for else chain.rule_for(token, sighting.amount)
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


def _by_payment(session: Connection, payment_ids: Sequence[str], query: Prepared) -> dict[str, list[Transfer]]:
    found: dict[str, list[Transfer]] = {payment_id: [] for payment_id in payment_ids}
    for transfer in map(transfer_of, query.rows(session, {"payment_ids": array(payment_ids)})):
        found[transfer.payment_id].append(transfer)
    return found


transfer_of = reader(transfers, Transfer)
"""Make a transfer of its row."""
