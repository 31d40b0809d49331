from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import finality, moves, payments, transfers
from ctrip.database.engine import Sessions
from ctrip.database.models import chain_cursors
from ctrip.database.models import transfers as transfer_rows
from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Token
from ctrip.domain.finality import Finality, FinalityRule, Tier
from ctrip.domain.payments import Payment, Status
from ctrip.domain.scanning import BlockRange
from ctrip.domain.transfers import Sighting, Source, TransferStatus
from tests.factories import (
    CHAIN_ID,
    OTHER_CHAIN_ID,
    OTHER_TOKEN,
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

CHAINS = {CHAIN_ID: make_chain()}
SAFE, FINALIZED = Finality.SAFE, Finality.FINALIZED
new_id = ids()


def _call(session: Connection, *, safe: int | None = None, finalized: int | None = None) -> set[str]:
    """Let the chain call blocks safe and finalized, and settle what follows."""
    values: dict[str, int | datetime | None] = {
        "safe_block": safe,
        "safe_time": None if safe is None else block_time(safe),
        "finalized_block": finalized,
        "finalized_time": None if finalized is None else block_time(finalized),
    }
    session.execute(sa.update(chain_cursors).values(**values))
    return finality.settle_finality(session, CHAIN_ID)


def _status(session: Connection, payment: Payment) -> Status:
    payments.reassess(session, [payment.id], chains=CHAINS, new_id=new_id)
    found = payments.find(session, payment.id)
    assert found is not None
    return found.standing.status


def test_a_transfer_is_final_when_it_is_deep_and_called_so_and_verified(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = {word: store_payment(session, new_id=new_id, finality=word) for word in Finality}
        for word, payment in asked.items():
            store_transfer(session, payment, 1000, 10, finality=word)
        unverified = store_payment(session, new_id=new_id)
        doubtful = store_transfer(session, unverified, 1000, 10, is_verified=False)
        assert read_to(session, 12) == {asked[Finality.CONFIRMATIONS].id}, "the chain has called nothing final yet"
        assert _call(session, safe=9, finalized=8) == set()
        assert _call(session, safe=10, finalized=9) == {asked[SAFE].id}
        assert _call(session, safe=11, finalized=10) == {asked[FINALIZED].id}
        assert _call(session, safe=9, finalized=10) == {asked[SAFE].id}, "taken back"
        finality.mark_verified(session, [doubtful.id])
        assert finality.settle_finality(session, CHAIN_ID) == {unverified.id}
        assert _status(session, asked[SAFE]) is Status.DETECTED
        assert _status(session, asked[FINALIZED]) is Status.CONFIRMED


def test_what_has_its_confirmations_is_verified_and_never_inferred_coin(sessions: Sessions) -> None:
    with sessions.begin() as session:
        payment = store_payment(session, new_id=new_id)
        unverified: dict[str, Any] = {"is_verified": False, "payment": payment}
        waiting = [
            store_transfer(session, amount=1, block=8, finality=SAFE, **unverified),
            store_transfer(session, amount=2, block=9, **unverified),
            store_transfer(session, amount=1, block=10, **unverified),
        ]
        store_transfer(session, amount=3, block=11, **unverified)
        store_transfer(session, payment, 4, 9)
        store_transfer(session, payment, 7, 9, finality=SAFE)
        store_transfer(session, amount=5, block=9, chain_id=OTHER_CHAIN_ID, **unverified)
        inferred: dict[str, Any] = {"source": Source.INTERNAL, "tx_hash": None, "sender": None, "token": NATIVE}
        store_transfer(session, amount=6, block=9, **inferred, **unverified)
        read_to(session, 12)
        assert finality.count_unverified(session) == {CHAIN_ID: len(waiting) + 1}, "with the inferred one"
        found = finality.to_verify(session, CHAIN_ID, up_to=12, head=12, limit=10)
        assert [each.id for each in found] == [each.id for each in waiting], "oldest first"
        assert finality.to_verify(session, CHAIN_ID, up_to=12, head=12, limit=1) == found[:1]
        assert finality.to_verify(session, CHAIN_ID, up_to=8, head=12, limit=10) == found[:1], "a reorg took the rest"
        finality.put_back(session, [each.id for each in found[:2]])
        assert finality.to_verify(session, CHAIN_ID, up_to=12, head=12, limit=10) == [found[2], *found[:2]]
        assert finality.to_verify(session, CHAIN_ID, up_to=12, head=12, limit=1) == found[2:], "it is not starved"


@pytest.mark.parametrize(
    ("asked_after_s", "pause_s"),
    [
        (0, 0),
        (50, 0),
        (360, 15),
        (600, 27),  # what is young is found within half a minute
        (3660, 180),
        (6060, 300),
        (10**7, 300),  # and what is old within minutes
        (600, -30),  # the clock was set back
    ],
)
def test_what_is_asked_for_in_vain_is_asked_for_ever_less_often(
    sessions: Sessions, asked_after_s: float, pause_s: float
) -> None:
    asked_at = sa.func.now() - timedelta(seconds=pause_s)
    waited = {"asked_at": asked_at, "created_at": asked_at - timedelta(seconds=asked_after_s)}
    sooner = {name: at + timedelta(milliseconds=1) for name, at in waited.items()}
    with sessions.begin() as session:
        payment = store_payment(session, new_id=new_id)
        transfer = store_transfer(session, payment, 1, 8, is_verified=False)
        read_to(session, 12)
        for times, due in ((waited, [transfer]), (sooner, [] if pause_s > 0 else [transfer])):
            session.execute(sa.update(transfer_rows).values(times))
            assert finality.to_verify(session, CHAIN_ID, up_to=12, head=12, limit=9) == due


@pytest.mark.parametrize(
    ("word", "safe", "finalized", "expires"),
    [
        (SAFE, None, None, None),  # the chain has said nothing
        (SAFE, 49, 49, None),
        (SAFE, 51, 40, 51),
        (FINALIZED, 51, 40, None),
        (FINALIZED, 120, 51, 51),  # a block that has left the headers kept
        (SAFE, 120, None, 51),  # safe, but it is the confirmations that are missing
    ],
)
def test_a_payment_expires_only_by_blocks_that_are_final_by_its_own_rule(
    sessions: Sessions, word: Finality, safe: int | None, finalized: int | None, expires: int | None
) -> None:
    with sessions.begin() as session:
        required = 70 if safe == 120 and word is SAFE else 3
        asked = store_payment(session, new_id=new_id, finality=word, required=required, expires_at=block_time(50))
        read_to(session, 120, chain=make_chain(reorg_window=70))
        _call(session, safe=safe, finalized=finalized)
        passed = {asked.id} if expires is not None else set()
        assert moves.settle(session, CHAIN_ID, BlockRange(1, 0), most=10) == passed
        assert _status(session, asked) is (Status.EXPIRED if passed else Status.PENDING)
        assert moves.settle(session, CHAIN_ID, BlockRange(1, 0), most=10) == set()


def test_a_transfer_takes_the_rule_of_its_payment_or_where_nobody_asked_for_it_that_of_its_amount(
    sessions: Sessions,
) -> None:
    sure = FinalityRule(FINALIZED, 30)
    tokens = tuple(Token(name, of, 6, tiers=(Tier(1000, sure),)) for name, of in (("A", TOKEN), ("B", OTHER_TOKEN)))
    chain = make_chain(tokens=(*make_chain().tokens[:1], *tokens))
    elsewhere = make_chain(chain_id=OTHER_CHAIN_ID, tokens=chain.tokens)
    with sessions.begin() as session:
        # Of 1,200 in two parts of 600, each waits for what 1,200 wait for.
        asked = store_payment(session, new_id=new_id, amount=1200, required=30, finality=FINALIZED)
        own, other = (
            [
                (each.amount, FinalityRule(each.finality, each.required))
                for each in transfers.store_sightings(
                    session,
                    on,
                    [_sighting(asked, token, amount) for token in (TOKEN, OTHER_TOKEN) for amount in (600, 1001)],
                    endpoint="node.example",
                    new_id=new_id,
                )
            ]
            for on in (chain, elsewhere)
        )
        assert own == [(600, sure), (1001, sure), (600, chain.rule), (1001, sure)]
        assert other == [(600, chain.rule), (1001, sure), (600, chain.rule), (1001, sure)]


def _sighting(asked: Payment, token: bytes, amount: int) -> Sighting:
    name = f"{token.hex()} {amount}"
    return Sighting(10, block_hash(10), block_time(10), tx_hash(name), 0, token, PAYER, asked.address, amount)


def test_what_a_reorg_brought_back_waits_as_it_did_before(sessions: Sessions) -> None:
    with sessions.begin() as session:
        asked = store_payment(session, new_id=new_id, finality=SAFE)
        store_transfer(session, asked, 1000, 10, finality=SAFE)
        read_to(session, 12)
        _call(session, safe=10)
        transfers.orphan_after(session, CHAIN_ID, 9)
        assert finality.settle_finality(session, CHAIN_ID) == set()
        assert [each.status for each in transfers.of_payments(session, [asked.id])[asked.id]] == [
            TransferStatus.ORPHANED
        ]
