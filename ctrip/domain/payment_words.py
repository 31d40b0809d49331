"""What a payment asks for, and amounts of it, as people read them."""

from ctrip.domain.money import format_amount
from ctrip.domain.payments import Payment


def asked_in_words(payment: Payment) -> str:
    """Say what a payment asks for: `12.5 USDC`, or `49.90 EUR` where no asset was chosen."""
    if payment.asked is not None:
        return amount_in_words(payment, payment.asked.amount)
    return "" if payment.price is None else f"{payment.price.price:f} {payment.price.currency}"


def amount_in_words(payment: Payment, amount: int) -> str:
    """Say an amount of the asset that was asked for."""
    asked = payment.asked
    return str(amount) if asked is None else f"{format_amount(amount, asked.decimals)} {asked.symbol}"
