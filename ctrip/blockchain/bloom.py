"""A header's bloom filter of the logs in its block: it may say yes wrongly, and never no (Yellow Paper, 4.3.1)."""

from collections.abc import Iterable
from functools import lru_cache

from eth_hash.auto import keccak

_POSITIONS = 2048
_FULL = (1 << _POSITIONS) - 1


@lru_cache(maxsize=4096)
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


def is_told(bloom: int) -> bool:
    """True where the filter tells anything: some chains leave it empty in every block, some set all of its bits."""
    return 0 < bloom < _FULL


def chance_of_yes(bloom: int, contracts: int) -> float:
    """Return how likely this filter says yes to one of so many contracts that have no log in its block.

    Only the three bits of a contract's address are reckoned with: those of the topic are mostly set by others. Of 2,048
    bits 50 different addresses and topics set 7 %, 400 set 44 %, and the 800 of a block with 400 logs 70 %: yes is said
    wrongly to 0.04 %, 9 % and 34 % of contracts.
    """
    share = bloom.bit_count() / _POSITIONS
    return contracts * share * share * share
