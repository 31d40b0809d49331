"""Addresses and hashes: bytes inside, `0x` text at the edge."""

from functools import lru_cache

from eth_hash.auto import keccak

from ctrip.errors import InvalidValue

ADDRESS_BYTES = 20
NATIVE = bytes(ADDRESS_BYTES)
"""Stands where a token address would, for the chain's own coin."""
COIN_LOGGER = bytes.fromhex("ff" * 19 + "fe")
"""Stands where a token address would in the logs of the chain's own coin (EIP-7708)."""

DEPOSIT_BRANCH = "m/44'/60'/0'/0"
"""BIP-44: the account is hardened, so that its public key alone derives every deposit address below it."""


@lru_cache(maxsize=16_384)
def checksum_address(address: bytes) -> str:
    """Write an address with the mixed-case checksum of EIP-55."""
    text = address.hex()
    digest = keccak(text.encode()).hex()
    cases = zip(text, text.upper(), digest, strict=False)
    return "0x" + "".join([upper if nibble > "7" else lower for lower, upper, nibble in cases])


def parse_address(text: str, *, param: str | None = None) -> bytes:
    """Read `0x` and 40 hex digits; where the case is mixed it must be the checksum of EIP-55.

    Raises InvalidValue.
    """
    digits = text[2:] if text.startswith("0x") else ""
    if len(digits) != 2 * ADDRESS_BYTES or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise InvalidValue(f"{text[:60]!r} is no address; it is 0x and 40 hex digits", param=param)
    address = bytes.fromhex(digits)
    one_case = digits in (digits.lower(), digits.upper())
    if not one_case and checksum_address(address) != text:
        raise InvalidValue(f"{text!r} has a wrong checksum (EIP-55): a digit is mistyped", param=param)
    return address


def hex_text(value: bytes) -> str:
    """Write a hash or other bytes as lower-case `0x` text."""
    return "0x" + value.hex()
