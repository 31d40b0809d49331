"""Loops: work on a chain that is done over and over, by whoever holds its row's claim."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class LoopKind(StrEnum):
    """Each kind is one loop per chain, and one actor."""

    LISTENER = "listener"
    SWEEPER = "sweeper"


@dataclass(frozen=True)
class Tick:
    """What one run of a loop asks its actor to do next.

    `again_in` is None where the claim was not won: the message dies without a successor. `delivery_ids` are webhooks
    that are due now.
    """

    again_in: timedelta | None = None
    delivery_ids: tuple[str, ...] = ()
