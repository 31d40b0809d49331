"""Why a payment is, or is not, paid: everything that is stored of it, and what that means in words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ctrip.domain.addresses import NATIVE, checksum_address, hex_text
from ctrip.domain.chains import Chain, Token
from ctrip.domain.coverage import Covered, covered_object, unread_in_words
from ctrip.domain.events import Event, event_object
from ctrip.domain.finality import Finality
from ctrip.domain.money import format_amount
from ctrip.domain.payment_words import amount_in_words, asked_in_words
from ctrip.domain.payments import Payment, Settlement, Status, Timing, payment_object
from ctrip.domain.refused_transfers import Refusal, RefusedTransfer, refused_object
from ctrip.domain.scanning import BlockRange, Cursor
from ctrip.domain.sweeps import Attempt as SweepAttempt
from ctrip.domain.sweeps import Intent, IntentKind, IntentState
from ctrip.domain.times import timestamp
from ctrip.domain.transfers import Reason, Transfer, TransferStatus, transfer_object
from ctrip.domain.webhooks import Attempt, Delivery, DeliveryStatus, delivery_object

_REFUSALS = {
    Reason.ASSET: "is in another asset than was asked for",
    Reason.CHAIN: "is on another chain than was asked for",
    Reason.AFTER_COMPLETION: "came after the amount was complete",
    Reason.OWN_TRANSACTION: "is our own transaction: gas for a sweep",
    Reason.SUPERSEDED: "was inferred from a balance, and another transfer explains it",
    Reason.BEFORE_CHOICE: "came before an asset was chosen",
    Reason.NOT_PAYABLE: "is in a token that cannot be asked for: it takes a fee, rebases or is switched off",
}

_REFUSED = {Refusal.FAILED: "failed: no coin moved"}


@dataclass(frozen=True)
class Evidence:
    """What is stored of one payment. `chain` is None where it is not configured any more; `cursors` are by chain id,
    without those of chains never read; `assets` by chain id and token, coin too: money may come on any chain.
    `covered` are the ranges of blocks that were read for its asset since it was made, `unread` those that never were.
    `final_block_time` is that of the newest block that is final by the payment's rule. `refused` named its address, and
    moved nothing.
    """

    payment: Payment
    chain: Chain | None
    cursors: Mapping[int, Cursor]
    assets: Mapping[tuple[int, bytes], Token]
    final_block_time: datetime | None
    transfers: tuple[Transfer, ...]
    events: tuple[Event, ...]
    deliveries: tuple[tuple[Delivery, tuple[Attempt, ...]], ...]
    sweeps: tuple[tuple[Intent, tuple[SweepAttempt, ...]], ...]
    covered: tuple[Covered, ...] = ()
    unread: tuple[BlockRange, ...] = ()
    refused: tuple[RefusedTransfer, ...] = ()
    left_out: int = 0
    """Transfers that are stored and not among these."""

    @property
    def cursor(self) -> Cursor | None:
        """That of the payment's own chain; None before its first block was read."""
        return None if self.payment.asked is None else self.cursors.get(self.payment.asked.chain_id)

    def read_block(self, chain_id: int | None) -> int:
        """The newest block that was read of a chain; 0 where none was."""
        cursor = None if chain_id is None else self.cursors.get(chain_id)
        return 0 if cursor is None else cursor.read_block


def explain(evidence: Evidence) -> list[str]:
    """Say in sentences where the payment stands and why, from what was read to what was told."""
    return [*_reading(evidence), *_money(evidence), *_status(evidence), *_settlement(evidence), *_webhooks(evidence)]


def evidence_object(found: Evidence) -> dict[str, object]:
    """Render all that is stored of a payment as operators see it."""
    read_block = found.read_block(found.payment.chain_id)
    return {
        "payment": payment_object(found.payment, read_block=read_block),
        "transfers": [transfer_object(each, read_block=found.read_block(each.chain_id)) for each in found.transfers],
        "refused": [refused_object(each, chain=_chain_name(found, each.chain_id)) for each in found.refused],
        "events": [event_object(event) for event in found.events],
        "deliveries": [delivery_object(delivery, attempts) for delivery, attempts in found.deliveries],
        "sweeps": _sweeps(found),
        "read": {}
        if found.cursor is None or found.payment.asked is None
        else {
            "chain": found.payment.asked.chain,
            "start_block": found.cursor.start_block,
            "read_block": read_block,
            "head_block": found.cursor.head_block,
            "final_block": found.cursor.final_block(found.payment.asked.rule),
            "final_block_time": found.final_block_time and timestamp(found.final_block_time),
            "stopped_reason": found.cursor.stopped_reason,
            "covered": [covered_object(each) for each in found.covered],
            "unread": [[gap.first, gap.last] for gap in found.unread],
        },
    }


def _reading(evidence: Evidence) -> Iterator[str]:
    payment, cursor = evidence.payment.asked, evidence.cursor
    if payment is None:
        yield from _reading_unchosen(evidence)
        return
    if evidence.chain is None:
        yield f"chain {payment.chain} is not in CHAINS_FILE any more: nothing on it is read"
    elif not evidence.chain.enabled:
        yield f"chain {payment.chain} is switched off (enabled: false): nothing on it is read"
    elif evidence.chain.token_at(payment.token) is None:
        yield f"{payment.symbol} is not listed on {payment.chain} any more: no transfer of it is seen"
    if cursor is None:
        yield f"no block of {payment.chain} was ever read"
        return
    behind = max(0, cursor.head_block - cursor.read_block)
    lag = f"{behind} behind the head that the node told of" if behind else "the head that the node told of"
    yield f"{payment.chain} was read up to block {cursor.read_block}, {lag}"
    for each in evidence.covered:
        blocks = f"blocks {each.blocks.first} to {each.blocks.last}"
        yield f"{blocks} were read for {payment.symbol} from {each.endpoint}, until {timestamp(each.last_read_at)}"
    for gap in evidence.unread:
        yield f"not read for {payment.symbol}: {unread_in_words(payment.chain, gap)}"
    if cursor.stopped_reason is not None:
        yield f"reading is stopped until an operator looks: {cursor.stopped_reason}"


def _reading_unchosen(evidence: Evidence) -> Iterator[str]:
    price = evidence.payment.price
    assets = () if price is None else price.accepted
    choices = ", ".join(f"{asset.symbol} on {asset.chain}" for asset in assets)
    yield f"it asks for {asked_in_words(evidence.payment)}; nobody has chosen an asset yet, of {choices}"
    for chain_id, name in {asset.chain_id: asset.chain for asset in assets}.items():
        if not any(known == chain_id for known, _ in evidence.assets):
            yield f"{name} is not in CHAINS_FILE any more: nothing on it is read"
            continue
        if chain_id not in evidence.cursors:
            yield f"no block of {name} was ever read"
            continue
        cursor = evidence.cursors[chain_id]
        yield f"{name} was read up to block {cursor.read_block}"
        if cursor.stopped_reason is not None:
            yield f"reading of {name} is stopped until an operator looks: {cursor.stopped_reason}"


def _money(evidence: Evidence) -> Iterator[str]:
    payment = evidence.payment
    canonical = [t for t in evidence.transfers if t.status is not TransferStatus.ORPHANED]
    superseded = [t for t in evidence.transfers if t not in canonical and t.reason is Reason.SUPERSEDED]
    gone = len(evidence.transfers) - len(canonical) - len(superseded)
    if not canonical:
        yield f"no transfer to {checksum_address(payment.address)} is in the blocks that were read"
    if evidence.left_out:
        yield f"{evidence.left_out} more transfers are stored: those of another asset and the oldest are not shown"
    for transfer in (*canonical, *superseded):
        if transfer.reason is not None:
            yield f"transfer {transfer.id} of {_units(transfer)} {_REFUSALS[transfer.reason]}"
    moved = {transfer.tx_hash for transfer in canonical}
    for each in evidence.refused:
        if each.tx_hash in moved:
            continue  # one endpoint said that it failed, and others know better
        on = "" if each.chain_id == payment.chain_id else f" of {_chain_name(evidence, each.chain_id)}"
        where = f"transaction {hex_text(each.tx_hash)} in block {each.block_number}{on}"
        yield f"{where} to this address {_REFUSED[each.reason]}"
    if gone:
        # The rows do not tell which of these it was.
        why = "a reorg took their blocks, or endpoints that were asked again deny them"
        yield f"{gone} transfer(s) do not stand any more: {why}"
    if payment.target is not None and canonical and payment.target > payment.standing.received:
        arrived, target = payment.standing.received, payment.target
        told, of, missing = (amount_in_words(payment, each) for each in (arrived, target, target - arrived))
        yield f"{told} arrived of {of}; {missing} is missing"


def _status(evidence: Evidence) -> Iterator[str]:
    payment, standing = evidence.payment, evidence.payment.standing
    deadline = timestamp(payment.expires_at)
    match standing.status:
        case Status.PENDING:
            reached = "an unknown time" if evidence.final_block_time is None else timestamp(evidence.final_block_time)
            yield f"the amount is not complete; the deadline is {deadline}, the newest final block is of {reached}"
            if evidence.final_block_time is not None and evidence.final_block_time > payment.expires_at:
                yield "it has not expired yet: no second endpoint has told a time after the deadline"
        case Status.DETECTED:
            yield _wait_for_finality(evidence)
        case Status.CONFIRMED | Status.SETTLED if payment.accepted_at is not None:
            yield f"the merchant accepted what had arrived, at {timestamp(payment.accepted_at)}"
        case Status.CONFIRMED | Status.SETTLED:
            yield f"the amount was complete on time, by {deadline}, and is final"
        case Status.EXPIRED if standing.timing is Timing.LATE:
            yield f"the amount was completed after the deadline {deadline}; the merchant may accept it"
        case Status.EXPIRED:
            accept = "; the merchant may accept what is final" if payment.confirmed else ""
            yield f"the deadline {deadline} has passed in a final block before the amount was complete{accept}"
        case Status.CANCELED:
            accept = "; what came since then the merchant may accept" if standing.received else ""
            yield f"the merchant canceled it{accept}"


def _wait_for_finality(evidence: Evidence) -> str:
    asked, completed = evidence.payment.asked, evidence.payment.standing.completed_block
    if asked is None or completed is None or evidence.cursor is None:
        return "the full amount is in blocks and waits to be final"
    have = max(0, evidence.cursor.read_block - completed + 1)
    told = f"the full amount is in blocks, with {have} of {asked.required} confirmations"
    if have < asked.required:
        told += f"; final at block {completed + asked.required - 1}"
    word, tagged = asked.finality, evidence.cursor.tagged(asked.finality)
    if word is not Finality.CONFIRMATIONS and (tagged is None or tagged.number < completed):
        so_far = "it has called none so" if tagged is None else f"the newest that it calls so is {tagged.number}"
        told += f"; the chain must call block {completed} {word}, and {so_far}"
    unverified = [
        t.id for t in evidence.transfers if t.counts and t.status is TransferStatus.SEEN and not t.is_verified
    ]
    if unverified:
        told += f"; no other endpoint has borne out yet: {', '.join(unverified)}"
    return told


def _settlement(evidence: Evidence) -> Iterator[str]:
    match evidence.payment.standing.settlement:
        case Settlement.WAITING:
            yield "its money waits for the sweeper"
        case Settlement.BELOW_THRESHOLD:
            yield "what is left at its address is below the threshold that makes a sweep worth its gas"
        case Settlement.DONE:
            yield "its money reached the treasury, final"
        case Settlement.HELD | Settlement.NONE:
            pass
    for intent, attempts in evidence.sweeps:
        if intent.state is IntentState.HELD:
            detail = f" ({intent.failure})" if intent.failure else ""
            yield f"{intent.kind} {intent.id} is held: {intent.held_reason}{detail}"
        elif intent.state is IntentState.FAILED:
            yield f"{intent.kind} {intent.id} was mined but moved nothing: {intent.failure or 'no reason stored'}"
        elif intent.state is not IntentState.DONE:
            what = "gas for it" if intent.kind is IntentKind.TOPUP else "it"
            yield f"{intent.kind} {intent.id} moves {what}: {intent.state}, {len(attempts)} transaction(s) signed"


def _webhooks(evidence: Evidence) -> Iterator[str]:
    if not evidence.deliveries:
        yield "no webhook is owed: the payment has no webhook_url, and its merchant no endpoint for its events"
        return
    for delivery, attempts in evidence.deliveries:
        if delivery.status is DeliveryStatus.DELIVERED:
            continue
        last = attempts[-1] if attempts else None
        why = "no attempt yet" if last is None else f"last attempt: {last.error or last.status_code}"
        due = f", next at {timestamp(delivery.next_attempt_at)}" if delivery.next_attempt_at else ""
        yield f"webhook {delivery.id} is {delivery.status} after {delivery.attempts} attempt(s); {why}{due}"


def _chain_name(evidence: Evidence, chain_id: int) -> str:
    asked = evidence.payment.asked
    return asked.chain if asked is not None and chain_id == asked.chain_id else f"chain {chain_id}"


def _units(transfer: Transfer) -> str:
    on = f" on {transfer.chain}" if transfer.reason is Reason.CHAIN else ""
    coin = " (coin)" if transfer.token == NATIVE else ""
    return f"{format_amount(transfer.amount, transfer.decimals)} {transfer.symbol}{coin}{on}"


def _sweeps(found: Evidence) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = []
    for intent, attempts in found.sweeps:
        landed = intent.mined_tx_hash or (attempts[-1].tx_hash if attempts else None)
        shown.append(
            {
                "id": intent.id,
                "kind": str(intent.kind),
                "state": str(intent.state),
                "amount": _moved(found, intent),
                "nonce": intent.nonce,
                "attempts": len(attempts),
                "mined_block": intent.mined_block,
                "held_reason": intent.held_reason and str(intent.held_reason),
                "failure": intent.failure,
                "tx_hash": landed and hex_text(landed),
                "tx_hashes": [hex_text(attempt.tx_hash) for attempt in attempts],
            }
        )
    return shown


def _moved(found: Evidence, intent: Intent) -> str | None:
    if intent.amount is None:
        return None
    # A top-up carries the token of the sweep that it is for, and moves coin.
    moved = NATIVE if intent.kind is IntentKind.TOPUP else intent.token
    token = found.assets.get((intent.chain_id, moved))
    if token is None:
        return f"{intent.amount} base units"
    return f"{format_amount(intent.amount, token.decimals)} {token.symbol}"
