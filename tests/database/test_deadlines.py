from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import Connection

from ctrip.database import cursors, deadlines, moves, payments
from ctrip.database.engine import Sessions
from ctrip.domain.finality import Finality
from ctrip.domain.payments import Payment
from ctrip.domain.scanning import BlockRange, Move
from tests.factories import CHAIN_ID, OTHER_CHAIN_ID, block_time, header, ids, make_chain, read_to, store_payment

pytestmark = pytest.mark.infra

CHAINS = {chain_id: make_chain(chain_id=chain_id) for chain_id in (CHAIN_ID, OTHER_CHAIN_ID)}
NO_BLOCKS = BlockRange(1, 0)
CONFIRMATIONS = Finality.CONFIRMATIONS
new_id = ids()


def _ask(session: Connection, block: int, **fields: int) -> Payment:
    return store_payment(session, new_id=new_id, expires_at=block_time(block), **fields)


def _due(session: Connection, limit: int = 10) -> set[str]:
    return moves.settle(session, CHAIN_ID, NO_BLOCKS, most=limit)


def _expire(session: Connection, *of: Payment) -> None:
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


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ([(50, 3, CONFIRMATIONS), (40, 12, CONFIRMATIONS), (60, 1, CONFIRMATIONS)], (block_time(40), 3)),
        ([(50, 3, CONFIRMATIONS), (40, 3, Finality.SAFE)], (block_time(50), 3)),
        ([(59, 3, CONFIRMATIONS)], (block_time(59), 3)),
        ([(60, 3, CONFIRMATIONS)], None),
        ([], None),
    ],
    ids=["the earliest, and the fewest", "not what the chain itself calls final", "near", "later", "none"],
)
def test_a_deadline_is_near_where_it_lies_before_a_moment(
    sessions: Sessions, asked: list[tuple[int, int, Finality]], near: tuple[datetime, int] | None
) -> None:
    with sessions.begin() as session:
        for block, required, finality in asked:
            store_payment(session, new_id=new_id, expires_at=block_time(block), required=required, finality=finality)
        _ask(session, 10, chain_id=OTHER_CHAIN_ID)
        assert deadlines.in_reach(session, CHAIN_ID, before=block_time(60)) == near
        read_to(session, 5)
        position = cursors.position(session, CHAIN_ID)
        assert position is not None and position.latest_time == block_time(5)
        assert position.deadline == min((block_time(block) for block, *_ in asked), default=None)


def test_a_time_that_was_made_up_of_a_deep_block_does_not_pass_that_of_the_block_called_safe(
    sessions: Sessions,
) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id, expires_at=block_time(70), finality=Finality.SAFE)
        read_to(session, 62)
        cursor = cursors.find(session, CHAIN_ID)
        assert cursor is not None
        told = header(61)
        cursors.advance(session, cursor, Move(header(62), header(62), 62, tags={Finality.SAFE: told}), window=64)
        cursors.correct_time(session, CHAIN_ID, replace(header(60), time=block_time(900)))
        assert _due(session) == set()
        assert deadlines.final_time_of(session, asked.id) == block_time(61)
