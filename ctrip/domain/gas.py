"""What a transaction may pay for its gas: a first price, a raised one for the same nonce, and the ceiling above both.

Prices are wei per gas. On a chain with EIP-1559 the base fee rises by an eighth per block at the most.
"""

from dataclasses import dataclass, replace

PLAIN_TRANSFER_GAS = 21_000
"""What a transfer of coin to an account without code uses, on chains that count gas as Ethereum does."""


@dataclass(frozen=True)
class Fees:
    """What a transaction costs now, in wei per gas. `base_fee` is None on a chain without EIP-1559."""

    base_fee: int | None
    priority_fee: int
    gas_price: int


@dataclass(frozen=True)
class Price:
    """What a transaction offers, in wei per gas. `priority_fee` is None for a legacy one, whose price is `max_fee`."""

    max_fee: int
    priority_fee: int | None


def price_now(fees: Fees, *, ceiling: int) -> Price | None:
    """Return the price that lasts while the base fee doubles; None where even the current one is above the ceiling.

    What is offered above the base fee and the tip is not spent.
    """
    return _price(fees, None if fees.base_fee is None else 2 * fees.base_fee, ceiling=ceiling)


def exact_price_now(fees: Fees, *, ceiling: int) -> Price | None:
    """Return a price that is spent to the last wei, so that a sweep of coin leaves none; None as in `price_now`.

    The tip is as high as the maximum, so all of it is paid whatever the base fee does. It lasts for two full blocks.
    """
    price = _price(fees, None if fees.base_fee is None else -(-fees.base_fee * 5 // 4), ceiling=ceiling)
    if price is None or price.priority_fee is None:
        return price
    return replace(price, priority_fee=price.max_fee)


def raised(old: Price, now: Price | None, *, ceiling: int) -> Price | None:
    """Return the price of a replacement on the same nonce: an eighth above the old one, or today's if that is more.

    Nodes ask for a tenth on both fees (geth, Erigon), some for an eighth (Nethermind, the former Parity). None where
    the market or the raise is above the ceiling.
    """
    if now is None:
        return None
    max_fee = max(_an_eighth_more(old.max_fee), now.max_fee)
    if max_fee > ceiling:
        return None
    if now.priority_fee is None:
        return Price(max_fee, None)
    old_priority_fee = old.max_fee if old.priority_fee is None else old.priority_fee
    is_exact = old_priority_fee == old.max_fee
    priority_fee = max_fee if is_exact else max(_an_eighth_more(old_priority_fee), now.priority_fee)
    return Price(max_fee, min(priority_fee, max_fee))


def is_taken(price: Price, fees: Fees) -> bool:
    """True where a miner may take a transaction at this price now."""
    return price.max_fee >= (fees.gas_price if fees.base_fee is None else fees.base_fee)


def at_most(price: Price, max_fee: int) -> Price:
    """Return the price, lowered so that it never exceeds `max_fee`."""
    priority_fee = None if price.priority_fee is None else min(price.priority_fee, max_fee)
    return Price(min(price.max_fee, max_fee), priority_fee)


def gas_limit_for(used: int) -> int:
    """Return the limit for a transaction that would use so much now: exactly that for a plain transfer of coin.

    Anything else may find another state when it is mined, and gets a quarter more.
    """
    return used if used <= PLAIN_TRANSFER_GAS else -(-used * 5 // 4)


def _price(fees: Fees, covered_base_fee: int | None, *, ceiling: int) -> Price | None:
    if fees.base_fee is None or covered_base_fee is None:
        gas_price = max(1, fees.gas_price)
        return None if gas_price > ceiling else Price(gas_price, None)
    if fees.base_fee > ceiling:
        return None
    wanted = max(1, covered_base_fee + fees.priority_fee)
    return at_most(Price(wanted, fees.priority_fee), ceiling)


def _an_eighth_more(fee: int) -> int:
    return -(-fee * 9 // 8) + 1
