"""Prices in fiat become amounts: what each accepted asset would cost, and the choice of one.

    payment without an asset ─> quotes ─> choose: the rate, the amount and the deadline, stored under its lock

Rates are those that the scheduler stored; nobody is asked here.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from ctrip.context import Context
from ctrip.database import clock, cursors, payments, rates, standings
from ctrip.database import prices as price_rows
from ctrip.database.standings import Change
from ctrip.domain.chains import Chain, Token
from ctrip.domain.events import EventType
from ctrip.domain.money import format_amount
from ctrip.domain.pages import whole_list
from ctrip.domain.payments import Payment, Status, Step, payment_object
from ctrip.domain.prices import Accepted, Asked, Choice, Price, asset_object, asset_of, counts_after, quote_of
from ctrip.domain.rates import Rate, agree, amount_atomic
from ctrip.errors import Conflict, InvalidAmount, InvalidValue, NotFound, RateUnavailableError
from ctrip.log import get_logger

log = get_logger()


@dataclass(frozen=True)
class Offer:
    """An accepted asset as it is configured now, and what of it the price asks for at a rate."""

    chain: Chain
    token: Token
    rate: Rate
    amount: int


def quotes(ctx: Context, merchant_id: str, payment_id: str) -> dict[str, object]:
    """Return what each accepted asset would cost just now, in the merchant's order. Nothing is locked by it.

    Raises NotFound, and Conflict where the payment has no price to choose an asset for, or not any more.
    """
    with ctx.sessions.begin() as session:
        payment, now = _find(session, merchant_id, payment_id), clock.read(session)
        price = _open_price(payment, now)
        shown = [_quote(ctx, session, price, asset, now) for asset in price.accepted]
    return whole_list(shown)


def choose(ctx: Context, merchant_id: str, payment_id: str, *, chain: str, token: str | None) -> dict[str, object]:
    """Choose the asset of a payment that asks for a price: its rate is locked until the new `expires_at`.

    `token` is a symbol or a contract address; None is the chain's own coin. Raises NotFound, Conflict where it was
    chosen before or the payment is over, InvalidValue, InvalidAmount, RateUnavailableError.
    """
    with ctx.sessions.begin() as session:
        _find(session, merchant_id, payment_id)
        payment = payments.lock(session, [payment_id], keeps_transfers_out=True)[0]
        now = clock.read(session)
        price = _open_price(payment, now)
        asset = _accepted(ctx, price, chain=chain, token=token)
        offer = _offer(ctx, session, price, asset, now)
        newest = price_rows.newest_transfer_time(session, payment_id, asset, now=now)
        chosen = replace(
            payment,
            asked=_asked(asset, offer),
            choice=Choice(now, counts_after(now, stored=newest), quote_of(offer.rate)),
            expires_at=min(payment.expires_at, now + ctx.settings.rates.quote),
        )
        price_rows.store_choice(session, chosen)
        cursor = cursors.find(session, asset.chain_id)
        read_block = 0 if cursor is None else cursor.read_block
        step = Step(EventType.PAYMENT_UPDATED, payment.standing)
        [moved], _ = standings.move(session, [Change(chosen, step, read_block)], new_id=ctx.new_id)
        shown = payment_object(moved, read_block=read_block)
    log.info("payment_chosen", payment_id=payment_id, chain=asset.chain, token=asset.symbol, merchant_id=merchant_id)
    return shown


def watch_served(ctx: Context) -> int:
    """Let payments without an asset wait for chains that are served alone. Returns how many waited for another one."""
    served = [chain.chain_id for chain in ctx.settings.chains if chain.enabled]
    with ctx.sessions.begin() as session:
        return payments.watch_served(session, served)


def _find(session: Connection, merchant_id: str, payment_id: str) -> Payment:
    payment = payments.find(session, payment_id, merchant_id=merchant_id)
    if payment is None:
        raise NotFound(f"no payment {payment_id}")
    return payment


def _open_price(payment: Payment, now: datetime) -> Price:
    """Return the price for which an asset may be chosen. Raises Conflict where there is none, or none any more."""
    if payment.price is None:
        raise Conflict("the payment asks for an amount of an asset; there is nothing to choose")
    if payment.asked is not None:
        raise Conflict(f"{payment.asked.symbol} on {payment.asked.chain} was chosen already, and is locked")
    if payment.standing.status is not Status.PENDING:
        raise Conflict(f"the payment is {payment.standing.status}; only for a pending one can an asset be chosen")
    # It expires when all of its chains were read so far; who chooses has no time left to pay before that.
    if now >= payment.expires_at:
        raise Conflict("the payment's deadline has passed; ask for another one")
    return payment.price


def _accepted(ctx: Context, price: Price, *, chain: str, token: str | None) -> Accepted:
    named = ctx.settings.chain_named(chain)
    wanted = None if named is None else named.token(token)
    if named is not None and wanted is not None:
        for asset in price.accepted:
            if (asset.chain_id, asset.token) == (named.chain_id, wanted.address):
                return asset
    known = ", ".join(f"{asset.symbol} on {asset.chain}" for asset in price.accepted)
    raise InvalidValue(f"this asset is not accepted for the payment; the assets are: {known}", param="token")


def _offer(ctx: Context, session: Connection, price: Price, asset: Accepted, now: datetime) -> Offer:
    """Raises InvalidValue where the asset is not served any more, InvalidAmount, RateUnavailableError."""
    chain = ctx.settings.chain(asset.chain_id)
    token = None if chain is None else chain.token_at(asset.token)
    if chain is None or token is None or not (chain.enabled and token.is_payable):
        raise InvalidValue(f"{asset.symbol} on {asset.chain} is not served any more; choose another", param="token")
    told = rates.read(session, token, price.currency)
    pair = f"{token.symbol} of {chain.name} in {price.currency}"
    rate = agree(told, ctx.settings.rates.policy.of(token), now, pair=pair)
    return Offer(chain, token, rate, amount_atomic(price.price, rate.rate, token.decimals))


def _asked(asset: Accepted, offer: Offer) -> Asked:
    rule = offer.chain.rule_for(offer.token, offer.amount)
    # More may have been asked for than the amount needs.
    rule = replace(rule, confirmations=max(rule.confirmations, asset.required))
    return asset_of(offer.chain, offer.token, rule).asking(offer.amount)


def _quote(ctx: Context, session: Connection, price: Price, asset: Accepted, now: datetime) -> dict[str, object]:
    """Render what an asset would cost; where it has no price just now, why."""
    amounts: dict[str, object]
    try:
        offer = _offer(ctx, session, price, asset, now)
    except (InvalidValue, InvalidAmount, RateUnavailableError) as error:
        amounts = {"amount": None, "amount_atomic": None, "rate": None, "as_of": None, "unavailable": error.detail}
    else:
        quote = quote_of(offer.rate)
        amounts = {
            "amount": format_amount(offer.amount, offer.token.decimals),
            "amount_atomic": str(offer.amount),
            "rate": quote["rate"],
            "as_of": quote["as_of"],
            "unavailable": None,
        }
    return {"object": "quote", **asset_object(asset), **amounts}
