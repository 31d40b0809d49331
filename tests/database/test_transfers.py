import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ctrip.database import transfers
from ctrip.database.engine import Sessions
from ctrip.database.models import sweep_attempts, sweep_intents
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
    PAYER,
    TOKEN,
    block_hash,
    block_time,
    ids,
    make_chain,
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


def _stored(session: Session, payment: Payment) -> list[Transfer]:
    return transfers.of_payments(session, [payment.id])[payment.id]


def test_a_transfer_is_read_back_as_it_was_stored(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        token = store_transfer(session, payment, MAX_AMOUNT, 10)
        coin = store_transfer(session, payment, 1, 9, token=NATIVE, counts=False, reason=Reason.ASSET)
    with sessions() as session:
        assert _stored(session, payment) == [coin, token], "oldest block first"


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


def test_two_canonical_blocks_cannot_hold_the_same_transfer(sessions: Sessions, payment: Payment) -> None:
    with sessions() as session:
        store_transfer(session, payment, 1000, 10, name="tx")
        with pytest.raises(IntegrityError, match="uq_transfers_canonical"):
            store_transfer(session, payment, 1000, 11, name="tx", id="trf_twice")


def test_three_transfers_of_one_transaction_are_three(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        for log_index in (4, 5, 6):
            store_transfer(session, payment, 1000, 10, name="tx", log_index=log_index, id=f"trf_{log_index}")
        assert len(_stored(session, payment)) == 3


@pytest.mark.parametrize("amount", ["0", "-1", "'NaN'", "2::numeric^256"])
def test_the_database_refuses_what_is_no_amount(sessions: Sessions, payment: Payment, amount: str) -> None:
    with sessions() as session:
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
            store_transfer(session, payment, 1000, 10, required=payment.required)
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
    with sessions() as session:
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
            "token": payment.token,
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
    with sessions() as session, pytest.raises(IntegrityError, match="refusal_has_a_reason"):
        store_transfer(session, payment, counts=False)
