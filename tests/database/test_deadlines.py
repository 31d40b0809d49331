import pytest
from sqlalchemy.orm import Session

from ctrip.database import moves, payments
from ctrip.database.engine import Sessions
from ctrip.domain.payments import Payment
from ctrip.domain.scanning import BlockRange
from tests.factories import CHAIN_ID, OTHER_CHAIN_ID, block_time, ids, make_chain, read_to, store_payment

pytestmark = pytest.mark.infra

CHAINS = {chain_id: make_chain(chain_id=chain_id) for chain_id in (CHAIN_ID, OTHER_CHAIN_ID)}
NO_BLOCKS = BlockRange(1, 0)
new_id = ids()


def _ask(session: Session, block: int, **fields: int) -> Payment:
    return store_payment(session, new_id=new_id, expires_at=block_time(block), **fields)


def _due(session: Session, limit: int = 10) -> set[str]:
    return moves.settle(session, CHAIN_ID, NO_BLOCKS, most=limit)


def _expire(session: Session, *of: Payment) -> None:
    payments.reassess(session, [payment.id for payment in of], chains=CHAINS, new_id=new_id)


def test_a_deadline_has_passed_when_a_later_block_is_final(sessions: Sessions) -> None:
    with sessions.begin() as session:
        first, second = _ask(session, 50), _ask(session, 60)
        _ask(session, 500)
        _ask(session, 50, chain_id=OTHER_CHAIN_ID)
        found = {}
        for head in (52, 53, 62, 63):
            read_to(session, head)
            found[head] = _due(session)
        assert found == {52: set(), 53: {first.id}, 62: {first.id}, 63: {first.id, second.id}}
        assert _due(session, limit=1) == {first.id}
        _expire(session, first, second)
        assert _due(session) == set()


def test_a_deadline_waits_for_the_confirmations_that_its_payment_requires(sessions: Sessions) -> None:
    with sessions.begin() as session:
        quick, slow = _ask(session, 50, required=1), _ask(session, 50, required=20)
        found = {}
        for head in (50, 51, 69, 70):
            read_to(session, head)
            found[head] = _due(session)
        assert found == {
            50: set(),
            51: {quick.id},
            69: {quick.id},
            70: {quick.id, slow.id},
        }


def test_a_deadline_that_passed_during_a_long_outage_is_found(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = _ask(session, 5)
        read_to(session, 500)
        assert _due(session) == {asked.id}


def test_a_reorg_brings_back_the_deadlines_that_are_not_final_any_more(sessions: Sessions) -> None:
    with sessions.begin() as session:
        gone, back = _ask(session, 50), _ask(session, 59)
        slow = _ask(session, 50, required=12)
        read_to(session, 62)
        _expire(session, gone, back, slow)
        assert _due(session) == set()
        read_to(session, 60, after=49, fork="b")
        assert _due(session) == {slow.id, back.id}
        _expire(session, gone, back, slow)
        assert _due(session) == set()


def test_a_reorg_to_a_head_so_low_that_nothing_is_final_brings_all_deadlines_back(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = _ask(session, 0, required=12)
        read_to(session, 12)
        _expire(session, asked)
        read_to(session, 10, after=5, fork="b")
        assert _due(session) == {asked.id}
        _expire(session, asked)
        assert _due(session) == set()


def test_a_chain_that_was_never_read_has_no_deadlines(sessions: Sessions) -> None:
    with sessions.begin() as session:
        _ask(session, 0)
        assert _due(session) == set()
