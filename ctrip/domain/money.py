"""Money: base units inside, decimal text at the edge, and nothing else. Never a float."""

import re
from collections.abc import Iterable

from ctrip.errors import InvalidAmount

MAX_AMOUNT = 2**256 - 1
BASIS_POINTS = 10_000
PLAIN_DECIMAL = r"(0|[1-9][0-9]{0,77})(?:\.([0-9]{1,78}))?"
"""What an amount looks like. Python and readers of the OpenAPI document read it alike."""


def parse_amount(text: str, decimals: int, *, of: str = "this asset", param: str = "amount") -> int:
    """Read a plain decimal string such as `"12.50"` into base units. A refusal names `of` what it is, and the `param`.

    Raises InvalidAmount for signs, spaces, exponents, other alphabets' digits, separators, leading zeros,
    zero, more fraction digits than the asset has (even zeros: they promise a precision that is not there),
    and amounts of 2^256 or more.
    """
    match = re.fullmatch(PLAIN_DECIMAL, text, re.ASCII)
    if match is None:
        raise InvalidAmount(f"{text[:100]!r} is no plain decimal amount; write it like '12.50'", param=param)
    whole, fraction = match[1], match[2] or ""
    if len(fraction) > decimals:
        raise InvalidAmount(f"{text!r} has {len(fraction)} digits after the point; {of} has {decimals}", param=param)
    amount = int(whole + fraction.ljust(decimals, "0"))
    if amount == 0:
        raise InvalidAmount("the amount must be greater than zero", param=param)
    if amount > MAX_AMOUNT:
        raise InvalidAmount("the amount does not fit into 256 bits", param=param)
    return amount


def format_amount(amount: int, decimals: int) -> str:
    """Write base units as the shortest exact decimal: 12500000 with 6 decimals is `"12.5"`, 0 is `"0"`."""
    digits = str(amount).rjust(decimals + 1, "0")
    if decimals == 0:
        return digits
    whole, fraction = digits[:-decimals], digits[-decimals:].rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def total(amounts: Iterable[int]) -> int:
    """Return the sum of base units, 2^256 - 1 at the most: a token's logs may say what no balance could hold."""
    return min(MAX_AMOUNT, sum(amounts))


def tolerated(amount: int, tolerance_bps: int) -> int:
    """Return the least amount that passes for `amount` when `tolerance_bps` basis points may be missing.

    Rounded up: the tolerance never gives away more than was said.
    """
    return -(-amount * (BASIS_POINTS - tolerance_bps) // BASIS_POINTS)
