"""E-mails: to whom, what each says, and when it is tried again.

pending ──accepted by the server──> sent
   │ ──no address, or no server is configured──> skipped
   │ ──every attempt failed──> dead (schedule)
   └──an exception that nobody expected──> failed
dead, failed ──replay──> pending, with a fresh schedule
"""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from ctrip.domain.addresses import checksum_address
from ctrip.domain.email_layout import Content, Page, one_line, render
from ctrip.domain.events import EventType
from ctrip.domain.payment_words import amount_in_words, asked_in_words
from ctrip.domain.payments import Payment
from ctrip.domain.webhook_endpoints import DisabledReason

__all__ = [
    "Content",
    "Email",
    "EmailKind",
    "EmailStatus",
    "Mourned",
    "confirmed_to_buyer",
    "confirmed_to_merchant",
    "dead_letters",
    "endpoint_disabled",
    "next_attempt_at",
]

ACTOR = "send_email"
QUEUE = "email"
GAPS_S = (0, 10, 20)
"""The wait before each attempt: three of them, from 10 s, doubling."""
KEPT = timedelta(days=30)
"""How long an e-mail is kept that is over: its text names people."""
TOLD = frozenset({EventType.PAYMENT_CONFIRMED, EventType.PAYMENT_ACCEPTED})
"""The events that buyer and merchant are written of: each of them makes a payment `confirmed`."""
DIGEST_GAP = timedelta(minutes=10)
"""The least time between two digests."""
DIGEST_LETTERS = 5_000
"""The most letters that one digest tells of."""
_KINDS_SHOWN = 20
_IDS_SHOWN = 10
_SENDER = "Sent by cTrip."


class EmailKind(StrEnum):
    """What an e-mail tells, and to whom: buyer, merchant, merchant, operator."""

    PAYMENT_CONFIRMED_BUYER = "payment_confirmed_buyer"
    PAYMENT_CONFIRMED_MERCHANT = "payment_confirmed_merchant"
    ENDPOINT_DISABLED = "endpoint_disabled"
    DEAD_LETTERS = "dead_letters"


class EmailStatus(StrEnum):
    """dead: every attempt was made; failed: an exception ended it; skipped: there is nobody to send it to or by."""

    PENDING = "pending"
    SENT = "sent"
    SKIPPED = "skipped"
    DEAD = "dead"
    FAILED = "failed"


@dataclass(frozen=True)
class Email:
    """A stored e-mail. A `recipient` of None is the operator. `attempts` counts those before a replay too."""

    id: str
    kind: EmailKind
    recipient: str | None
    content: Content
    attempts: int
    created_at: datetime


@dataclass(frozen=True)
class Mourned:
    """What a digest tells of a dead letter. `exception` is its class, or the words that stand for one."""

    id: str
    queue: str
    actor: str
    reason: str
    exception: str


def next_attempt_at(attempt: int, *, ended_at: datetime) -> datetime | None:
    """Return when to try again after the `attempt`th try (the first is 1); None where that was the last."""
    return ended_at + timedelta(seconds=GAPS_S[attempt]) if attempt < len(GAPS_S) else None


def confirmed_to_buyer(payment: Payment, *, merchant_name: str) -> Content:
    """Tell the buyer that the money has arrived for good."""
    shop = one_line(merchant_name)
    received = _received(payment)
    return render(
        Page(
            subject=f"{shop} has received your payment of {received}",
            title=f"Your payment of {received} has arrived",
            opening=(f"{shop} has received it, and it is final. There is nothing more for you to do.",),
            facts=_facts(payment),
            closing=("The address was made for this payment alone: please do not send anything to it again.",),
            footer=f"You get this message because your address was given with this payment to {shop}. {_SENDER}",
        )
    )


def confirmed_to_merchant(payment: Payment) -> Content:
    """Tell the merchant that a payment is final: the goods can go."""
    received = _received(payment)
    order = "" if payment.order_id is None else f" for order {one_line(payment.order_id)}"
    buyer = () if payment.customer_email is None else (("Buyer", payment.customer_email),)
    return render(
        Page(
            subject=f"Payment confirmed: {received}{order}",
            title=f"{received} received{order}",
            opening=("The payment is confirmed: its money is final, and the order can be fulfilled.",),
            facts=(*_facts(payment), *buyer, ("Payment", payment.id)),
            footer=f"You get this message because it is the address of your account. {_SENDER}",
        )
    )


def endpoint_disabled(*, url: str, reason: DisabledReason, failing_since: datetime | None) -> Content:
    """Tell the owner of a webhook endpoint that nothing is sent there any more."""
    since = () if failing_since is None else (("Nothing but failures since", _moment(failing_since)),)
    return render(
        Page(
            subject="A webhook endpoint of yours was disabled",
            title="Your webhook endpoint was disabled",
            opening=(_WHY_DISABLED[reason], "Events are stored all the same, and none of them is lost."),
            facts=(("Endpoint", url), *since),
            closing=(
                "When it can take events again, enable the endpoint through the API and ask for what was not "
                "delivered to be sent again.",
            ),
            footer=f"You get this message because it is the address of your account. {_SENDER}",
        )
    )


def dead_letters(mourned: Sequence[Mourned], *, more: int) -> Content:
    """Tell the operator of new dead letters, the newest first; `more` is how many there are besides these."""
    count = len(mourned) + more
    noun = "dead letter" if count == 1 else "dead letters"
    kinds = Counter((each.queue, each.actor, each.reason, each.exception) for each in mourned)
    shown, ids = kinds.most_common(_KINDS_SHOWN), [each.id for each in mourned[:_IDS_SHOWN]]
    others = sum(kinds.values()) - sum(number for _, number in shown) + more
    facts = [(f"{number} in {queue}", _kind(*named)) for (queue, *named), number in shown]
    if others:
        facts.append(("Besides these", f"and {others} more"))
    queues = dict.fromkeys(each.queue for each in mourned)
    return render(
        Page(
            subject=f"cTrip: {count} new {noun}",
            title=f"{count} new {noun}",
            opening=("What is listed here will not be tried again by itself. It waits until somebody has looked.",),
            facts=(*facts, ("Newest", ", ".join(ids))),
            commands=(
                *(f"ctrip dlq list --queue {shlex.quote(queue)}" for queue in queues),
                *(f"ctrip dlq {verb} {each}" for each in ids[:1] for verb in ("show", "replay")),
            ),
            footer=f"Digests come at most every {DIGEST_GAP.seconds // 60} minutes. {_SENDER}",
        )
    )


_WHY_DISABLED = {
    DisabledReason.MERCHANT: "It was disabled by your own request.",
    DisabledReason.GONE: "It answered 410 Gone, which says that it wants no more events.",
    DisabledReason.FAILING: "For days it has answered with nothing but failures, so no more events are sent there.",
}


def _kind(actor: str, reason: str, exception: str) -> str:
    return ", ".join(filter(None, (actor, reason, exception)))


def _facts(payment: Payment) -> tuple[tuple[str, str], ...]:
    confirmed = () if payment.confirmed_at is None else (("Confirmed", _moment(payment.confirmed_at)),)
    order = () if payment.order_id is None else (("Order", payment.order_id),)
    return (
        *order,
        ("Asked for", asked_in_words(payment)),
        ("Received", _received(payment)),
        ("Chain", "" if payment.asked is None else payment.asked.chain),
        ("Address", checksum_address(payment.address)),
        *confirmed,
    )


def _received(payment: Payment) -> str:
    return amount_in_words(payment, payment.confirmed)


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
