"""Payments as their merchant meets them: asked for, looked at, canceled, accepted.

A creation is one transaction: address, payment, event, deliveries and the idempotent answer are stored together, or not
at all. Every other change of a payment is the listener's and the sweeper's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from ctrip.context import Context
from ctrip.database import cursors, idempotency, merchants, payments, standings
from ctrip.database import events as event_rows
from ctrip.database import transfers as transfer_rows
from ctrip.database import webhooks as delivery_rows
from ctrip.database.standings import Change
from ctrip.domain.chains import Chain, Token
from ctrip.domain.events import EventType, event_object
from ctrip.domain.finality import FinalityRule
from ctrip.domain.idempotency import Answer, Once
from ctrip.domain.ids import Prefix
from ctrip.domain.money import parse_amount
from ctrip.domain.pages import list_object
from ctrip.domain.payments import Payment, Standing, Status, Step, final_amount, payment_object
from ctrip.domain.transfers import transfer_object
from ctrip.domain.webhooks import delivery_object
from ctrip.errors import ChainNotReady, Conflict, InvalidValue, MisconfiguredError, NotFound
from ctrip.log import get_logger

log = get_logger()

_ENDED = (Status.EXPIRED, Status.CANCELED)


@dataclass(frozen=True)
class PaymentRequest:
    """What a merchant asks for. `amount` is decimal text in the asset's units; None leaves the choice to us.

    `token` is a symbol or a contract address; None is the native coin.
    """

    chain: str
    amount: str
    token: str | None = None
    expires_in: timedelta = timedelta(minutes=30)
    confirmations: int | None = None
    tolerance_bps: int | None = None
    order_id: str | None = None
    customer_email: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    webhook_url: str | None = None


def create(ctx: Context, merchant_id: str, *, request: PaymentRequest, once: Once | None = None) -> Answer:
    """Make a payment with an address of its own, and answer 201 with it.

    With `once`, the answer is stored in the same transaction, and given again for 72 hours. Raises InvalidValue,
    InvalidAmount, DestinationRefused, ChainNotReady, IdempotencyInFlight, IdempotencyMismatch, Unavailable.
    """
    now = ctx.now()
    with ctx.sessions.begin() as session:
        if once is not None:
            replay = idempotency.claim(session, merchant_id, once, now=now)
            if replay is not None:
                return replay
        created = _create(ctx, session, merchant_id=merchant_id, request=request)
        answer = Answer(status=201, body=json.dumps(created, ensure_ascii=False, separators=(",", ":")))
        if once is not None:
            idempotency.store(session, merchant_id, once, answer=answer, now=now)
    log.info("payment_created", payment_id=created["id"], chain=created["chain"], merchant_id=merchant_id)
    return answer


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
    return list_object([payment_object(p, read_block=read.get(p.chain_id, 0)) for p in found], limit=limit)


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
        change = Change(canceled, step, _read_block(session, payment.chain_id))
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
        amount = final_amount(payment, tuple(transfer_rows.of_payments(session, [payment_id])[payment_id]))
        if amount == 0:
            raise Conflict("no final transfer in the asset asked for has reached the payment's address")
        payments.store_acceptance(session, payment_id, amount=amount, at=ctx.now())
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


def _create(ctx: Context, session: Connection, *, merchant_id: str, request: PaymentRequest) -> dict[str, object]:
    chain, token = _asset(ctx, request)
    amount = parse_amount(request.amount, token.decimals)
    rule = _rule(chain, chain.rule_for(token, amount), request.confirmations)
    if request.webhook_url is not None:
        _check_destination(ctx, request.webhook_url)
    if ctx.wallet is None:
        raise MisconfiguredError("WALLET_XPUB: this process derives no addresses")
    cursor = cursors.find(session, chain.chain_id)
    if cursor is None:
        raise ChainNotReady(f"chain {chain.name} has no start block yet; try again in a moment", param="chain")
    tolerance = request.tolerance_bps
    index, now = payments.next_index(session)
    payment = Payment(
        id=ctx.new_id(Prefix.PAYMENT),
        merchant_id=merchant_id,
        chain_id=chain.chain_id,
        chain=chain.name,
        token=token.address,
        symbol=token.symbol,
        decimals=token.decimals,
        amount=amount,
        tolerance_bps=merchants.tolerance_bps(session, merchant_id) if tolerance is None else tolerance,
        required=rule.confirmations,
        finality=rule.finality,
        address=ctx.wallet.address(index),
        version=1,
        standing=Standing(),
        confirmed=0,
        canceled_at=None,
        accepted_at=None,
        accepted_amount=None,
        order_id=request.order_id,
        customer_email=request.customer_email,
        metadata=dict(request.metadata),
        webhook_url=request.webhook_url,
        created_at=now,
        expires_at=now + request.expires_in,
    )
    payments.add(
        session,
        payment,
        wallet_fingerprint=ctx.wallet.fingerprint,
        index=index,
        read_block=cursor.read_block,
        new_id=ctx.new_id,
    )
    return payment_object(payment, read_block=cursor.read_block)


def _asset(ctx: Context, request: PaymentRequest) -> tuple[Chain, Token]:
    chain = ctx.settings.chain_named(request.chain)
    if chain is None or not chain.enabled:
        known = ", ".join(chain.name for chain in ctx.settings.chains if chain.enabled)
        raise InvalidValue(f"no such chain is enabled here; the chains are: {known}", param="chain")
    token = chain.token(request.token)
    if token is None or not token.is_payable:
        known = ", ".join(token.symbol for token in chain.tokens if token.is_payable)
        raise InvalidValue(f"this cannot be asked for on {chain.name}; the assets are: {known}", param="token")
    return chain, token


def _rule(chain: Chain, rule: FinalityRule, asked: int | None) -> FinalityRule:
    """Return what makes the amount final: the chain's rule for it, with more confirmations where they are asked for."""
    if asked is None:
        return rule
    if not rule.confirmations <= asked <= chain.reorg_window:
        raise InvalidValue(
            f"{chain.name} allows {rule.confirmations} to {chain.reorg_window} confirmations for this amount",
            param="confirmations",
        )
    return replace(rule, confirmations=asked)


def _check_destination(ctx: Context, url: str) -> None:
    if ctx.poster is None:
        raise MisconfiguredError("this process checks no webhook destinations")
    ctx.poster.check(url, param="webhook_url")


def _find(session: Connection, merchant_id: str, payment_id: str) -> Payment:
    payment = payments.find(session, payment_id, merchant_id=merchant_id)
    if payment is None:
        raise NotFound(f"no payment {payment_id}")
    return payment


def _lock(session: Connection, merchant_id: str, payment_id: str) -> Payment:
    _find(session, merchant_id, payment_id)
    return payments.lock(session, [payment_id], keeps_transfers_out=True)[0]


def _shown(session: Connection, payment: Payment) -> dict[str, object]:
    return payment_object(payment, read_block=_read_block(session, payment.chain_id))


def _read_block(session: Connection, chain_id: int) -> int:
    return _read_blocks(session).get(chain_id, 0)


def _read_blocks(session: Connection) -> dict[int, int]:
    return {chain_id: cursor.read_block for chain_id, cursor in cursors.find_all(session).items()}
