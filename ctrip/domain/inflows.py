"""Coin that no transaction explains: what follows from a balance, and from a transfer that explains it later.

    the balance is what the rows say        nothing
    it is more                              an inflow of the difference; it is inferred, or told by a trace
    it is less                              a mismatch: rows or node are wrong, and nothing is credited for it

    a transfer turns up, at or before the block of an inferred inflow
                                            the inflow is superseded by as much, never added to; its rest stands

A contract (a Safe, an exchange's batch), a block's reward and a withdrawal bring coin without a transaction to the
address and without a log. Amounts are wei.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


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
class Inferred:
    """A canonical transfer that was inferred from a balance at `block`."""

    transfer_id: str
    recipient: bytes
    block: int
    amount: int


@dataclass(frozen=True)
class Explanation:
    """A transfer that was not known when balances were looked at."""

    recipient: bytes
    block: int
    amount: int


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


def explained_by(hops: Iterable[Hop], *, recipient: bytes, inflow: int) -> list[Hop]:
    """Return the hops to `recipient` that explain an inflow of so much; none where they are more than came in.

    What they leave of it is inferred: a block's reward is in no trace.
    """
    ours = [hop for hop in hops if hop.recipient == recipient]
    return ours if sum(hop.amount for hop in ours) <= inflow else []


def superseded(standing: Sequence[Inferred], by: Sequence[Explanation]) -> dict[str, int]:
    """Return what is left of inferred transfers that newly known ones explain, by their ids; the others are left out.

    The oldest that a transfer can be part of is taken first.
    """
    left = {each.transfer_id: each.amount for each in standing}
    for explanation in sorted(by, key=lambda one: one.block):
        unexplained = explanation.amount
        for each in sorted(standing, key=lambda one: one.block):
            if each.recipient == explanation.recipient and each.block >= explanation.block:
                taken = min(left[each.transfer_id], unexplained)
                left[each.transfer_id] -= taken
                unexplained -= taken
    return {each.transfer_id: left[each.transfer_id] for each in standing if left[each.transfer_id] < each.amount}
