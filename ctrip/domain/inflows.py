"""Coin that no transaction explains: what follows from a balance, and from a transfer that explains it later.

    the balance is what the rows say        nothing
    it is more                              an inflow of the difference; it is inferred, or told by a trace
    it is less                              a mismatch: rows or node are wrong, and nothing is credited for it

    a transfer turns up, at or before the block of an inflow
                                            the inflow is superseded by as much, never added to; its rest stands
    a log of coin turns up, and its transaction was a transfer already
                                            that one is superseded

A contract (a Safe, an exchange's batch), a block's reward and a withdrawal bring coin without a transaction to the
address and without a log. Amounts are wei.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from ctrip.domain.transfers import INTERNAL_LOG_INDEX


class Place(NamedTuple):
    """An address and the number of the block after which its balance is looked at."""

    address: bytes
    block: int


@dataclass(frozen=True)
class Hop:
    """Coin that moved inside of a transaction. `position` counts the transaction's hops, in their order."""

    tx_hash: bytes
    position: int
    sender: bytes
    recipient: bytes
    amount: int


@dataclass(frozen=True)
class Coin:
    """Coin that a transfer brought. `tx_hash` is None where it was inferred from a balance at `block`."""

    transfer_id: str
    recipient: bytes
    block: int
    amount: int
    tx_hash: bytes | None
    log_index: int

    @property
    def is_internal(self) -> bool:
        """True where a balance showed it, and a trace at the most."""
        return self.log_index <= INTERNAL_LOG_INDEX

    @property
    def teller(self) -> int:
        """What told of it: a balance, the transaction itself, or a log."""
        return max(INTERNAL_LOG_INDEX, min(self.log_index, 0))


@dataclass(frozen=True)
class Search:
    """The search for the first block that holds a whole inflow: it comes after `low`, and `high` holds it."""

    low: int
    high: int

    @property
    def is_over(self) -> bool:
        """True where `high` is that block."""
        return self.high - self.low <= 1

    @property
    def middle(self) -> int:
        """The block to look at next."""
        return (self.low + self.high) // 2

    def told(self, *, holds_it: bool) -> "Search":
        """Go on with what `middle` was found to hold."""
        return Search(self.low, self.middle) if holds_it else Search(self.middle, self.high)


_MEANT: tuple[Callable[[Coin, Coin], bool], ...] = (
    lambda new, was: new.tx_hash == was.tx_hash and new.teller != was.teller,
    lambda new, was: was.tx_hash is None and new.block <= was.block,
    lambda new, was: was.is_internal and new.block <= was.block,
)
"""Which transfers a newly known one is taken for, the likeliest ones first."""


def explained_by(hops: Iterable[Hop], *, recipient: bytes, inflow: int) -> list[Hop]:
    """Return the hops to `recipient` that explain an inflow of so much; none where they are more than came in.

    What they leave of it is inferred: a block's reward is in no trace.
    """
    ours = [hop for hop in hops if hop.recipient == recipient]
    return ours if sum(hop.amount for hop in ours) <= inflow else []


def superseded(standing: Iterable[Coin], by: Iterable[Coin], *, instead_of: Iterable[Coin] = ()) -> dict[str, int]:
    """Return what is left of transfers that newly known ones explain, by their ids; others are left out.

    What a trace, a log and the transaction itself tell of one transaction is the same coin. Internal transfers are all
    that a balance held besides what was known, so they give way to whatever turns up at or before their block: inferred
    ones first, then any, the oldest first. What turns up `instead_of` a transfer that was known, and is none, brings
    only as much as it is larger. What is left is inferred, and stands once for each block.
    """
    known, new, gone = _parts(standing), _parts(by), _parts(instead_of)
    _take(gone, new, where=lambda was, now: was.block <= now.block)
    for is_meant in _MEANT:
        _take(new, known, where=is_meant)
    for parts in known.values():
        _fold(parts)
    return {part.of.transfer_id: part.left for parts in known.values() for part in parts if part.is_changed}


@dataclass
class _Part:
    """What is left of some coin."""

    of: Coin
    left: int

    @property
    def is_changed(self) -> bool:
        return self.left != self.of.amount


def _parts(coins: Iterable[Coin]) -> dict[bytes, list[_Part]]:
    """Return coins by their recipients, the oldest first."""
    parts: dict[bytes, list[_Part]] = defaultdict(list)
    for coin in sorted(coins, key=lambda one: one.block):
        parts[coin.recipient].append(_Part(coin, coin.amount))
    return parts


def _take(
    takers: Mapping[bytes, list[_Part]], givers: Mapping[bytes, list[_Part]], *, where: Callable[[Coin, Coin], bool]
) -> None:
    for recipient, parts in takers.items():
        for taker, giver in product(parts, givers.get(recipient, ())):
            if where(taker.of, giver.of):
                taken = min(taker.left, giver.left)
                taker.left -= taken
                giver.left -= taken


def _fold(parts: list[_Part]) -> None:
    """Add what is left of traced coin to what was inferred at the same block, or to the first of it."""
    for each in parts:
        if each.is_changed and each.left and each.of.tx_hash is not None:
            here = [part for part in parts if part.of.block == each.of.block]
            heirs = [part for part in here if part.of.tx_hash is None] or [part for part in here if part.is_changed]
            left, each.left = each.left, 0
            heirs[0].left += left
