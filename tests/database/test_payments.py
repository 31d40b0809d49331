"""`reassess` and `move`: what the rows say becomes a status, a version, one event and its deliveries, or nothing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ctrip.database import audit, cursors, events, payments, standings, transfers
from ctrip.database.engine import Sessions
from ctrip.database.models import webhook_deliveries
from ctrip.database.standings import Change
from ctrip.domain.chains import Token
from ctrip.domain.events import EventType
from ctrip.domain.finality import Finality
from ctrip.domain.money import MAX_AMOUNT
from ctrip.domain.payments import Payment, Standing, Status, Step
from ctrip.domain.scanning import Move
from ctrip.errors import IllegalTransition, IndexTaken
from tests.factories import (
    CHAIN_ID,
    DEADLINE_BLOCK,
    OTHER_CHAIN_ID,
    OTHER_TOKEN,
    block_hash,
    block_time,
    header,
    ids,
    make_chain,
    read_to,
    store_merchant,
    store_payment,
    store_sweep,
    store_transfer,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

OTHER_CHAIN = make_chain(chain_id=OTHER_CHAIN_ID, name="other")
CHAINS = {CHAIN_ID: make_chain(), OTHER_CHAIN_ID: OTHER_CHAIN}
EXPIRED_AT = DEADLINE_BLOCK + 3
"""The head at which the deadline of a factory payment has passed for good."""
new_id = ids()


def _reassess(session: Connection, *of: Payment) -> list[str]:
    return payments.reassess(session, [payment.id for payment in of], chains=CHAINS, new_id=new_id)


def _now(session: Connection, payment: Payment) -> Payment:
    found = payments.find(session, payment.id)
    assert found is not None
    return found


def _told(session: Connection, payment: Payment) -> list[str]:
    """The types of a payment's events; their versions are checked on the way."""
    found = events.of_payment(session, payment.id, limit=100)
    assert [event.version for event in found] == list(range(1, len(found) + 1))
    assert _now(session, payment).version == len(found)
    return [str(event.type).removeprefix("payment.") for event in found]


# --- creating and finding -------------------------------------------------------------------------------------------


def test_a_new_payment_is_stored_with_its_address_and_its_event(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id, amount=MAX_AMOUNT, metadata={"plan": "pro"})
        assert _now(session, asked) == asked
        (event,) = events.of_payment(session, asked.id, limit=10)
    assert (event.type, event.version, event.body["previous_status"]) == (EventType.PAYMENT_CREATED, 1, None)
    shown: Any = event.body["payment"]
    assert (shown["id"], shown["status"], shown["amount_atomic"]) == (asked.id, "pending", str(MAX_AMOUNT))


@pytest.mark.parametrize(("url", "owed"), [(None, 0), ("https://shop.example/hooks", 1)])
def test_an_event_is_owed_to_the_payments_own_url(sessions: Sessions, url: str | None, owed: int) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id, webhook_url=url)
        store_transfer(session, asked)
        read_to(session, 10)
        made = _reassess(session, asked)
        stored = session.execute(sa.select(webhook_deliveries)).all()
    assert (len(made), len(stored)) == (owed, 2 * owed), "created and detected"
    assert all((row.url, row.status) == (url, "pending") and row.next_attempt_at for row in stored)
    assert set(made) <= {row.id for row in stored}


def test_two_payments_never_share_an_address(sessions: Sessions) -> None:
    with sessions.begin() as session:
        store_payment(session, new_id=new_id, address=b"\x01" * 20)
        with pytest.raises(IndexTaken):
            store_payment(session, new_id=new_id, address=b"\x01" * 20)


@pytest.mark.parametrize(
    "change",
    [
        "amount = 0",
        "amount = 'NaN'",
        "amount = 2::numeric^256",
        "received = -1",
        "confirmed = 'NaN'",
        "status = 'paid'",
        "amount_status = 'enough'",
        "timing = 'soon'",
        "settlement = ''",
        "version = 0",
        "required = 0",
        "tolerance_bps = 10000",
        r"address = '\x00'",
        "accepted_at = now()",
        "accepted_amount = 5",
    ],
)
def test_the_database_refuses_what_no_code_may_store(sessions: Sessions, change: str) -> None:
    with sessions.begin() as session:
        store_payment(session, new_id=new_id)
        with pytest.raises(DBAPIError):
            session.execute(sa.text(f"UPDATE payments SET {change}"))


def test_a_merchant_finds_its_own_payments_newest_first(sessions: Sessions) -> None:
    with sessions.begin() as session:
        store_merchant(session, "mer_other")
        ours = [store_payment(session, new_id=new_id, order_id=f"order {n % 2}") for n in range(4)]
        theirs = store_payment(session, new_id=new_id, merchant_id="mer_other")
        me = ours[0].merchant_id

        def found(**query: Any) -> list[Payment]:
            limit, after = query.pop("limit", 10), query.pop("after", None)
            return list(payments.matching(session, me, filters=query, limit=limit, after=after))

        assert found() == ours[::-1]
        assert found(limit=2) == [ours[3], ours[2]]
        assert found(limit=2, after=ours[2].id) == [ours[1], ours[0]]
        assert found(order_id="order 1") == [ours[3], ours[1]]
        assert found(status="pending", chain="anvil") == ours[::-1]
        assert found(status="settled") == found(chain="other") == []
        assert found(created_after=ours[0].created_at) == found(created_before=ours[0].created_at) == []
        assert payments.find(session, theirs.id, merchant_id=me) is None
        assert payments.find(session, ours[0].id, merchant_id=me) == ours[0]


# --- assessing ------------------------------------------------------------------------------------------------------


def test_a_payment_goes_from_pending_to_settled_with_one_event_a_change(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked)
        moments = []
        for head in (10, 12, 13):
            assert asked.id in read_to(session, head) or head != 12
            if head == 13:
                store_sweep(session, asked, new_id=new_id)
            _reassess(session, asked)
            now = _now(session, asked)
            moments.append([bool(moment) for moment in (now.detected_at, now.confirmed_at, now.settled_at)])
        assert _told(session, asked) == ["created", "detected", "confirmed", "settled"]
    assert moments == [[True, False, False], [True, True, False], [True, True, True]]


def test_from_pending_to_final_in_one_read_tells_detected_and_then_confirmed(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id, webhook_url="https://shop.example")
        store_transfer(session, asked)
        read_to(session, 20)
        assert len(_reassess(session, asked)) == 2
        found = events.of_payment(session, asked.id, limit=10)
    bodies: list[Any] = [event.body for event in found]
    assert [(b["previous_status"], b["payment"]["status"], b["payment"]["version"]) for b in bodies] == [
        (None, "pending", 1),
        ("pending", "detected", 2),
        ("detected", "confirmed", 3),
    ]


def test_assessing_again_stores_nothing(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id, webhook_url="https://shop.example")
        store_transfer(session, asked)
        read_to(session, 20)
        _reassess(session, asked)
        before = _now(session, asked)
        assert _reassess(session, asked) == []
        assert _now(session, asked) == before


def test_a_token_that_says_more_than_any_balance_could_hold_stops_nothing(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        for index in range(3):
            store_transfer(session, asked, MAX_AMOUNT, 10, log_index=index, name=f"log {index}")
        read_to(session, 40)
        _reassess(session, asked)
        now = _now(session, asked)
        assert (now.standing.received, now.confirmed) == (MAX_AMOUNT, MAX_AMOUNT)
        assert audit.broken(session) == []


def test_growing_confirmations_are_stored_without_a_version(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked, 400, 10)
        for head in (10, 12):
            read_to(session, head)
            _reassess(session, asked)
        assert _now(session, asked).confirmed == 400
        assert _told(session, asked) == ["created", "partially_paid"]


def test_a_reorg_takes_a_status_and_its_moments_back(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked)
        read_to(session, 12)
        _reassess(session, asked)
        transfers.orphan_after(session, CHAIN_ID, 9)
        read_to(session, 13, after=9, fork="b")
        _reassess(session, asked)
        now = _now(session, asked)
        assert (now.standing, now.confirmed, now.detected_at, now.confirmed_at) == (Standing(), 0, None, None)
        store_transfer(session, asked, 1000, 14, block_hash=block_hash(14, "b"), id="trf_back")
        read_to(session, 14, after=9, fork="b")
        _reassess(session, asked)
        assert _now(session, asked).detected_at is not None
        assert _told(session, asked) == ["created", "detected", "confirmed", "reverted", "detected"]


def test_a_reorg_that_moves_money_to_another_block_tells_nothing_but_counts_from_there(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked, 1000, 10, name="tx")
        read_to(session, 10)
        _reassess(session, asked)
        transfers.orphan_after(session, CHAIN_ID, 9)
        store_transfer(session, asked, 1000, 11, name="tx", block_hash=block_hash(11, "b"), id="trf_moved")
        read_to(session, 11, after=9, fork="b")
        _reassess(session, asked)
        assert _now(session, asked).standing.completed_block == 11
        assert _told(session, asked) == ["created", "detected"]


def test_only_the_final_block_that_was_read_expires_a_payment(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        for head, status in ((EXPIRED_AT - 1, Status.PENDING), (EXPIRED_AT, Status.EXPIRED)):
            read_to(session, head)
            _reassess(session, asked)
            assert _now(session, asked).standing.status is status


def test_the_deadline_is_judged_by_the_confirmations_that_the_payment_requires(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id, required=10)
        read_to(session, EXPIRED_AT)
        _reassess(session, asked)
        assert _now(session, asked).standing.status is Status.PENDING
        read_to(session, DEADLINE_BLOCK + 10)
        _reassess(session, asked)
        assert _now(session, asked).standing.status is Status.EXPIRED


def test_a_payment_on_a_chain_that_was_never_read_is_left_alone(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked)
        assert _reassess(session, asked) == []
        assert _told(session, asked) == ["created"]


def test_a_payment_on_a_chain_that_is_not_configured_is_left_alone(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked)
        read_to(session, 20)
        assert payments.reassess(session, [asked.id], chains={}, new_id=new_id) == []
        assert _told(session, asked) == ["created"]


def test_the_threshold_is_that_of_the_payments_asset(sessions: Sessions) -> None:
    tokens = (*make_chain().tokens[:1], Token("USDC", make_chain().tokens[1].address, 6, threshold=1001))
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked)
        read_to(session, 20)
        payments.reassess(session, [asked.id], chains={CHAIN_ID: make_chain(tokens=tokens)}, new_id=new_id)
        assert _now(session, asked).standing.settlement == "below_threshold"


def test_an_acceptance_confirms_and_where_the_money_is_swept_settles(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked, 1000, DEADLINE_BLOCK + 1)
        read_to(session, EXPIRED_AT)
        store_sweep(session, asked, new_id=new_id)
        _reassess(session, asked)
        payments.store_acceptance(session, replace(asked, accepted_amount=1000, accepted_at=block_time(0)))
        _reassess(session, asked)
        assert _told(session, asked) == ["created", "expired", "late", "accepted", "settled"]
        assert _now(session, asked).confirmed_at is not None


# --- what nobody asked for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", [{"token": OTHER_TOKEN}, {"is_payable": False}])
def test_a_transfer_that_nobody_asked_for_is_told_once_when_it_is_final(
    sessions: Sessions, foreign: dict[str, Any]
) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id, webhook_url="https://shop.example")
        transfer = store_transfer(session, asked, 7, 10, **foreign)
        for head, told in ((11, 0), (12, 1), (13, 0)):
            read_to(session, head)
            assert len(_reassess(session, asked)) == told
        assert _told(session, asked) == ["created", "transfer.unexpected"]
        body: Any = events.of_payment(session, asked.id, limit=10)[-1].body
    assert (body["transfer"]["id"], body["transfer"]["counts"], body["transfer"]["status"]) == (
        transfer.id,
        False,
        "final",
    )
    assert body["payment"]["version"] == 2


def test_money_after_completion_changes_the_payment_and_is_told_as_unexpected(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked)
        read_to(session, 12)
        _reassess(session, asked)
        store_transfer(session, asked, 5, 13)
        for head in (13, 15):
            read_to(session, head)
            _reassess(session, asked)
        told = ["created", "detected", "confirmed", "updated", "transfer.unexpected"]
        assert _told(session, asked) == told
        assert _now(session, asked).confirmed == 1005


def test_our_own_transaction_is_told_to_nobody(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked, 7, 10, is_own=True, counts=False, reason="own_transaction")
        read_to(session, 20)
        assert _reassess(session, asked) == []
        assert _told(session, asked) == ["created"]


def test_a_transfer_on_another_chain_is_told_with_the_confirmations_that_it_has_there(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked, 7, 50, chain_id=OTHER_CHAIN_ID, chain="other")
        read_to(session, 10)
        read_to(session, 54, chain=OTHER_CHAIN)
        _reassess(session, asked)
        body: Any = events.of_payment(session, asked.id, limit=10)[-1].body
    assert (body["transfer"]["chain"], body["transfer"]["reason"]) == ("other", "chain")
    assert body["transfer"]["confirmations"] == 5


def test_a_block_that_pays_many_costs_no_more_statements_than_one_that_pays_one(sessions: Sessions) -> None:
    counts: list[int] = []
    with sessions.begin() as session:
        first, *others = (store_payment(session, new_id=new_id, webhook_url="https://shop.example") for _ in range(8))
        for asked in (first, *others):
            store_transfer(session, asked)
            store_transfer(session, asked, 7, 10, token=OTHER_TOKEN, name=f"other {asked.id}", log_index=1)
        read_to(session, 12)
        for together in ([first], others):
            statements: list[str] = []
            note = lambda *args, to=statements: to.append(args[2])  # noqa: E731 (to be taken away again)
            sa.event.listen(session, "before_cursor_execute", note)
            made = payments.reassess(session, [asked.id for asked in together], chains=CHAINS, new_id=new_id)
            sa.event.remove(session, "before_cursor_execute", note)
            assert len(made) == 3 * len(together)
            counts.append(len(statements))
        for asked in (first, *others):
            assert _told(session, asked) == ["created", "detected", "confirmed", "transfer.unexpected"]
            assert _now(session, asked).version == 4
    assert counts[0] == counts[1] < 40


# --- moving ---------------------------------------------------------------------------------------------------------


def test_a_move_along_no_arrow_stores_nothing(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        step = Step(EventType.PAYMENT_SETTLED, Standing(Status.SETTLED))
        with pytest.raises(IllegalTransition, match="pending to settled"):
            standings.move(session, [Change(asked, step, read_block=0)], new_id=new_id)
        assert _told(session, asked) == ["created"]


@pytest.mark.parametrize("stale", [{"version": 2}, {"standing": Standing(Status.CONFIRMED)}])
def test_a_move_from_where_it_no_longer_stands_stores_nothing(sessions: Sessions, stale: dict[str, Any]) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        target = Status.SETTLED if "standing" in stale else Status.CANCELED
        step = Step(EventType.PAYMENT_CANCELED, Standing(target))
        with pytest.raises(IllegalTransition, match="no longer"):
            standings.move(session, [Change(replace(asked, **stale), step, read_block=0)], new_id=new_id)
        assert _told(session, asked) == ["created"]


def test_two_who_assess_the_same_payment_at_once_tell_it_once(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        store_transfer(session, asked)
        read_to(session, 20)

    def assess_too() -> list[str]:
        with sessions.begin() as session:
            return _reassess(session, asked)

    with ThreadPoolExecutor(1) as pool, sessions.engine.connect() as session:
        payments.lock(session, [asked.id])
        second = pool.submit(assess_too)
        wait_until(lambda: _someone_waits(session), within_s=30)
        _reassess(session, asked)
        session.commit()
        second.result(timeout=30)
        assert _told(session, asked) == ["created", "detected", "confirmed"]


def test_the_final_block_and_its_time_are_read_in_one_snapshot(sessions: Sessions) -> None:
    # A listener that catches up moves the cursor and drops the old headers between two of our statements.
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id)
        read_to(session, EXPIRED_AT)
        _reassess(session, asked)
        assert _now(session, asked).standing.status is Status.EXPIRED

    def catch_up(statement: str) -> None:
        with sessions.begin() as other:
            tip = header(EXPIRED_AT + 500)
            cursors.store_headers(other, CHAIN_ID, [header(n) for n in range(tip.number - 64, tip.number + 1)])
            cursor = cursors.find(other, CHAIN_ID)
            assert cursor is not None
            cursors.advance(other, cursor, Move(header(EXPIRED_AT), tip, tip.number), window=64)

    with sessions.begin() as session:
        payments.lock(session, [asked.id])
        _between_statements(session, catch_up)
        _reassess(session, asked)
        assert _told(session, asked) == ["created", "expired"]


def _between_statements(session: Connection, act: Any) -> None:
    """Let `act` happen once, right after this session has read a cursor."""
    done: list[bool] = []

    def after(*args: Any) -> None:
        statement = args[2]
        if "chain_cursors" in statement and not done:
            done.append(True)
            act(statement)

    sa.event.listen(session, "after_cursor_execute", after)


def _someone_waits(session: Connection) -> bool:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    return bool(session.scalar(sa.text(waiting)))


def test_payments_that_are_assessed_together_have_each_the_final_block_of_its_own_rule(sessions: Sessions) -> None:
    with sessions.begin() as session:
        quick, slow = (store_payment(session, new_id=new_id, required=required) for required in (1, 20))
        tagged = store_payment(session, new_id=new_id, required=1, finality=Finality.SAFE)
        away = store_payment(session, new_id=new_id, chain_id=OTHER_CHAIN_ID)
        read_to(session, EXPIRED_AT)
        found = payments.facts_of(session, [quick, slow, tagged, away], chains=CHAINS)
    times = {payment_id: facts.passed_time for payment_id, facts in found.items()}
    assert times == {quick.id: block_time(EXPIRED_AT), slow.id: block_time(EXPIRED_AT - 19), tagged.id: None}
