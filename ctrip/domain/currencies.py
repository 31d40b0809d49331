"""Currencies by their codes: the table is that of ISO 4217, which the library `iso4217` carries and follows."""

from ctrip.errors import InvalidValue


def minor_digits(code: str) -> int:
    """Return how many digits after the point amounts of a currency have: 2 for EUR, 0 for JPY, 3 for KWD.

    Raises InvalidValue for what is no code of ISO 4217 as it is written there, and for those of the list that no price
    is told in: gold, drawing rights, testing.
    """
    # Its table costs 5 MB: only where prices are asked for.
    from iso4217 import Currency  # noqa: PLC0415 (as said)

    try:
        digits = Currency(code).exponent
    except ValueError:
        digits = None
    if digits is None:
        raise InvalidValue(f"{code[:20]!r} is no currency of ISO 4217, such as EUR", param="price")
    return digits
