from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ctrip.database import finality, transfers
from ctrip.database.engine import Sessions
from ctrip.database.models import sweep_attempts, sweep_intents
from ctrip.database.models import transfers as transfer_rows
from ctrip.domain.addresses import NATIVE
from ctrip.domain.finality import Finality, FinalityRule
from ctrip.domain.money import MAX_AMOUNT
from ctrip.domain.payments import Payment
from ctrip.domain.transfers import Reason, Sighting, Transfer, TransferStatus, Verdict
from ctrip.errors import NodeUnavailable
from tests.factories import (
    ADDRESS,
    CHAIN_ID,
    OTHER_CHAIN_ID,
    OTHER_TOKEN,
    PAYER,
    TOKEN,
    asked_of,
    block_hash,
    block_time,
    ids,
    make_chain,
    make_transfer,
    read_to,
    store_payment,
    store_transfer,
    tx_hash,
)

pytestmark = pytest.mark.infra

SEEN, FINAL, ORPHANED = TransferStatus.SEEN, TransferStatus.FINAL, TransferStatus.ORPHANED
new_id = ids()


@pytest.fixture
def payment(sessions: Sessions) -> Payment:
    with sessions.begin() as session:
        read_to(session, 12)
        return store_payment(session, new_id=new_id)


def _stored(session: Connection, payment: Payment) -> list[Transfer]:
    return transfers.of_payments(session, [payment.id])[payment.id]


def test_a_transfer_is_read_back_as_it_was_stored(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        token = store_transfer(session, payment, MAX_AMOUNT, 10)
        coin = store_transfer(session, payment, 1, 9, token=NATIVE, counts=False, reason=Reason.ASSET)
    with sessions.begin() as session:
        assert _stored(session, payment) == [coin, token], "oldest block first"


@pytest.mark.parametrize(
    ("values", "is_judged"),
    [
        ({}, True),
        ({"status": FINAL}, True),
        ({"status": FINAL, "reason": Reason.ASSET}, True),
        ({"status": FINAL, "reason": Reason.ASSET, "is_announced": True}, False),
        ({"status": FINAL, "reason": Reason.AFTER_COMPLETION, "is_announced": True}, True),
        ({"status": SEEN, "reason": Reason.ASSET, "is_announced": True}, True),
        ({"status": ORPHANED}, False),
    ],
)
def test_what_can_change_no_verdict_is_not_read_to_make_one(
    sessions: Sessions, payment: Payment, values: dict[str, Any], is_judged: bool
) -> None:
    with sessions.begin() as session:
        stored = store_transfer(session, payment)
        session.execute(sa.update(transfer_rows).values(counts="reason" not in values, **values))
        found = transfers.to_judge(session, [payment.id, "pay_other"])
    assert {payment_id: [each.id for each in those] for payment_id, those in found.items()} == {
        payment.id: [stored.id] if is_judged else [],
        "pay_other": [],
    }


def test_dust_hides_nothing_that_was_asked_for(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        old, paid = (store_transfer(session, payment, 1, block) for block in (8, 10))
        dust = [store_transfer(session, payment, 1, block, token=NATIVE) for block in (9, 11, 12)]
        for limit, told in ((1, [paid]), (2, [old, paid]), (3, [old, paid, dust[2]])):
            assert transfers.most_telling(session, payment, limit=limit) == (told, 5)


@pytest.mark.parametrize("foreign", [0, 1, 2_000])
def test_the_issued_addresses_are_found_among_any_number(sessions: Sessions, foreign: int) -> None:
    # A place that is cut wrongly finds none of them.
    others = [number.to_bytes(20) for number in range(foreign)]
    with sessions.begin() as session:
        own = [store_payment(session, new_id=new_id, address=bytes([first]) + b"\x5c" * 19).address for first in (0, 9)]
        assert transfers.issued(session, [*others, *own]) == set(own)
        assert transfers.issued(session, [own[1], *others]) == {own[1]}
        assert transfers.issued(session, others) == set()


def test_the_same_block_read_again_stores_nothing_anew(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        first = store_transfer(session, payment, id="trf_first")
        read_to(session, 50)
        store_transfer(session, payment, id="trf_second")
        assert [(t.id, t.status) for t in _stored(session, payment)] == [(first.id, FINAL)]


def test_what_nobody_listed_is_never_taken_for_coin() -> None:
    foreign = Sighting(10, block_hash(10), block_time(10), tx_hash("x"), 0, b"\x99" * 20, PAYER, ADDRESS, 5)
    owner = transfers.Owner("pay_1", CHAIN_ID, TOKEN, FinalityRule(Finality.CONFIRMATIONS, 3))
    with pytest.raises(NodeUnavailable, match="does not list"):
        transfers.sighted(make_chain(), foreign, owner=owner, is_own=False, endpoint="", transfer_id="trf_1")


def test_a_reorg_back_and_forth_brings_the_same_row_back(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        here = store_transfer(session, payment, 1000, 10, name="tx", id="trf_here")
        assert transfers.orphan_after(session, CHAIN_ID, 9) == {payment.id}
        there = store_transfer(session, payment, 1000, 11, name="tx", id="trf_there", block_hash=block_hash(11, "b"))
        assert {t.id: t.status for t in _stored(session, payment)} == {here.id: ORPHANED, there.id: SEEN}
        transfers.orphan_after(session, CHAIN_ID, 9)
        store_transfer(session, payment, 1000, 10, name="tx", id="trf_again")
        assert {t.id: t.status for t in _stored(session, payment)} == {here.id: SEEN, there.id: ORPHANED}


def test_what_comes_to_the_place_of_an_orphaned_transfer_is_what_is_told_now(
    sessions: Sessions, payment: Payment
) -> None:
    with sessions.begin() as session:
        other = store_payment(session, new_id=new_id)
        store_transfer(session, payment, 1000, 10, name="tx", id="trf_false", is_announced=True)
        transfers.orphan(session, ["trf_false"])
        true = store_transfer(
            session,
            other,
            7,
            10,
            name="tx",
            id="trf_true",
            sender=b"\x66" * 20,
            token=OTHER_TOKEN,
            symbol="DAI",
            decimals=18,
            block_time=block_time(11),
            required=12,
            endpoint="other.example",
            is_verified=False,
            is_payable=False,
        )
        assert (_stored(session, payment), _stored(session, other)) == ([], [true])


def test_what_stands_is_not_changed_by_what_is_told_of_its_place(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        stands = store_transfer(session, payment, 1000, 10, name="tx", id="trf_first")
        told = make_transfer(7, 10, name="tx", id="trf_second", payment_id=payment.id, recipient=payment.address)
        assert transfers.store(session, [told]) == []
        assert _stored(session, payment) == [stands]


def test_what_a_reorg_brought_back_must_be_borne_out_anew_and_is_told_of_once(
    sessions: Sessions, payment: Payment
) -> None:
    with sessions.begin() as session:
        first = store_transfer(session, payment, 1000, 10, name="tx", id="trf_first", is_announced=True)
        transfers.orphan_after(session, CHAIN_ID, 9)
        store_transfer(session, payment, 1000, 10, name="tx", id="trf_again", is_verified=False, endpoint="b")
        (again,) = _stored(session, payment)
        assert (again.id, again.is_verified, again.endpoint, again.is_announced) == (first.id, False, "b", True)


def test_a_transfer_may_be_told_of_in_two_blocks_and_is_final_in_one(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        store_transfer(session, payment, 1000, 10, name="tx")
        store_transfer(session, payment, 1000, 11, name="tx", id="trf_twice", is_verified=False)
        read_to(session, 20)
        assert {t.id: t.status for t in _stored(session, payment)} == {"trf_tx": FINAL, "trf_twice": SEEN}
        finality.mark_verified(session, ["trf_twice"])
        with pytest.raises(IntegrityError, match="uq_transfers_final"):
            finality.settle_finality(session, CHAIN_ID)


def test_three_transfers_of_one_transaction_are_three(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        for log_index in (4, 5, 6):
            store_transfer(session, payment, 1000, 10, name="tx", log_index=log_index, id=f"trf_{log_index}")
        assert len(_stored(session, payment)) == 3


@pytest.mark.parametrize("amount", ["0", "-1", "'NaN'", "2::numeric^256"])
def test_the_database_refuses_what_is_no_amount(sessions: Sessions, payment: Payment, amount: str) -> None:
    with sessions.begin() as session:
        store_transfer(session, payment)
        with pytest.raises(IntegrityError, match="amount_range"):
            session.execute(sa.text(f"UPDATE transfers SET amount = {amount}"))


def test_a_reorg_orphans_what_is_above_the_ancestor_on_its_own_chain_alone(
    sessions: Sessions, payment: Payment
) -> None:
    with sessions.begin() as session:
        read_to(session, 12, chain=make_chain(chain_id=OTHER_CHAIN_ID))
        store_transfer(session, payment, 1, 9)
        store_transfer(session, payment, 2, 10)
        store_transfer(session, payment, 3, 10, chain_id=OTHER_CHAIN_ID, name="elsewhere")
        other = store_payment(session, new_id=new_id)
        store_transfer(session, other, 4, 12)
        assert transfers.orphan_after(session, CHAIN_ID, 9) == {payment.id, other.id}
        assert transfers.orphan_after(session, CHAIN_ID, 9) == set(), "once"
        assert {t.amount: t.status for t in _stored(session, payment)} == {1: SEEN, 2: ORPHANED, 3: SEEN}


def test_a_transfer_is_final_with_the_confirmations_that_its_payment_requires(sessions: Sessions) -> None:
    with sessions.begin() as session:
        quick, slow = (store_payment(session, new_id=new_id, required=required) for required in (3, 10))
        for payment in (quick, slow):
            store_transfer(session, payment, 1000, 10, required=asked_of(payment).required)
        assert read_to(session, 11) == set()
        assert read_to(session, 12) == {quick.id}
        assert read_to(session, 12) == set()
        assert read_to(session, 19) == {slow.id}


def test_a_head_that_went_back_takes_finality_back(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        store_transfer(session, payment, 1000, 10)
        read_to(session, 12)
        assert read_to(session, 11) == {payment.id}
        assert [t.status for t in _stored(session, payment)] == [SEEN]


def test_what_a_reorg_took_never_becomes_final(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        store_transfer(session, payment, 1000, 10)
        transfers.orphan_after(session, CHAIN_ID, 9)
        assert read_to(session, 100) == set()


def test_an_address_is_known_from_the_moment_its_payment_is_stored(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        rule = FinalityRule(Finality.CONFIRMATIONS, 3)
        owners = transfers.owners(session, [payment.address, b"\x01" * 20])
        assert owners == {payment.address: transfers.Owner(payment.id, CHAIN_ID, TOKEN, rule)}
        assert transfers.owners(session, []) == {}


def test_our_own_transactions_are_known_before_they_are_broadcast(sessions: Sessions, payment: Payment) -> None:
    ours, theirs = tx_hash("ours"), tx_hash("theirs")
    with sessions.begin() as session:
        intent = {
            "id": "swp_1",
            "kind": "sweep",
            "chain_id": CHAIN_ID,
            "address": payment.address,
            "token": asked_of(payment).token,
            "payment_id": payment.id,
            "state": "signed",
            "sender": payment.address,
            "nonce": 0,
            "recipient": b"\x99" * 20,
        }
        session.execute(sweep_intents.insert().values(**intent))
        attempt = {"intent_id": "swp_1", "number": 1, "raw": b"raw", "amount": 1, "gas_limit": 21000, "max_fee": 1}
        session.execute(sweep_attempts.insert().values(tx_hash=ours, **attempt))
        assert transfers.own_hashes(session, [ours, theirs]) == {ours}


def test_verdicts_are_written_down(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        kept, changed = store_transfer(session, payment, 1, 9), store_transfer(session, payment, 2, 10)
        late = Reason.AFTER_COMPLETION
        transfers.store_verdicts(session, [Verdict(kept, True, None), Verdict(changed, False, late)])
        assert [(t.counts, t.reason) for t in _stored(session, payment)] == [(True, None), (False, late)]


def test_a_refused_transfer_always_has_a_reason(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session, pytest.raises(IntegrityError, match="refusal_has_a_reason"):
        store_transfer(session, payment, counts=False)
