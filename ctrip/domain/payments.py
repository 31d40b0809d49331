"""Payments: what is asked for, and `assess`, one pure function over facts that says where a payment stands.

No clock: only blocks that were read can expire anything. How it gets there is told in `standings`. Amounts are base
units.
"""

from dataclasses import dataclass, field
from datetime import datetime

from ctrip.domain.addresses import NATIVE, checksum_address
from ctrip.domain.money import format_amount, tolerated, total
from ctrip.domain.prices import Asked, Choice, Price, asset_object, price_object, quote_object
from ctrip.domain.standings import (
    OPEN,
    TRANSITIONS,
    AmountStatus,
    Settlement,
    Standing,
    Status,
    Step,
    Timing,
    steps,
)
from ctrip.domain.times import timestamp
from ctrip.domain.transfers import Reason, Transfer, TransferStatus, Verdict, judge, judge_unchosen

__all__ = [
    "TRANSITIONS",
    "AmountStatus",
    "Assessment",
    "Facts",
    "Payment",
    "Settlement",
    "Standing",
    "Status",
    "Step",
    "Timing",
    "assess",
    "final_amount",
    "no_longer_needed",
    "payment_object",
    "steps",
]


@dataclass(frozen=True)
class Payment:
    """A payment; its defaults are those of one that was just asked for.

    `asked` is None, and `price` is not, until an asset was chosen. Amounts are base units of its token;
    `accepted_amount` is what was final when it was accepted. `confirmed` is the final part of `standing.received`.
    """

    id: str
    merchant_id: str
    asked: Asked | None
    tolerance_bps: int
    address: bytes
    order_id: str | None
    customer_email: str | None
    metadata: dict[str, object]
    webhook_url: str | None
    created_at: datetime
    expires_at: datetime
    version: int = 1
    standing: Standing = field(default_factory=Standing)
    confirmed: int = 0
    canceled_at: datetime | None = None
    accepted_at: datetime | None = None
    accepted_amount: int | None = None
    detected_at: datetime | None = None
    confirmed_at: datetime | None = None
    settled_at: datetime | None = None
    price: Price | None = None
    choice: Choice | None = None

    @property
    def chain_id(self) -> int | None:
        """The chain that it is asked for on; None until an asset was chosen."""
        return None if self.asked is None else self.asked.chain_id

    @property
    def target(self) -> int | None:
        """The base units that complete this payment: the amount less the tolerance, or what was accepted of less."""
        return None if self.asked is None else _target(self, self.asked)


@dataclass(frozen=True)
class Facts:
    """What is known of a payment's chain, read from rows that one transaction stored.

    Deadlines before `passed_time` have passed: it is the time of the newest block that is final by the payment's rule,
    as far as that is not one endpoint's word alone (None where it was never read); until an asset is chosen, that of
    the accepted chain that is farthest behind. `covered` is what final sweeps took of the asset; `threshold` the least
    that is worth a sweep.
    """

    passed_time: datetime | None
    covered: int = 0
    is_sweep_held: bool = False
    threshold: int = 0


@dataclass(frozen=True)
class Assessment:
    """The verdict: where the payment stands, how much of it is final, and which transfers count."""

    standing: Standing
    confirmed: int
    verdicts: tuple[Verdict, ...]


def assess(payment: Payment, transfers: tuple[Transfer, ...], facts: Facts) -> Assessment:
    """Say where a payment stands, given all transfers to its address and the facts of its chain.

    What is final the transfers themselves say, by their status.
    """
    asked, verdicts = payment.asked, _judged(payment, transfers)
    if asked is None:
        return Assessment(Standing(status=_unpaid_status(payment, facts)), confirmed=0, verdicts=verdicts)
    target = _target(payment, asked)
    ours = [verdict.transfer for verdict in verdicts if _is_in_asset(verdict)]
    received = total(transfer.amount for transfer in ours)
    timing, final_timing = _timing(payment, asked, ours), _timing(payment, asked, _final(ours))
    needed, enough = _needed(ours, target), _needed(_final(ours), target)
    status = _status(payment, facts, timing=timing, final_timing=final_timing, is_final=bool(enough))
    completed = enough if status is Status.CONFIRMED else needed
    final = [verdict for verdict in verdicts if verdict.transfer.status is TransferStatus.FINAL]
    credited = total(verdict.transfer.amount for verdict in final if verdict.counts)
    confirmed = total(verdict.transfer.amount for verdict in final if _is_in_asset(verdict))
    settlement = _settlement(status, facts, credited=credited, confirmed=confirmed)
    standing = Standing(
        status=Status.SETTLED if (status, settlement) == (Status.CONFIRMED, Settlement.DONE) else status,
        received=received,
        amount_status=_amount_status(received, asked.amount),
        timing=timing,
        settlement=settlement,
        completed_block=completed[-1].block_number if completed else None,
    )
    return Assessment(standing=standing, confirmed=confirmed, verdicts=verdicts)


def payment_object(payment: Payment, *, read_block: int) -> dict[str, object]:
    """Render a payment as clients see it. `read_block` is the newest block read of its chain."""
    standing, completed = payment.standing, payment.standing.completed_block
    price, choice = payment.price, payment.choice
    return {
        "id": payment.id,
        "object": "payment",
        "status": str(standing.status),
        "amount_status": str(standing.amount_status),
        "timing": standing.timing and str(standing.timing),
        "settlement": str(standing.settlement),
        "version": payment.version,
        **_asked_object(payment),
        "checkout_url": None,
        "confirmations": 0 if completed is None else max(0, read_block - completed + 1),
        "confirmations_required": payment.asked and payment.asked.required,
        "price": price and price_object(price),
        "assets": price and [asset_object(asset) for asset in price.accepted],
        "quote": choice and quote_object(choice),
        "order_id": payment.order_id,
        "customer_email": payment.customer_email,
        "metadata": payment.metadata,
        "webhook_url": payment.webhook_url,
        "created_at": timestamp(payment.created_at),
        "expires_at": timestamp(payment.expires_at),
        "detected_at": payment.detected_at and timestamp(payment.detected_at),
        "confirmed_at": payment.confirmed_at and timestamp(payment.confirmed_at),
        "settled_at": payment.settled_at and timestamp(payment.settled_at),
    }


def final_amount(payment: Payment, transfers: tuple[Transfer, ...]) -> int:
    """Return the final base units in the asset asked for: what an acceptance would accept."""
    ours = (verdict.transfer for verdict in _judged(payment, transfers) if _is_in_asset(verdict))
    return total(transfer.amount for transfer in ours if transfer.status is TransferStatus.FINAL)


def no_longer_needed(payment: Payment, transfers: tuple[Transfer, ...]) -> list[Transfer]:
    """Return the transfers that counted until so much was accepted as the payment says now."""
    return [
        verdict.transfer
        for verdict in _judged(payment, transfers)
        if verdict.transfer.counts and verdict.reason is Reason.AFTER_COMPLETION
    ]


def _judged(payment: Payment, transfers: tuple[Transfer, ...]) -> tuple[Verdict, ...]:
    asked = payment.asked
    if asked is None:
        return tuple(judge_unchosen(transfers))
    return tuple(judge(transfers, asked=asked, choice=payment.choice, target=_target(payment, asked)))


def _target(payment: Payment, asked: Asked) -> int:
    least = tolerated(asked.amount, payment.tolerance_bps)
    # Where more than enough was accepted, what is beyond the amount must not be needed: a reorg may take it.
    return least if payment.accepted_amount is None else min(least, payment.accepted_amount)


def _asked_object(payment: Payment) -> dict[str, object]:
    """Render the asset and the amounts; all null until an asset was chosen, save that nothing was received of it."""
    asked, address = payment.asked, checksum_address(payment.address)
    native, decimals = asked is not None and asked.token == NATIVE, 0 if asked is None else asked.decimals
    received, confirmed = payment.standing.received, payment.confirmed
    return {
        "chain": asked and asked.chain,
        "chain_id": asked and asked.chain_id,
        "token": None if asked is None or native else asked.symbol,
        "token_address": None if asked is None or native else checksum_address(asked.token),
        "decimals": asked and asked.decimals,
        "amount": asked and format_amount(asked.amount, decimals),
        "amount_atomic": asked and str(asked.amount),
        "received": format_amount(received, decimals),
        "received_atomic": str(received),
        "confirmed": format_amount(confirmed, decimals),
        "confirmed_atomic": str(confirmed),
        "address": address,
        # Wallets are known to send to the token contract of an ERC-20 link, so only the coin has one (EIP-681).
        "payment_uri": f"ethereum:{address}@{asked.chain_id}?value={asked.amount}" if asked and native else None,
    }


def _is_in_asset(verdict: Verdict) -> bool:
    return verdict.counts or verdict.reason is Reason.AFTER_COMPLETION


def _needed(transfers: list[Transfer], target: int) -> list[Transfer]:
    """Return the transfers up to the one that brings the sum to `target`; none where they do not reach it."""
    received = 0
    for place, transfer in enumerate(transfers, start=1):
        received += transfer.amount
        if received >= target:
            return transfers[:place]
    return []


def _final(transfers: list[Transfer]) -> list[Transfer]:
    return [transfer for transfer in transfers if transfer.status is TransferStatus.FINAL]


def _timing(payment: Payment, asked: Asked, transfers: list[Transfer]) -> Timing | None:
    needed = _needed(transfers, tolerated(asked.amount, payment.tolerance_bps))
    if not needed:
        return None
    return Timing.ON_TIME if needed[-1].block_time <= payment.expires_at else Timing.LATE


def _status(
    payment: Payment, facts: Facts, *, timing: Timing | None, final_timing: Timing | None, is_final: bool
) -> Status:
    is_accepted, is_canceled = payment.accepted_at is not None, payment.canceled_at is not None
    on_time = timing is Timing.ON_TIME and not is_canceled
    # By final money alone, and in time by that: an older transfer that nobody bears out neither makes up for what is
    # missing or late, nor keeps the rest waiting.
    if is_final and (is_accepted or (final_timing is Timing.ON_TIME and not is_canceled)):
        return Status.CONFIRMED
    return Status.DETECTED if on_time else _unpaid_status(payment, facts)


def _unpaid_status(payment: Payment, facts: Facts) -> Status:
    if payment.canceled_at is not None:
        return Status.CANCELED
    # Only what had ended was ever accepted: where the accepted money is gone, it has ended again.
    deadline_is_final = facts.passed_time is not None and facts.passed_time > payment.expires_at
    return Status.EXPIRED if payment.accepted_at is not None or deadline_is_final else Status.PENDING


def _amount_status(received: int, amount: int) -> AmountStatus:
    if received == 0:
        return AmountStatus.NONE
    if received < amount:
        return AmountStatus.PARTIAL
    return AmountStatus.EXACT if received == amount else AmountStatus.OVER


def _settlement(status: Status, facts: Facts, *, credited: int, confirmed: int) -> Settlement:
    # An open payment has none: part payments may be swept already, but nobody waits for that yet.
    if credited == 0 or status in OPEN:
        return Settlement.NONE
    if facts.covered >= credited:
        return Settlement.DONE
    if facts.is_sweep_held:
        return Settlement.HELD
    # A sweep takes all that is final at the address, also what came after completion.
    return Settlement.BELOW_THRESHOLD if confirmed - facts.covered < facts.threshold else Settlement.WAITING
