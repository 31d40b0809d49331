"""Payments are asked for: checked, given an address of their own, and stored with all that follows from it.

    chain, asset, amount, rule ─> index ─> address ─> the payment, and the answer that shows it ─> one statement

Address, payment, event, deliveries and the idempotent answer are stored together, or not at all.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from ctrip.context import Context
from ctrip.database import clock, creating, cursors, idempotency, merchants, payments
from ctrip.database.creating import Kept
from ctrip.domain.chains import Chain, Token
from ctrip.domain.finality import FinalityRule
from ctrip.domain.idempotency import Answer, Once
from ctrip.domain.ids import Prefix
from ctrip.domain.money import parse_amount
from ctrip.domain.payments import Payment, payment_object
from ctrip.domain.prices import Accepted, Asked, Price, asset_of
from ctrip.domain.rates import parse_price
from ctrip.domain.scanning import Cursor
from ctrip.errors import (
    ChainNotReady,
    DestinationRefused,
    IdempotencyInFlight,
    IndexTaken,
    InvalidValue,
    MisconfiguredError,
    TooManyOpen,
    Unavailable,
)
from ctrip.log import get_logger
from ctrip.recent import KEPT_S

log = get_logger()

_COUNTED_EVERY_S = 10.0
"""How often a merchant's open payments are counted at the least."""
_MADE_PER_S = 1_000
"""More than all processes together make for one merchant in a second."""


@dataclass(frozen=True)
class AssetRequest:
    """An asset by its chain's name and its symbol or contract address; without a token the chain's own coin."""

    chain: str
    token: str | None = None


@dataclass(frozen=True)
class AmountRequest:
    """An amount of an asset, as decimal text in its units."""

    asset: AssetRequest
    amount: str


@dataclass(frozen=True)
class PriceRequest:
    """A price as decimal text in a currency of ISO 4217, and the assets in which it may be paid."""

    price: str
    currency: str
    assets: tuple[AssetRequest, ...]


@dataclass(frozen=True)
class PaymentRequest:
    """What a merchant asks for. None leaves the choice to us."""

    of: AmountRequest | PriceRequest
    expires_in: timedelta = timedelta(minutes=30)
    confirmations: int | None = None
    tolerance_bps: int | None = None
    order_id: str | None = None
    customer_email: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    webhook_url: str | None = None


def create(ctx: Context, merchant_id: str, *, request: PaymentRequest, once: Once | None = None) -> Answer:
    """Make a payment with an address of its own, and answer 201 with it.

    With `once`, the answer is stored by the same statement, and given again for 72 hours. Raises InvalidValue,
    InvalidAmount, DestinationRefused, ChainNotReady, TooManyOpen, IdempotencyInFlight, IdempotencyMismatch,
    Unavailable.
    """
    now = ctx.now()
    try:
        open_payments = _open_payments(ctx, merchant_id)
        payment, index, fingerprint = _asked_for(ctx, merchant_id, request)
    except (InvalidValue, DestinationRefused, ChainNotReady, TooManyOpen):
        # What was answered once is answered so again, whatever was configured since.
        replay = None if once is None else _replay(ctx, merchant_id, once)
        if replay is None:
            raise
        return replay
    shown = payment_object(payment, read_block=0)
    answer = Answer(status=201, body=json.dumps(shown, ensure_ascii=False, separators=(",", ":")))
    kept = None if once is None else Kept(once, answer, now)
    try:
        with ctx.sessions.at_once() as session:
            is_made = creating.add(
                session, payment, wallet_fingerprint=fingerprint, index=index, new_id=ctx.new_id, kept=kept
            )
    except IdempotencyInFlight:
        ctx.indexes.give_back(index)
        raise
    except IndexTaken as error:
        ctx.indexes.forget()
        raise Unavailable("the address that was derived is in use; send it once more for another one") from error
    if is_made or once is None:
        open_payments[0] += 1
        chain = None if payment.asked is None else payment.asked.chain
        log.info("payment_created", payment_id=payment.id, chain=chain, merchant_id=merchant_id)
        return answer
    ctx.indexes.give_back(index)
    replay = _replay(ctx, merchant_id, once)
    if replay is None:
        raise IdempotencyInFlight("the answer to this Idempotency-Key is going out of date; send it again")
    return replay


def _asked_for(ctx: Context, merchant_id: str, request: PaymentRequest) -> tuple[Payment, int, bytes]:
    """Return the payment to be stored, the index of its address, and the wallet's fingerprint."""
    asked = price = None
    if isinstance(request.of, PriceRequest):
        price = _price(ctx, request.of, confirmations=request.confirmations)
    else:
        asked = _asked(ctx, request.of, confirmations=request.confirmations)
    if request.webhook_url is not None:
        _check_destination(ctx, request.webhook_url)
    if ctx.wallet is None:
        raise MisconfiguredError("WALLET_XPUB: this process derives no addresses")
    _check_begun(ctx, asked, price)
    tolerance = request.tolerance_bps
    tolerance_bps = _tolerance_bps(ctx, merchant_id) if tolerance is None else tolerance
    index, now = ctx.indexes.take(ctx.sessions), ctx.now() + _clock_ahead(ctx)
    payment = Payment(
        id=ctx.new_id(Prefix.PAYMENT),
        merchant_id=merchant_id,
        asked=asked,
        tolerance_bps=tolerance_bps,
        address=ctx.wallet.address(index),
        order_id=request.order_id,
        customer_email=request.customer_email,
        metadata=dict(request.metadata),
        webhook_url=request.webhook_url,
        created_at=now,
        expires_at=now + request.expires_in,
        price=price,
    )
    return payment, index, ctx.wallet.fingerprint


def _asked(ctx: Context, request: AmountRequest, *, confirmations: int | None) -> Asked:
    chain, token = _asset(ctx, request.asset)
    amount = parse_amount(request.amount, token.decimals)
    rule = _rule(chain, chain.rule_for(token, amount), confirmations)
    return asset_of(chain, token, rule).asking(amount)


def _price(ctx: Context, request: PriceRequest, *, confirmations: int | None) -> Price:
    rates = ctx.settings.rates
    if not rates.sources:
        raise InvalidValue("no prices are told here: the operator has named no RATE_SOURCES", param="price")
    if request.currency not in rates.currencies:
        known = ", ".join(rates.currencies)
        raise InvalidValue(f"this currency has no rates here; the currencies are: {known}", param="price")
    price, accepted = parse_price(request.price, request.currency), dict[tuple[int, bytes], Accepted]()
    for each in request.assets:
        chain, token = _asset(ctx, each, within="assets")
        if not rates.currencies_of(token):
            raise InvalidValue(f"{token.symbol} on {chain.name} has no rates here", param="assets")
        if (chain.chain_id, token.address) in accepted:
            raise InvalidValue(f"{token.symbol} on {chain.name} stands here twice", param="assets")
        rule = _rule(chain, chain.rule, confirmations)
        accepted[chain.chain_id, token.address] = asset_of(chain, token, rule)
    return Price(price, request.currency, tuple(asset.stored() for asset in accepted.values()))


def _open_payments(ctx: Context, merchant_id: str) -> list[int]:
    """Return how many payments of a merchant are open, in a list that whoever makes one more adds to.

    Raises TooManyOpen where there is no place for one more. They are counted once in a second, and in between what this
    process makes: several processes may pass the limit by what they make in a second. Far from the limit they are
    counted less often, for that takes as long as there are many.
    """

    def read() -> list[int]:
        with ctx.sessions.at_once() as session:
            return [payments.count_open(session, merchant_id, most=most)]

    def believed_s(counted: list[int]) -> float:
        return min(_COUNTED_EVERY_S, max(KEPT_S, (most - counted[0]) / _MADE_PER_S))

    most = ctx.settings.max_open_payments
    counted = ctx.recent.get(("open", merchant_id), read, kept_s=believed_s) or [0]
    if counted[0] >= most:
        raise TooManyOpen(f"{most} payments are open, and that is the most; wait until some are paid or expire")
    return counted


def _check_begun(ctx: Context, asked: Asked | None, price: Price | None) -> None:
    """Raise ChainNotReady where a chain on which it may be paid was never read."""
    param, places = ("chain", [asked]) if asked is not None else ("assets", [] if price is None else price.accepted)
    for place in places:
        if not _is_begun(ctx, place.chain_id):
            raise ChainNotReady(f"chain {place.chain} has no start block yet; try again in a moment", param=param)


def _is_begun(ctx: Context, chain_id: int) -> bool:
    def read() -> Cursor | None:
        with ctx.sessions.at_once() as session:
            return cursors.find(session, chain_id)

    return ctx.recent.get(("cursor", chain_id), read) is not None


def _clock_ahead(ctx: Context) -> timedelta:
    """Return how far Postgres's clock, which decides when a deadline is, is ahead of this process's."""

    def read() -> timedelta:
        with ctx.sessions.at_once() as session:
            before, there, after = ctx.now(), clock.read(session), ctx.now()
        return there - before - (after - before) / 2

    return ctx.recent.get("clock", read) or timedelta(0)


def _tolerance_bps(ctx: Context, merchant_id: str) -> int:
    def read() -> int:
        with ctx.sessions.at_once() as session:
            return merchants.tolerance_bps(session, merchant_id)

    return ctx.recent.get(("tolerance", merchant_id), read) or 0


def _replay(ctx: Context, merchant_id: str, once: Once) -> Answer | None:
    with ctx.sessions.at_once() as session:
        return idempotency.find(session, merchant_id, once, now=ctx.now())


def _asset(ctx: Context, request: AssetRequest, *, within: str | None = None) -> tuple[Chain, Token]:
    """Return a chain and its asset. `within` is the field of the body that it stands in."""
    chain = ctx.settings.chain_named(request.chain)
    if chain is None or not chain.enabled:
        known = ", ".join(chain.name for chain in ctx.settings.chains if chain.enabled)
        raise InvalidValue(f"no such chain is enabled here; the chains are: {known}", param=within or "chain")
    token = chain.token(request.token)
    if token is None or not token.is_payable:
        known = ", ".join(token.symbol for token in chain.tokens if token.is_payable)
        raise InvalidValue(
            f"this cannot be asked for on {chain.name}; the assets are: {known}", param=within or "token"
        )
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
