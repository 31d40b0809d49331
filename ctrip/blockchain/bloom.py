"""A header's bloom filter of the logs in its block: it may say yes wrongly, and never no (Yellow Paper, 4.3.1)."""

from collections.abc import Iterable

from eth_hash.auto import keccak

_POSITIONS = 2048


def mask(*entries: bytes) -> int:
    """Return the bits that a filter has set where its block holds a log with all of these addresses and topics."""
    bits = 0
    for entry in entries:
        digest = keccak(entry)
        for at in (0, 2, 4):
            bits |= 1 << (int.from_bytes(digest[at : at + 2]) % _POSITIONS)
    return bits


def may_hold(bloom: int, masks: Iterable[int]) -> bool:
    """True where a block with this filter may hold a log of one of `masks`. No bits: no logs."""
    return any(bloom & wanted == wanted for wanted in masks)
