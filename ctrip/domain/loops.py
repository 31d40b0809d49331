"""Loops: work on a chain that is done over and over, by whoever holds its row's claim."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from ctrip.domain.chains import Chain

BALANCES_EVERY = timedelta(seconds=20)
"""Coin that a contract sent is noticed within so long; a chain of quick blocks makes many of them meanwhile."""


class LoopKind(StrEnum):
    """Each kind is one loop per chain, and one actor."""

    LISTENER = "listener"
    SWEEPER = "sweeper"
    BALANCES = "balances"


@dataclass(frozen=True)
class Tick:
    """What one run of a loop asks its actor to do next.

    `again_in` is None where the claim was not won: the message dies without a successor. `delivery_ids` are webhooks
    that are due now.
    """

    again_in: timedelta | None = None
    delivery_ids: tuple[str, ...] = ()


def period(kind: LoopKind, chain: Chain) -> timedelta:
    """Return the time between two runs of a loop that found nothing left to do."""
    return max(chain.poll, BALANCES_EVERY) if kind is LoopKind.BALANCES else chain.poll
