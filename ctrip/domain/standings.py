"""Where a payment may stand, and the way from one standing to another as events.

pending ──> detected ──> confirmed ──> settled        the amount is in blocks -> final -> in the treasury
   │  └───> expired ────────^                         the merchant accepted what came late, or too little
   └──────> canceled ───────^
any ──> an earlier one                                a reorg took blocks away: payment.reverted
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ctrip.domain.events import EventType


class Status(StrEnum):
    """detected: the full amount is in blocks; confirmed: it is final, ship the goods; settled: in the treasury."""

    PENDING = "pending"
    DETECTED = "detected"
    CONFIRMED = "confirmed"
    SETTLED = "settled"
    EXPIRED = "expired"
    CANCELED = "canceled"


class AmountStatus(StrEnum):
    """All canonical transfers in the asset asked for, against the amount."""

    NONE = "none"
    PARTIAL = "partial"
    EXACT = "exact"
    OVER = "over"


class Timing(StrEnum):
    """By the block time of the transfer that completed the amount."""

    ON_TIME = "on_time"
    LATE = "late"


class Settlement(StrEnum):
    """What the sweeper makes of the money."""

    NONE = "none"
    WAITING = "waiting"
    BELOW_THRESHOLD = "below_threshold"
    HELD = "held"
    DONE = "done"


OPEN = (Status.PENDING, Status.DETECTED)
_LADDER = (Status.PENDING, Status.DETECTED, Status.CONFIRMED, Status.SETTLED)
_ENDED = (Status.EXPIRED, Status.CANCELED)
_PAID = (Status.CONFIRMED, Status.SETTLED)
_CLIMB = {
    Status.DETECTED: EventType.PAYMENT_DETECTED,
    Status.CONFIRMED: EventType.PAYMENT_CONFIRMED,
    Status.SETTLED: EventType.PAYMENT_SETTLED,
    Status.EXPIRED: EventType.PAYMENT_EXPIRED,
    Status.CANCELED: EventType.PAYMENT_CANCELED,
}

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.DETECTED, Status.EXPIRED, Status.CANCELED}),
    Status.DETECTED: frozenset({Status.CONFIRMED, Status.PENDING}),
    Status.CONFIRMED: frozenset({Status.SETTLED, Status.DETECTED, Status.PENDING, Status.EXPIRED, Status.CANCELED}),
    Status.SETTLED: frozenset({Status.CONFIRMED, Status.DETECTED, Status.PENDING, Status.EXPIRED, Status.CANCELED}),
    Status.EXPIRED: frozenset({Status.CONFIRMED, Status.PENDING}),
    Status.CANCELED: frozenset({Status.CONFIRMED}),
}
"""Every arrow a status may take. `confirmed` and `settled` lead back to an ended state only where the merchant's
acceptance had lifted them out of it and a reorg took the accepted money."""


@dataclass(frozen=True)
class Standing:
    """Where a payment stands: everything that `assess` decides.

    `completed_block` holds the transfer that completed the amount; None until one did. Where a reorg moves it to
    another block, its confirmations change, but the payment does not: two standings may differ in it and be equal.
    """

    status: Status = Status.PENDING
    received: int = 0
    amount_status: AmountStatus = AmountStatus.NONE
    timing: Timing | None = None
    settlement: Settlement = Settlement.NONE
    completed_block: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Step:
    """One stored change of a payment and the one event that tells of it."""

    event: EventType
    standing: Standing


def steps(old: Standing, new: Standing, *, is_accepted: bool = False) -> Iterator[Step]:
    """Tell the way from one standing to another as stored changes, each with its one event; none where nothing changed.

    Money is told before the deadline that it came before, and before the acceptance that it restores; what came too
    late is told after the end that it came after.
    """
    arrows = tuple(_climb(old.status, new.status, is_accepted=is_accepted))
    came_late, is_paid = _came_late(old, new), new.status in _PAID
    at = old
    if arrows and (_is_part_payment(old, new) or (came_late and is_paid)):
        at = replace(new, status=old.status, settlement=old.settlement)
        yield Step(_unmoved(old, at), at)
    for event, status in arrows:
        money = at if came_late and not is_paid else new
        is_there = status is new.status and money is new
        at = new if is_there else _between(money, status=status, settlement=at.settlement)
        yield Step(event, at)
    if at != new:
        yield Step(_unmoved(at, new), new)


def _between(money: Standing, *, status: Status, settlement: Settlement) -> Standing:
    """Say what stands between two standings: nothing in it contradicts its status."""
    settlement = Settlement.NONE if status in OPEN else settlement
    was_on_time = status in (Status.PENDING, Status.EXPIRED) and money.timing is Timing.ON_TIME
    return replace(money, status=status, settlement=settlement, timing=None if was_on_time else money.timing)


def _climb(old: Status, new: Status, *, is_accepted: bool) -> Iterator[tuple[EventType, Status]]:
    """Tell the arrows from one status to another, one event each."""
    if old is new:
        return
    if is_accepted and old in _ENDED and new in _PAID:
        yield EventType.PAYMENT_ACCEPTED, Status.CONFIRMED
        yield from _climb(Status.CONFIRMED, new, is_accepted=is_accepted)
    elif is_accepted and old in _PAID and new in _ENDED:
        yield EventType.PAYMENT_REVERTED, new
    elif old is Status.PENDING and new in _ENDED:
        yield _CLIMB[new], new
    elif old in _ENDED or new in _ENDED:
        yield EventType.PAYMENT_REVERTED, Status.PENDING
        yield from _climb(Status.PENDING, new, is_accepted=is_accepted)
    elif _LADDER.index(new) < _LADDER.index(old):
        yield EventType.PAYMENT_REVERTED, new
    else:
        for status in _LADDER[_LADDER.index(old) + 1 : _LADDER.index(new) + 1]:
            yield _CLIMB[status], status


def _is_part_payment(old: Standing, new: Standing) -> bool:
    """True where more money came and it is still not enough."""
    return new.received > old.received and new.timing is None


def _came_late(old: Standing, new: Standing) -> bool:
    """True where the amount was completed too late, or money reached a canceled payment."""
    to_canceled = Status.CANCELED in (old.status, new.status) and new.received > old.received
    return to_canceled or (new.timing is Timing.LATE and old.timing is not Timing.LATE)


def _unmoved(old: Standing, new: Standing) -> EventType:
    """Name the event for a change that is not, or not only, one of status."""
    if _came_late(old, new):
        return EventType.PAYMENT_LATE
    if _is_part_payment(old, new):
        return EventType.PAYMENT_PARTIALLY_PAID
    return EventType.PAYMENT_REVERTED if new.received < old.received else EventType.PAYMENT_UPDATED
