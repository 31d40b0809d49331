"""The words for where a payment stands: what an operator reads at night must be what the rows say."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ctrip.domain.addresses import NATIVE
from ctrip.domain.coverage import Covered
from ctrip.domain.evidence import Evidence, explain
from ctrip.domain.finality import Finality
from ctrip.domain.gas import Price
from ctrip.domain.payments import AmountStatus, Payment, Settlement, Standing, Status, Timing
from ctrip.domain.refused_transfers import Refusal, RefusedTransfer
from ctrip.domain.scanning import BlockRange, Cursor, Tagged
from ctrip.domain.sweeps import Attempt as SweepAttempt
from ctrip.domain.sweeps import HeldReason, Intent, IntentKind, IntentState
from ctrip.domain.transfers import Reason, TransferStatus
from ctrip.domain.webhooks import Attempt, Delivery, DeliveryStatus
from tests.factories import (
    CHAIN_ID,
    NOON,
    OTHER_TOKEN,
    TOKEN,
    block_hash,
    block_time,
    make_chain,
    make_payment,
    make_transfer,
)

CURSOR = Cursor(CHAIN_ID, start_block=0, read_block=50, read_hash=block_hash(50), head_block=50)
INTENT = Intent(
    id="swp_1",
    kind=IntentKind.SWEEP,
    chain_id=CHAIN_ID,
    address=b"\xdd" * 20,
    token=TOKEN,
    payment_id="pay_01FACTORY00000000000000000",
    for_intent_id=None,
    state=IntentState.SENT,
    sender=b"\xdd" * 20,
    nonce=0,
    recipient=b"\x99" * 20,
    amount=1000,
    gas_cost=None,
    own_coin=None,
    mined_tx_hash=None,
    mined_block=None,
    mined_block_hash=None,
    held_reason=None,
    failure=None,
    sent_at=NOON,
    broadcast_block=50,
    created_at=NOON,
)
SIGNED = SweepAttempt("swp_1", 1, b"raw", b"\x01" * 32, 1000, 60_000, Price(10**9, None), NOON)
FAILED = RefusedTransfer(
    chain_id=CHAIN_ID,
    block_number=49,
    block_hash=block_hash(49),
    tx_hash=b"\x07" * 32,
    recipient=b"\xdd" * 20,
    amount=1000,
    reason=Refusal.FAILED,
    endpoint="node.example",
)
SUPERSEDED = make_transfer(7, status=TransferStatus.ORPHANED, counts=False, reason=Reason.SUPERSEDED, name="x")
DELIVERY = Delivery(
    id="whd_1",
    event_id="evt_1",
    merchant_id="mer_1",
    payment_id="pay_01FACTORY00000000000000000",
    endpoint_id=None,
    url="https://shop.example/hook",
    status=DeliveryStatus.PENDING,
    attempts=2,
    next_attempt_at=block_time(60),
    last_status_code=503,
    created_at=NOON,
)


def evidence(**changes: Any) -> Evidence:
    """A payment of which nothing is known yet, on a chain that was read to block 50, with changes."""
    known = Evidence(
        payment=make_payment(),
        chain=make_chain(),
        cursors={CHAIN_ID: CURSOR},
        assets={},
        final_block_time=block_time(48),
        transfers=(),
        events=(),
        deliveries=(),
        sweeps=(),
    )
    return replace(known, **changes)


def stands(status: Status, **changes: Any) -> Payment:
    """A payment at a status; `received` and the like go to its standing, the rest to the payment."""
    own = {"received", "amount_status", "timing", "settlement", "completed_block"}
    standing = Standing(status=status, **{name: value for name, value in changes.items() if name in own})
    return make_payment(standing=standing, **{name: value for name, value in changes.items() if name not in own})


PAID: dict[str, Any] = {
    "received": 1000,
    "amount_status": AmountStatus.EXACT,
    "timing": Timing.ON_TIME,
    "completed_block": 49,
}
WORDS: dict[str, tuple[Evidence, str]] = {
    "a removed chain": (evidence(chain=None), "chain anvil is not in CHAINS_FILE any more: nothing on it is read"),
    "a resting chain": (evidence(chain=make_chain(enabled=False)), "chain anvil is switched off (enabled: false)"),
    "a token that is listed no more": (
        evidence(payment=make_payment(token=b"\x55" * 20)),
        "USDC is not listed on anvil any more: no transfer of it is seen",
    ),
    "a chain never read": (evidence(cursors={}), "no block of anvil was ever read"),
    "a chain at its head": (evidence(), "anvil was read up to block 50, the head that the node told of"),
    "a chain behind": (
        evidence(cursors={CHAIN_ID: replace(CURSOR, head_block=90)}),
        "anvil was read up to block 50, 40 behind the head that the node told of",
    ),
    "more than is shown": (
        evidence(left_out=7),
        "7 more transfers are stored: those of another asset and the oldest are not shown",
    ),
    "a stopped chain": (
        evidence(cursors={CHAIN_ID: replace(CURSOR, stopped_reason="a reorg deeper than 64")}),
        "reading is stopped until an operator looks: a reorg deeper than 64",
    ),
    "blocks that were read": (
        evidence(
            covered=(
                Covered(BlockRange(1, 50), block_hash(0), block_hash(50), "node.example, other.example", NOON, NOON),
            )
        ),
        "blocks 1 to 50 were read for USDC from node.example, other.example, until 2026-11-22T12:00:00Z",
    ),
    "a transaction that failed": (
        evidence(refused=(FAILED,)),
        f"transaction 0x{'07' * 32} in block 49 to this address failed: no coin moved",
    ),
    "one that failed on another chain": (
        evidence(refused=(replace(FAILED, chain_id=10),)),
        f"transaction 0x{'07' * 32} in block 49 of chain 10 to this address failed: no coin moved",
    ),
    "blocks that were not": (
        evidence(unread=(BlockRange(7, 9),)),
        "not read for USDC: blocks 7 to 9; a backfill reads them, or at once: ctrip rescan anvil --from 7 --to 9",
    ),
    "coin that was inferred and then explained": (
        evidence(transfers=(SUPERSEDED,)),
        "transfer trf_x of 0.000007 USDC was inferred from a balance, and another transfer explains it",
    ),
    "no transfer": (
        evidence(),
        "no transfer to 0xDDdDddDdDdddDDddDDddDDDDdDdDDdDDdDDDDDDd is in the blocks that were read",
    ),
    "a part payment": (
        evidence(payment=stands(Status.PENDING, received=400), transfers=(make_transfer(400),)),
        "0.0004 USDC arrived of 0.001 USDC; 0.0006 USDC is missing",
    ),
    "a part payment within a tolerance": (
        evidence(payment=stands(Status.PENDING, received=400, tolerance_bps=5000), transfers=(make_transfer(400),)),
        "0.0004 USDC arrived of 0.0005 USDC; 0.0001 USDC is missing",
    ),
    "another token": (
        evidence(
            transfers=(make_transfer(7, token=OTHER_TOKEN, symbol="DAI", counts=False, reason=Reason.ASSET, name="x"),)
        ),
        "transfer trf_x of 0.000007 DAI is in another asset than was asked for",
    ),
    "our own gas": (
        evidence(
            transfers=(make_transfer(10**15, token=NATIVE, counts=False, reason=Reason.OWN_TRANSACTION, name="x"),)
        ),
        "transfer trf_x of 0.001 ETH (coin) is our own transaction: gas for a sweep",
    ),
    "another chain": (
        evidence(
            transfers=(make_transfer(5, chain="base", chain_id=8453, counts=False, reason=Reason.CHAIN, name="x"),)
        ),
        "transfer trf_x of 0.000005 USDC on base is on another chain than was asked for",
    ),
    "a second payment": (
        evidence(transfers=(make_transfer(5, counts=False, reason=Reason.AFTER_COMPLETION, name="x"),)),
        "transfer trf_x of 0.000005 USDC came after the amount was complete",
    ),
    "a token that takes a fee": (
        evidence(transfers=(make_transfer(5, counts=False, reason=Reason.NOT_PAYABLE, name="x"),)),
        "transfer trf_x of 0.000005 USDC is in a token that cannot be asked for",
    ),
    "a reorg": (
        evidence(transfers=(make_transfer(5, status=TransferStatus.ORPHANED),)),
        "1 transfer(s) do not stand any more: a reorg took their blocks, or endpoints that were asked again deny them",
    ),
    "pending": (
        evidence(),
        "not complete; the deadline is 2026-11-22T12:01:40Z, the newest final block is of 2026-11-22T12:00:48Z",
    ),
    "past its deadline by the word of one endpoint": (
        evidence(final_block_time=block_time(900)),
        "it has not expired yet: no second endpoint has told a time after the deadline",
    ),
    "detected": (
        evidence(payment=stands(Status.DETECTED, **PAID), transfers=(make_transfer(block=49),)),
        "the full amount is in blocks, with 2 of 3 confirmations; final at block 51",
    ),
    "deep, and not finalized yet": (
        evidence(
            payment=stands(Status.DETECTED, required=2, finality=Finality.FINALIZED, **PAID),
            cursors={CHAIN_ID: replace(CURSOR, finalized=Tagged(40, block_time(40)))},
        ),
        "with 2 of 2 confirmations; the chain must call block 49 finalized, and the newest that it calls so is 40",
    ),
    "deep, and the chain has said nothing": (
        evidence(payment=stands(Status.DETECTED, required=2, finality=Finality.SAFE, **PAID)),
        "with 2 of 2 confirmations; the chain must call block 49 safe, and it has called none so",
    ),
    "deep, and borne out by nobody": (
        evidence(
            payment=stands(Status.DETECTED, required=2, **PAID),
            transfers=(make_transfer(block=49, name="t", is_verified=False),),
        ),
        "with 2 of 2 confirmations; no other endpoint has borne out yet: trf_t",
    ),
    "confirmed": (
        evidence(payment=stands(Status.CONFIRMED, settlement=Settlement.WAITING, **PAID)),
        "the amount was complete on time, by 2026-11-22T12:01:40Z, and is final",
    ),
    "accepted": (
        evidence(payment=stands(Status.CONFIRMED, received=400, accepted_at=block_time(120), accepted_amount=400)),
        "the merchant accepted what had arrived, at 2026-11-22T12:02:00Z",
    ),
    "expired": (
        evidence(payment=stands(Status.EXPIRED)),
        "the deadline 2026-11-22T12:01:40Z has passed in a final block before the amount was complete",
    ),
    "expired with a part": (
        evidence(payment=stands(Status.EXPIRED, received=400, confirmed=400)),
        "before the amount was complete; the merchant may accept what is final",
    ),
    "late": (
        evidence(payment=stands(Status.EXPIRED, **PAID | {"timing": Timing.LATE})),
        "the amount was completed after the deadline 2026-11-22T12:01:40Z; the merchant may accept it",
    ),
    "canceled": (evidence(payment=stands(Status.CANCELED, canceled_at=NOON)), "the merchant canceled it"),
    "canceled, then paid": (
        evidence(payment=stands(Status.CANCELED, received=1000, canceled_at=NOON)),
        "the merchant canceled it; what came since then the merchant may accept",
    ),
    "waiting for the sweeper": (
        evidence(payment=stands(Status.CONFIRMED, settlement=Settlement.WAITING, **PAID)),
        "its money waits for the sweeper",
    ),
    "below the threshold": (
        evidence(payment=stands(Status.CONFIRMED, settlement=Settlement.BELOW_THRESHOLD, **PAID)),
        "below the threshold that makes a sweep worth its gas",
    ),
    "settled": (
        evidence(payment=stands(Status.SETTLED, settlement=Settlement.DONE, **PAID)),
        "its money reached the treasury, final",
    ),
    "a sweep on its way": (
        evidence(sweeps=((INTENT, (SIGNED,)),)),
        "sweep swp_1 moves it: sent, 1 transaction(s) signed",
    ),
    "a top-up on its way": (
        evidence(sweeps=((replace(INTENT, kind=IntentKind.TOPUP, state=IntentState.PLANNED), ()),)),
        "topup swp_1 moves gas for it: planned, 0 transaction(s) signed",
    ),
    "a held sweep": (
        evidence(sweeps=((replace(INTENT, state=IntentState.HELD, held_reason=HeldReason.FEE_CEILING), ()),)),
        "sweep swp_1 is held: fee_ceiling",
    ),
    "a failed sweep": (
        evidence(sweeps=((replace(INTENT, state=IntentState.FAILED, failure="it reverted"), (SIGNED,)),)),
        "sweep swp_1 was mined but moved nothing: it reverted",
    ),
    "nobody to tell": (evidence(), "no webhook is owed: the payment has no webhook_url"),
    "a webhook that fails": (
        evidence(deliveries=((DELIVERY, (Attempt(1, NOON, 40, 500), Attempt(2, NOON, 41, 503))),)),
        "webhook whd_1 is pending after 2 attempt(s); last attempt: 503, next at 2026-11-22T12:01:00Z",
    ),
    "a webhook that reaches nobody": (
        evidence(deliveries=((DELIVERY, (Attempt(1, NOON, 40, None, "connection refused"),)),)),
        "last attempt: connection refused",
    ),
    "a webhook not tried yet": (
        evidence(deliveries=((replace(DELIVERY, attempts=0, last_status_code=None), ()),)),
        "webhook whd_1 is pending after 0 attempt(s); no attempt yet, next at",
    ),
    "a dead webhook": (
        evidence(deliveries=((replace(DELIVERY, status=DeliveryStatus.DEAD, next_attempt_at=None), ()),)),
        "webhook whd_1 is dead after 2 attempt(s)",
    ),
}


@pytest.mark.parametrize(("found", "sentence"), WORDS.values(), ids=WORDS.keys())
def test_it_is_said_in_words(found: Evidence, sentence: str) -> None:
    said = explain(found)
    assert any(sentence in line for line in said), said


def test_what_went_well_takes_no_words() -> None:
    settled = evidence(
        payment=stands(Status.SETTLED, settlement=Settlement.DONE, **PAID),
        transfers=(make_transfer(block=49, status=TransferStatus.FINAL),),
        sweeps=((replace(INTENT, state=IntentState.DONE), (SIGNED,)),),
        deliveries=((replace(DELIVERY, status=DeliveryStatus.DELIVERED, next_attempt_at=None), ()),),
    )
    assert explain(settled) == [
        "anvil was read up to block 50, the head that the node told of",
        "the amount was complete on time, by 2026-11-22T12:01:40Z, and is final",
        "its money reached the treasury, final",
    ]


@pytest.mark.parametrize("status", Status)
def test_every_status_has_words_even_where_little_is_known(status: Status) -> None:
    little = evidence(payment=stands(status), chain=None, cursors={}, final_block_time=None)
    assert len(explain(little)) >= 4


def test_the_deadline_is_that_of_the_payment() -> None:
    later = evidence(payment=make_payment(expires_at=NOON + timedelta(days=1)))
    assert any("2026-11-23T12:00:00Z" in line for line in explain(later))


def test_what_one_endpoint_called_failed_is_not_told_where_the_transfer_stands() -> None:
    sent = make_transfer(tx_hash=FAILED.tx_hash)
    words = explain(evidence(refused=(FAILED,), transfers=(sent,)))
    assert not [line for line in words if "no coin moved" in line]


def test_coin_that_gave_way_to_its_explanation_was_taken_by_no_reorg() -> None:
    explained = make_transfer(7, name="y")
    words = explain(evidence(transfers=(SUPERSEDED, explained)))
    assert not [line for line in words if "do not stand any more" in line]
    assert not [line for line in words if "no transfer to" in line]
