"""Payments as their merchant meets them: looked at, canceled, accepted; `creating` makes them.

Every other change of a payment is the listener's and the sweeper's.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from ctrip.context import Context
from ctrip.database import cursors, payments, standings
from ctrip.database import events as event_rows
from ctrip.database import transfers as transfer_rows
from ctrip.database import webhooks as delivery_rows
from ctrip.database.standings import Change
from ctrip.domain.events import EventType, event_object
from ctrip.domain.pages import list_object
from ctrip.domain.payments import Payment, Status, Step, final_amount, no_longer_needed, payment_object
from ctrip.domain.transfers import transfer_object
from ctrip.domain.webhooks import delivery_object
from ctrip.errors import (
    Conflict,
    NotFound,
)
from ctrip.log import get_logger

log = get_logger()

_ENDED = (Status.EXPIRED, Status.CANCELED)


def find(ctx: Context, merchant_id: str, payment_id: str) -> dict[str, object]:
    """Return a payment of a merchant. Raises NotFound."""
    with ctx.sessions.begin() as session:
        return _shown(session, _find(session, merchant_id, payment_id))


def matching(
    ctx: Context, merchant_id: str, *, filters: Mapping[str, Any], limit: int, after: str | None = None
) -> dict[str, object]:
    """Return a page of a merchant's payments, newest first. `filters` are those of the query of that name."""
    with ctx.sessions.begin() as session:
        found = payments.matching(session, merchant_id, filters=filters, limit=limit + 1, after=after)
        read = _read_blocks(session)
    return list_object([payment_object(p, read_block=_read_block(p, read)) for p in found], limit=limit)


def cancel(ctx: Context, merchant_id: str, payment_id: str) -> dict[str, object]:
    """Cancel a pending payment to which nothing was paid. Raises NotFound, and Conflict where that is not so."""
    with ctx.sessions.begin() as session:
        payment = _lock(session, merchant_id, payment_id)
        if payment.standing.status is not Status.PENDING:
            raise Conflict(f"the payment is {payment.standing.status}; only a pending one can be canceled")
        # A transfer's foreign key needs a lock that ours excludes. So either the listener stored it before we got the
        # row, and this younger statement sees it, or it waits, and then finds the payment canceled.
        if transfer_rows.exist(session, payment_id):
            raise Conflict("a transfer to the payment's address is stored; it cannot be canceled any more")
        step = Step(EventType.PAYMENT_CANCELED, replace(payment.standing, status=Status.CANCELED))
        canceled = replace(payment, canceled_at=ctx.now())
        change = Change(canceled, step, _read_block(payment, _read_blocks(session)))
        [moved], _ = standings.move(session, [change], new_id=ctx.new_id)
        shown = _shown(session, moved)
    log.info("payment_canceled", payment_id=payment_id, merchant_id=merchant_id)
    return shown


def accept(ctx: Context, merchant_id: str, payment_id: str) -> dict[str, object]:
    """Take what is final at an expired or canceled payment as good. Raises NotFound, and Conflict where nothing is.

    The acceptance is stored first, as a fact; the assessment of the facts then makes of it what it makes of all.
    """
    with ctx.sessions.begin() as session:
        payment = _lock(session, merchant_id, payment_id)
        if payment.standing.status not in _ENDED:
            raise Conflict(f"the payment is {payment.standing.status}; only an expired or canceled one can be accepted")
        arrived = tuple(transfer_rows.of_payments(session, [payment_id])[payment_id])
        amount = final_amount(payment, arrived)
        if amount == 0:
            raise Conflict("no final transfer in the asset asked for has reached the payment's address")
        accepted = replace(payment, accepted_at=ctx.now(), accepted_amount=amount)
        payments.store_acceptance(session, accepted, not_needed=no_longer_needed(accepted, arrived))
        chains = ctx.settings.chains_by_id
        payments.reassess(session, [payment_id], chains=chains, new_id=ctx.new_id)
        accepted = _find(session, merchant_id, payment_id)
        if accepted.standing.status in _ENDED:
            raise Conflict("the payment's chain is not configured here, so nothing can be said of its money")
        shown = _shown(session, accepted)
    log.info("payment_accepted", payment_id=payment_id, merchant_id=merchant_id, status=shown["status"])
    return shown


def transfers(
    ctx: Context, merchant_id: str, payment_id: str, *, limit: int, after: str | None = None
) -> dict[str, object]:
    """Return a page of what reached a payment's address, in the order of the blocks. Raises NotFound."""
    with ctx.sessions.begin() as session:
        _find(session, merchant_id, payment_id)
        found = transfer_rows.page(session, payment_id, limit=limit + 1, after=after)
        read = _read_blocks(session)
    return list_object([transfer_object(t, read_block=read.get(t.chain_id, 0)) for t in found], limit=limit)


def events(
    ctx: Context, merchant_id: str, payment_id: str, *, limit: int, after: str | None = None
) -> dict[str, object]:
    """Return a page of a payment's events, oldest first. Raises NotFound."""
    with ctx.sessions.begin() as session:
        _find(session, merchant_id, payment_id)
        found = event_rows.of_payment(session, payment_id, limit=limit + 1, after=after)
    return list_object([event_object(event) for event in found], limit=limit)


def deliveries(
    ctx: Context, merchant_id: str, payment_id: str, *, limit: int, after: str | None = None
) -> dict[str, object]:
    """Return a page of the webhook deliveries of a payment's events, in the events' order. Raises NotFound."""
    with ctx.sessions.begin() as session:
        _find(session, merchant_id, payment_id)
        found = delivery_rows.of_payment(session, payment_id, limit=limit + 1, after=after)
    return list_object([delivery_object(delivery, attempts) for delivery, attempts in found], limit=limit)


def _find(session: Connection, merchant_id: str, payment_id: str) -> Payment:
    payment = payments.find(session, payment_id, merchant_id=merchant_id)
    if payment is None:
        raise NotFound(f"no payment {payment_id}")
    return payment


def _lock(session: Connection, merchant_id: str, payment_id: str) -> Payment:
    _find(session, merchant_id, payment_id)
    return payments.lock(session, [payment_id], keeps_transfers_out=True)[0]


def _shown(session: Connection, payment: Payment) -> dict[str, object]:
    return payment_object(payment, read_block=_read_block(payment, _read_blocks(session)))


def _read_block(payment: Payment, read: Mapping[int, int]) -> int:
    return 0 if payment.asked is None else read.get(payment.asked.chain_id, 0)


def _read_blocks(session: Connection) -> dict[int, int]:
    return {chain_id: cursor.read_block for chain_id, cursor in cursors.find_all(session).items()}
