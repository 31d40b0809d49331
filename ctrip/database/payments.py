"""Payments: added, found, locked, and assessed by the rows of one transaction; `standings` stores what follows."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database import cursors, pages, sweeps, transfers
from ctrip.database.batches import Given, array, is_among, is_in
from ctrip.database.deadlines import passed_time, times_of_unchosen
from ctrip.database.models import chain_cursors, payments
from ctrip.database.models import transfers as all_transfers
from ctrip.database.prepared import Prepared
from ctrip.database.standings import Assessed, payment_of, store
from ctrip.domain.chains import Chain
from ctrip.domain.ids import Prefix
from ctrip.domain.payments import Facts, Payment, Status, assess
from ctrip.domain.prices import Asked
from ctrip.domain.transfers import Reason, Transfer, TransferStatus

NewId = Callable[[Prefix], str]
Times = Mapping[str, dict[int, datetime | None]]
"""By payment without an asset and by accepted chain: the time of the final block there; None where it is not known."""
_WANTED = is_in(payments.c.id, sa.bindparam("payment_ids", type_=sa.Text))
_LOCK = {
    keeps_transfers_out: Prepared(
        sa.select(payments).where(_WANTED).order_by(payments.c.id).with_for_update(key_share=not keeps_transfers_out)
    )
    for keeps_transfers_out in (False, True)
}
# One statement, so one snapshot: between two, a listener may move the cursor and drop the header that is meant.
_PASSED_TIMES = Prepared(
    sa.select(payments.c.chain_id, payments.c.required, payments.c.finality, passed_time())
    .join(chain_cursors, chain_cursors.c.chain_id == payments.c.chain_id)
    .where(_WANTED)
    .distinct()
)
_TIMES_OF_UNCHOSEN = Prepared(times_of_unchosen().where(_WANTED))
_watch = Given("watch", payments.c.id, payments.c.waits_for)
_WATCH = Prepared(
    sa.update(payments)
    .where(payments.c.id == _watch.c.id, payments.c.waits_for != _watch.c.waits_for)
    .values(waits_for=_watch.c.waits_for)
)
AT_ONCE = 250
"""How many payments are assessed and stored together."""


def find(session: Connection, payment_id: str, *, merchant_id: str | None = None) -> Payment | None:
    """Return a payment, that merchant's alone where one is given."""
    query = sa.select(payments).where(payments.c.id == payment_id)
    if merchant_id is not None:
        query = query.where(payments.c.merchant_id == merchant_id)
    row = session.execute(query).one_or_none()
    return None if row is None else payment_of(row)


def count_open(session: Connection, merchant_id: str, *, most: int) -> int:
    """Return how many payments of a merchant wait for money; of more than `most`, that many."""
    is_open = sa.and_(payments.c.merchant_id == merchant_id, payments.c.status == sa.literal_column("'pending'"))
    found = sa.select(payments.c.id).where(is_open).limit(most).subquery()
    return session.execute(sa.select(sa.func.count()).select_from(found)).scalar_one()


def matching(
    session: Connection, merchant_id: str, *, filters: Mapping[str, Any], limit: int, after: str | None = None
) -> Sequence[Payment]:
    """Return a merchant's payments, newest first, those after the payment `after` where one is given.

    `filters` may hold status, chain, order_id, created_after and created_before.
    """
    of = payments.c
    asked = {name: filters[name] for name in ("status", "chain", "order_id") if filters.get(name) is not None}
    wanted = [of.merchant_id == merchant_id]
    if filters.get("created_after") is not None:
        wanted.append(of.created_at > filters["created_after"])
    before = filters.get("created_before")
    if after is not None:
        wanted.append(pages.after(session, payments, after, before=before))
    elif before is not None:
        wanted.append(of.created_at < before)
    lists = [
        [*wanted, *(of[name] == value for name, value in kind.items())] for kind in _kinds(session, merchant_id, asked)
    ]
    return [payment_of(row) for row in session.execute(pages.newest(payments, lists, limit=limit))]


def lock(session: Connection, payment_ids: Iterable[str], *, keeps_transfers_out: bool = False) -> list[Payment]:
    """Return payments locked for this transaction, in the order of their ids so that two lockers never deadlock.

    A transaction that stored a transfer or an intent of a payment holds that row's key by the foreign key. Two of them
    may each go on to lock the other's payments, so this lock lets keys be, unless `keeps_transfers_out` says that none
    may be stored meanwhile: then it waits for all that are.
    """
    locking = _LOCK[keeps_transfers_out]
    return [payment_of(row) for row in locking.rows(session, {"payment_ids": array(payment_ids)})]


def reassess(
    session: Connection, payment_ids: Iterable[str], *, chains: Mapping[int, Chain], new_id: NewId
) -> list[str]:
    """Lock payments, assess them by the rows of this transaction and store what changed, one event a change.

    Returns the ids of the deliveries made. A payment whose chain was never read, or is not configured, is left alone.
    """
    ids, deliveries = sorted(set(payment_ids)), list[str]()
    # In the order of the ids over all batches too, so that two lockers never deadlock.
    for first in range(0, len(ids), AT_ONCE):
        deliveries += _reassess(session, ids[first : first + AT_ONCE], chains=chains, new_id=new_id)
    return deliveries


def facts_of(session: Connection, of: Sequence[Payment], *, chains: Mapping[int, Chain]) -> dict[str, Facts]:
    """Return what is known of each payment's chain; a payment whose chain was never read is left out."""
    return _unchosen_facts(_times(session, of, chains=chains)) | _asked_facts(session, of, chains=chains)


def _asked_facts(session: Connection, of: Sequence[Payment], *, chains: Mapping[int, Chain]) -> dict[str, Facts]:
    asked = [(payment, payment.asked) for payment in of if payment.asked is not None]
    ids = [payment.id for payment, _ in asked]
    swept = dict.fromkeys(ids, sweeps.SweepFacts()) | sweeps.facts_of(session, ids)
    passed_times = {tuple(rule): time for *rule, time in _PASSED_TIMES.rows(session, {"payment_ids": array(ids)})}
    early = _early_amounts(session, [payment.id for payment, _ in asked if payment.choice is not None])
    return {
        payment.id: Facts(
            passed_time=passed_times[rule],
            # What came before the choice is swept like the rest, and covers nothing that was credited.
            covered=max(0, swept[payment.id].covered - early.get(payment.id, 0)),
            is_sweep_held=swept[payment.id].is_held,
            threshold=_threshold(asks, chains),
        )
        for payment, asks in asked
        if (rule := (asks.chain_id, asks.required, asks.finality)) in passed_times
    }


def store_acceptance(session: Connection, accepted: Payment, *, not_needed: Sequence[Transfer] = ()) -> None:
    """Write down what the merchant accepted of a payment, and which transfers do not count any more by that.

    `reassess` then says what follows. The API may change no transfer: this one change of theirs is a function of the
    database (migration 0011), which makes it of seen transfers of accepted payments alone.
    """
    values = {"accepted_at": accepted.accepted_at, "accepted_amount": accepted.accepted_amount}
    session.execute(sa.update(payments).where(payments.c.id == accepted.id).values(values))
    if not_needed:
        ids = sa.literal([transfer.id for transfer in not_needed], pg.ARRAY(sa.Text))
        session.execute(sa.select(sa.func.set_transfers_aside(ids)))


def is_configured(payment: Payment, chains: Mapping[int, Chain]) -> bool:
    """True where what is asked for is on a configured chain, or not chosen yet."""
    return payment.asked is None or payment.asked.chain_id in chains


def _reassess(
    session: Connection, payment_ids: Sequence[str], *, chains: Mapping[int, Chain], new_id: NewId
) -> list[str]:
    locked = [payment for payment in lock(session, payment_ids) if is_configured(payment, chains)]
    if not locked:
        return []
    arrived = transfers.to_judge(session, [payment.id for payment in locked])
    times = _times(session, locked, chains=chains)
    facts = _unchosen_facts(times) | _asked_facts(session, locked, chains=chains)
    read_blocks = {chain_id: cursor.read_block for chain_id, cursor in cursors.find_all(session).items()}
    assessed = [
        Assessed(payment, assess(payment, tuple(arrived[payment.id]), facts[payment.id]))
        for payment in locked
        if payment.id in facts
    ]
    _watch_another(session, locked, times)
    return store(session, assessed, read_blocks=read_blocks, new_id=new_id)


def _kinds(session: Connection, merchant_id: str, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return filters whose lists together are the one asked for, each of which an index has in order of time.

    One index is in this order for one status on one chain, another one for an order, and one for all of a merchant.
    """
    if "order_id" in asked or not ("status" in asked or "chain" in asked):
        return [dict(asked)]
    of, statuses = payments.c, [asked["status"]] if "status" in asked else list(Status)
    if "chain" in asked:
        return [{"status": status, "chain": asked["chain"]} for status in statuses]
    is_such = sa.and_(of.merchant_id == merchant_id, of.status == asked["status"])
    # None as well: of no chain is what nobody has chosen an asset for yet.
    chains = [*pages.values(session, of.chain, is_such), None]
    return [{"status": asked["status"], "chain": chain} for chain in chains]


def watch_served(session: Connection, served: Collection[int]) -> int:
    """Let payments without an asset wait for a chain that is served, where they accept one. Returns how many do now.

    Nobody reads the others: they would wait for ever.
    """
    of, each = payments.c, sa.func.jsonb_array_elements(payments.c.assets).table_valued("value", name="each")
    chain_id = sa.cast(each.c.value.op("->>")("chain_id"), sa.BigInteger)
    first = sa.select(chain_id).select_from(each).where(chain_id.in_(served)).limit(1).scalar_subquery()
    waiting = sa.and_(of.chain_id.is_(None), of.status == Status.PENDING, of.waits_for.not_in(served))
    return session.execute(sa.update(payments).where(waiting, first.is_not(None)).values(waits_for=first)).rowcount


def _unchosen_facts(times: Times) -> dict[str, Facts]:
    """Return the facts of payments without an asset: what has passed on the accepted chain that is farthest behind.

    A chain that is not served has no say: nobody can choose it any more.
    """
    return {
        payment_id: Facts(None if None in told.values() else min(filter(None, told.values()), default=None))
        for payment_id, told in times.items()
    }


def _watch_another(session: Connection, of: Sequence[Payment], times: Times) -> None:
    """Let payments without an asset wait for the first accepted chain that has not passed their deadline."""
    expires_at = {payment.id: payment.expires_at for payment in of}
    waiting = {
        payment_id: chain_id
        for payment_id, told in times.items()
        for chain_id, time in reversed(told.items())
        if time is None or time <= expires_at[payment_id]
    }
    if waiting:
        _WATCH.run(session, _watch.rows(waiting.items()))


def _times(session: Connection, of: Sequence[Payment], *, chains: Mapping[int, Chain]) -> Times:
    """Return the time of the final block on each served chain that a payment without an asset accepts."""
    served = {
        payment.id: [asset.chain_id for asset in payment.price.accepted if _is_served(asset.chain_id, chains)]
        for payment in of
        if payment.asked is None and payment.price is not None
    }
    if not served:
        return {}
    rows = _TIMES_OF_UNCHOSEN.rows(session, {"payment_ids": array(served)})
    known = {(payment_id, chain_id): time for payment_id, chain_id, time in rows}
    return {
        payment_id: {chain_id: known[payment_id, chain_id] for chain_id in chain_ids}
        for payment_id, chain_ids in served.items()
    }


def _is_served(chain_id: int, chains: Mapping[int, Chain]) -> bool:
    return chain_id in chains and chains[chain_id].enabled


def _early_amounts(session: Connection, payment_ids: Sequence[str]) -> dict[str, int]:
    """Return how much of the asset that was asked for is final, and came before it was chosen."""
    of, at = payments.c, all_transfers.c
    if not payment_ids:
        return {}
    query = (
        sa.select(at.payment_id, sa.func.sum(at.amount))
        .join(payments, sa.and_(of.id == at.payment_id, of.chain_id == at.chain_id, of.token == at.token))
        .where(is_among(at.payment_id, payment_ids))
        .where(at.status == TransferStatus.FINAL, at.reason == Reason.BEFORE_CHOICE)
    )
    return {payment_id: int(amount) for payment_id, amount in session.execute(query.group_by(at.payment_id))}


def _threshold(asked: Asked, chains: Mapping[int, Chain]) -> int:
    token = chains[asked.chain_id].token_at(asked.token)
    return 0 if token is None else token.threshold
