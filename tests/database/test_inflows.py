from datetime import timedelta

import pytest

from ctrip.database import balance_checks, holdings, transfers
from ctrip.database.balance_checks import Rounds
from ctrip.database.engine import Sessions
from ctrip.database.superseding import supersede
from ctrip.domain.addresses import NATIVE
from ctrip.domain.inflows import Place
from ctrip.domain.payments import Payment, Status
from ctrip.domain.standings import Standing
from ctrip.domain.transfers import INTERNAL_LOG_INDEX, Reason, Source, Transfer, TransferStatus
from ctrip.services.inflows.rounds import WATCHED_FOR, next_turn
from tests.factories import (
    CHAIN_ID,
    DEADLINE_BLOCK,
    block_time,
    header,
    ids,
    read_to,
    store_payment,
    store_sweep,
    store_transfer,
    tx_hash,
)

pytestmark = pytest.mark.infra

new_id = ids()
INFERRED = {
    "token": NATIVE,
    "source": Source.INTERNAL,
    "tx_hash": None,
    "sender": None,
    "log_index": INTERNAL_LOG_INDEX,
}


@pytest.fixture
def payment(sessions: Sessions) -> Payment:
    with sessions.begin() as session:
        read_to(session, 12)
        return store_payment(session, new_id=new_id, token=NATIVE, symbol="ETH", decimals=18)


def _rows(sessions: Sessions, payment: Payment) -> list[tuple[Source, int, TransferStatus, Reason | None]]:
    with sessions.begin() as session:
        found: list[Transfer] = transfers.of_payments(session, [payment.id])[payment.id]
    return sorted((each.source, each.amount, each.status, each.reason) for each in found)


def test_what_is_inferred_gives_way_once_and_its_rest_stands(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        store_transfer(session, payment, 100, 10, **INFERRED)
    for _ in range(2):
        with sessions.begin() as session:
            late = store_transfer(session, payment, 30, 9, name="late", token=NATIVE)
            supersede(session, transfers.store(session, [late]), new_id=new_id)
    assert _rows(sessions, payment) == [
        (Source.INTERNAL, 100, TransferStatus.SEEN, None),
        (Source.NATIVE, 30, TransferStatus.SEEN, None),
    ], "stored twice, it was not new any more"
    with sessions.begin() as session:
        supersede(session, [late], new_id=new_id)
    assert _rows(sessions, payment) == [
        (Source.INTERNAL, 70, TransferStatus.SEEN, None),
        (Source.INTERNAL, 100, TransferStatus.ORPHANED, Reason.SUPERSEDED),
        (Source.NATIVE, 30, TransferStatus.SEEN, None),
    ]


def test_what_a_trace_told_gives_way_to_its_own_transaction_and_its_rest_is_inferred_once_at_a_block(
    sessions: Sessions, payment: Payment
) -> None:
    traced = {"token": NATIVE, "source": Source.INTERNAL, "log_index": INTERNAL_LOG_INDEX}
    with sessions.begin() as session:
        store_transfer(session, payment, 40, 10, name="traced", **traced)
        store_transfer(session, payment, 100, 10, **INFERRED)
        told = store_transfer(session, payment, 30, 10, tx_hash=tx_hash("traced"), token=NATIVE, log_index=7)
        supersede(session, [told], new_id=new_id)
    assert _rows(sessions, payment) == [
        (Source.INTERNAL, 40, TransferStatus.ORPHANED, Reason.SUPERSEDED),
        (Source.INTERNAL, 100, TransferStatus.ORPHANED, Reason.SUPERSEDED),
        (Source.INTERNAL, 110, TransferStatus.SEEN, None),
        (Source.NATIVE, 30, TransferStatus.SEEN, None),
    ]


def test_what_lies_at_an_address_is_what_came_less_what_went(sessions: Sessions, payment: Payment) -> None:
    with sessions.begin() as session:
        store_transfer(session, payment, 5000, 3, token=NATIVE)
        store_transfer(session, payment, 100, 10, **INFERRED)
        store_sweep(session, payment, new_id=new_id, mined_block=5, gas_cost=21)
        failed = {"state": "failed", "nonce": 1, "mined_block": 7, "gas_cost": 30, "failure": "reverted"}
        store_sweep(session, payment, new_id=new_id, **failed)
    told = {}
    for block in (2, 3, 5, 7, 10):
        with sessions.begin() as session:
            told[block] = holdings.coin_at(session, CHAIN_ID, [Place(payment.address, block)])[payment.address]
    assert told == {2: 0, 3: 5000, 5: 3979, 7: 3949, 10: 4049}
    with sessions.begin() as session:
        store_sweep(session, payment, new_id=new_id, nonce=2, state="mined", mined_block=11)
        assert holdings.coin_at(session, CHAIN_ID, [Place(payment.address, 10)]) == {}, "its money is in motion"


@pytest.mark.parametrize(
    ("every_s", "at_deadline"),
    [(20, [100, None, 100]), (1, [100, 100, 102])],
    ids=["in each round", "in a round that lasts, again"],
)
def test_rounds_look_at_open_payments_at_their_deadlines_and_at_all_others_in_turn(
    sessions: Sessions, every_s: int, at_deadline: list[int | None]
) -> None:
    read = {number: header(number) for number in range(80, 121)}
    with sessions.begin() as session:
        soon, *later = [
            store_payment(session, new_id=new_id, expires_at=block_time(number), address=bytes([place]) * 20)
            for place, number in ((2, DEADLINE_BLOCK), (1, 200), (3, 300), (4, 400))
        ]
        ended = {
            place: store_payment(
                session,
                new_id=new_id,
                expires_at=expires_at,
                standing=Standing(status=status),
                address=bytes([place]) * 20,
            )
            for place, expires_at, status in (
                (5, block_time(250), Status.SETTLED),
                (6, block_time(100) - WATCHED_FOR, Status.EXPIRED),
            )
        }
    seen: list[dict[bytes, int]] = []
    is_over: list[bool] = []
    rounds = Rounds(deadlines_until=block_time(90))
    with sessions.begin() as session:
        for block in (101, 102, 102, *range(105, 112)):
            turn = next_turn(
                session,
                rounds,
                read=read,
                block=read[block],
                final_time=block_time(block - 2),
                every=timedelta(seconds=every_s),
                most=3,
            )
            places, rounds, is_over = turn.places, turn.after, [*is_over, turn.is_over]
            assert turn.deadlines == {address for address, at in places.items() if at.number < block}
            balance_checks.store(session, CHAIN_ID, rounds)
            assert balance_checks.find(session, CHAIN_ID) == rounds
            seen.append({address: at.number for address, at in places.items()})
    assert all(len(each) <= 3 for each in seen)
    assert [each.get(soon.address) for each in seen[:3]] == at_deadline, "at its deadline, until that is final"
    assert is_over[0] is False
    assert any(is_over)
    assert any(each.get(soon.address, 0) > 102 for each in seen), "and again later"
    for payment in (*later, ended[5]):
        assert any(payment.address in each for each in seen), "everybody comes round"
    assert rounds.checked_block is not None
