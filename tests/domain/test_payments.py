"""The money rules as tables: what was read, and where the payment stands then."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from ctrip.domain.addresses import NATIVE
from ctrip.domain.payments import Facts, assess, final_amount, payment_object
from ctrip.domain.standings import TRANSITIONS, AmountStatus, Settlement, Standing, Status, Timing
from ctrip.domain.transfers import Reason, Transfer, TransferStatus
from tests.domain.life import Life, Move, accept, cancel, read, reorg
from tests.factories import (
    DEADLINE_BLOCK,
    OTHER_CHAIN_ID,
    OTHER_TOKEN,
    TREASURY,
    block_time,
    make_payment,
    make_transfer,
)

LATE = DEADLINE_BLOCK + 1
"""The first block that is too late."""
OVER = DEADLINE_BLOCK + 3
"""The head at which block LATE, and with it the deadline, is final with 3 confirmations."""

t = make_transfer


@dataclass(frozen=True)
class Case:
    """What happened, and what the payment then is: `status amount_status timing settlement`, and its events."""

    moves: tuple[Move, ...]
    standing: str
    events: str
    payment: dict[str, Any] | None = None
    threshold: int = 0

    def play(self) -> Life:
        life = Life(make_payment(**self.payment or {}), threshold=self.threshold)
        for move in self.moves:
            move(life)
        return life


CASES = {
    # --- the amount -------------------------------------------------------------------------------------------------
    "nothing came yet": Case((read(10),), "pending none - none", "created"),
    "exact, in a block": Case((read(10, t(1000, 10)),), "detected exact on_time none", "created detected"),
    "exact, one block short of final": Case(
        (read(10, t(1000, 10)), read(11)), "detected exact on_time none", "created detected"
    ),
    "exact, final": Case(
        (read(10, t(1000, 10)), read(12)), "confirmed exact on_time waiting", "created detected confirmed"
    ),
    "exact, swept": Case(
        (read(10, t(1000, 10)), read(12), read(15, covered=1000)),
        "settled exact on_time done",
        "created detected confirmed settled",
    ),
    "final at the first sight of it: detected, then confirmed": Case(
        (read(50, t(1000, 10)),), "confirmed exact on_time waiting", "created detected confirmed"
    ),
    "three parts, each seen by itself": Case(
        (read(5, t(300, 5)), read(6, t(300, 5), t(300, 6)), read(9, t(300, 5), t(300, 6), t(400, 9)), read(11)),
        "confirmed exact on_time waiting",
        "created partially_paid partially_paid detected confirmed",
    ),
    "three parts, final only with the youngest": Case(
        (read(9, t(300, 5), t(300, 6), t(400, 9)), read(10)), "detected exact on_time none", "created detected"
    ),
    "three transfers in one transaction": Case(
        (
            read(
                10,
                t(300, 10, log_index=4, name="a"),
                t(300, 10, log_index=5, name="a"),
                t(400, 10, log_index=6, name="a"),
            ),
        ),
        "detected exact on_time none",
        "created detected",
    ),
    "two in one block, together too much": Case(
        (read(10, t(700, 10, log_index=1), t(600, 10, log_index=2)),),
        "detected over on_time none",
        "created detected",
    ),
    "under": Case((read(10, t(999, 10)), read(40)), "pending partial - none", "created partially_paid"),
    "under, and the deadline passes": Case(
        (read(10, t(999, 10)), read(OVER)), "expired partial - waiting", "created partially_paid expired"
    ),
    "under, first seen after the deadline: told in the order it happened": Case(
        (read(OVER, t(999, 10)),), "expired partial - waiting", "created partially_paid expired"
    ),
    "under, within the tolerance": Case(
        (read(10, t(990, 10)), read(12)),
        "confirmed partial on_time waiting",
        "created detected confirmed",
        payment={"tolerance_bps": 100},
    ),
    "under by one base unit more than the tolerance": Case(
        (read(10, t(989, 10)),), "pending partial - none", "created partially_paid", payment={"tolerance_bps": 100}
    ),
    "the missing part within the tolerance comes later": Case(
        (read(10, t(990, 10)), read(12), read(20, t(990, 10), t(5, 20))),
        "confirmed partial on_time waiting",
        "created detected confirmed updated",
        payment={"tolerance_bps": 100},
    ),
    "over": Case((read(10, t(1500, 10)), read(12)), "confirmed over on_time waiting", "created detected confirmed"),
    "a second payment before the first is final": Case(
        (read(10, t(1000, 10)), read(11, t(1000, 10), t(1000, 11))),
        "detected over on_time none",
        "created detected updated",
    ),
    "a second payment after settlement leaves it settled": Case(
        (read(10, t(1000, 10)), read(12, covered=1000), read(30, t(1000, 10), t(1000, 30)), read(32)),
        "settled over on_time done",
        "created detected confirmed settled updated",
    ),
    # --- time -------------------------------------------------------------------------------------------------------
    "paid in the last block that is on time": Case(
        (read(DEADLINE_BLOCK, t(1000, DEADLINE_BLOCK)),), "detected exact on_time none", "created detected"
    ),
    "paid in the first block that is late, before the deadline is final": Case(
        (read(LATE, t(1000, LATE)),), "pending exact late none", "created late"
    ),
    "late, and then the deadline is final": Case(
        (read(LATE, t(1000, LATE)), read(OVER)), "expired exact late waiting", "created late expired"
    ),
    "late, first seen when the deadline was final: told in the order it happened": Case(
        (read(OVER, t(1000, LATE)),), "expired exact late waiting", "created expired late"
    ),
    "late by its last part alone": Case(
        (read(10, t(600, 10)), read(OVER + 2, t(600, 10), t(400, OVER))),
        "expired exact late waiting",
        "created partially_paid expired late",
    ),
    "late and swept: settlement is done, the status stays": Case(
        (read(OVER, t(1000, LATE)), read(OVER + 5, covered=1000)),
        "expired exact late done",
        "created expired late updated",
    ),
    "late, then accepted": Case(
        (read(OVER, t(1000, LATE)), accept), "confirmed exact late waiting", "created expired late accepted"
    ),
    "late, swept, then accepted: settled at once": Case(
        (read(OVER, t(1000, LATE)), read(OVER + 5, covered=1000), accept),
        "settled exact late done",
        "created expired late updated accepted settled",
    ),
    "no deadline passes while its block is not final": Case((read(OVER - 1),), "pending none - none", "created"),
    "the deadline's own block, final, does not expire": Case(
        (read(DEADLINE_BLOCK + 2),), "pending none - none", "created"
    ),
    "expired by the first final block after the deadline": Case(
        (read(OVER),), "expired none - none", "created expired"
    ),
    "an outage over the deadline: paid before it, read long after": Case(
        (read(OVER + 500, t(1000, DEADLINE_BLOCK)),),
        "confirmed exact on_time waiting",
        "created detected confirmed",
    ),
    "detected before the deadline, final after it": Case(
        (read(DEADLINE_BLOCK, t(1000, DEADLINE_BLOCK)), read(OVER)),
        "confirmed exact on_time waiting",
        "created detected confirmed",
    ),
    "a partial payment after the end": Case(
        (read(OVER), read(OVER + 1, t(400, OVER + 1))), "expired partial - none", "created expired partially_paid"
    ),
    "a partial payment after the end, final when it is first seen: one change": Case(
        (read(OVER), read(OVER + 5, t(400, OVER + 1))),
        "expired partial - waiting",
        "created expired partially_paid",
    ),
    # --- the merchant's word ----------------------------------------------------------------------------------------
    "canceled": Case((read(5), cancel), "canceled none - none", "created canceled"),
    "canceled, and the deadline passes": Case(
        (read(5), cancel, read(OVER)), "canceled none - none", "created canceled"
    ),
    "canceled, then paid": Case(
        (read(5), cancel, read(10, t(1000, 10)), read(12)),
        "canceled exact on_time waiting",
        "created canceled late updated",
    ),
    "canceled, then paid in part": Case(
        (read(5), cancel, read(10, t(400, 10))), "canceled partial - none", "created canceled late"
    ),
    "canceled, then paid, then accepted": Case(
        (read(5), cancel, read(10, t(1000, 10)), read(12), accept),
        "confirmed exact on_time waiting",
        "created canceled late updated accepted",
    ),
    "too little, accepted": Case(
        (read(OVER, t(400, 10)), accept, read(OVER + 5, covered=400)),
        "settled partial - done",
        "created partially_paid expired accepted settled",
    ),
    "too little, accepted; the rest comes late": Case(
        (read(OVER, t(400, 10)), accept, read(OVER + 1, t(400, 10), t(600, OVER + 1))),
        "confirmed exact late waiting",
        "created partially_paid expired accepted late",
    ),
    "too little, accepted and settled; the rest comes late": Case(
        (read(OVER, t(400, 10)), accept, read(OVER + 9, t(400, 10), t(600, OVER + 1), covered=400)),
        "settled exact late done",
        "created partially_paid expired accepted late settled",
    ),
    # --- what does not count ----------------------------------------------------------------------------------------
    "wrong token": Case((read(10, t(1000, 10, token=OTHER_TOKEN)), read(12)), "pending none - none", "created"),
    "wrong chain": Case((read(10, t(1000, 10, chain_id=OTHER_CHAIN_ID)), read(12)), "pending none - none", "created"),
    "coin where a token was asked for": Case((read(10, t(1000, 10, token=NATIVE)),), "pending none - none", "created"),
    "our own transaction": Case((read(10, t(1000, 10, is_own=True)), read(12)), "pending none - none", "created"),
    "a token that takes a fee": Case((read(10, t(1000, 10, is_payable=False)),), "pending none - none", "created"),
    # --- the sweeper ------------------------------------------------------------------------------------------------
    "below the threshold": Case(
        (read(12, t(1000, 10)),),
        "confirmed exact on_time below_threshold",
        "created detected confirmed",
        threshold=1001,
    ),
    "at the threshold": Case(
        (read(12, t(1000, 10)),), "confirmed exact on_time waiting", "created detected confirmed", threshold=1000
    ),
    "over the threshold by money that came after completion": Case(
        (read(12, t(1000, 10)), read(15, t(1000, 10), t(1, 13))),
        "confirmed over on_time waiting",
        "created detected confirmed updated",
        threshold=1001,
    ),
    "held": Case(
        (read(12, t(1000, 10)), read(20, held=True)),
        "confirmed exact on_time held",
        "created detected confirmed updated",
    ),
    "held, then done": Case(
        (read(12, t(1000, 10)), read(20, held=True), read(25, covered=1000)),
        "settled exact on_time done",
        "created detected confirmed updated settled",
    ),
    "swept in part": Case(
        (read(12, t(400, 9), t(600, 10)), read(20, covered=400)),
        "confirmed exact on_time waiting",
        "created detected confirmed",
    ),
    "swept while it was open, final and settled by the last part": Case(
        (read(8, t(400, 5)), read(12, covered=400), read(20, t(400, 5), t(600, 14), covered=1000)),
        "settled exact on_time done",
        "created partially_paid detected confirmed settled",
    ),
    # --- reorgs -----------------------------------------------------------------------------------------------------
    "a reorg takes a detected payment": Case(
        (read(10, t(1000, 10)), reorg(11)), "pending none - none", "created detected reverted"
    ),
    "a reorg moves it to another block: nothing to tell": Case(
        (read(10, t(1000, 10)), reorg(11, t(1000, 11))), "detected exact on_time none", "created detected"
    ),
    "a reorg takes a confirmed payment": Case(
        (read(12, t(1000, 10)), reorg(13)), "pending none - none", "created detected confirmed reverted"
    ),
    "a reorg moves a confirmed payment up: no longer final": Case(
        (read(12, t(1000, 10)), reorg(13, t(1000, 13))),
        "detected exact on_time none",
        "created detected confirmed reverted",
    ),
    "a reorg takes one part of two": Case(
        (read(12, t(400, 5), t(600, 10)), reorg(13, t(400, 5))),
        "pending partial - none",
        "created detected confirmed reverted",
    ),
    "a reorg takes a part payment": Case(
        (read(10, t(400, 10)), reorg(11)), "pending none - none", "created partially_paid reverted"
    ),
    "a reorg takes the surplus": Case(
        (read(11, t(1000, 10), t(5, 11)), reorg(12, t(1000, 10))),
        "confirmed exact on_time waiting",
        "created detected confirmed",
    ),
    "a reorg takes the surplus alone": Case(
        (read(12, t(1000, 10), t(5, 12)), reorg(13, t(1000, 10))),
        "confirmed exact on_time waiting",
        "created detected confirmed reverted",
    ),
    "a reorg takes the sweep": Case(
        (read(12, t(1000, 10)), read(20, covered=1000), reorg(21, t(1000, 10), covered=0)),
        "confirmed exact on_time waiting",
        "created detected confirmed settled reverted",
    ),
    "a reorg takes sweep and finality": Case(
        (read(12, t(1000, 10), covered=1000), reorg(13, t(1000, 13), covered=0)),
        "detected exact on_time none",
        "created detected confirmed settled reverted",
    ),
    "a reorg takes sweep and payment": Case(
        (read(12, t(1000, 10), covered=1000), reorg(13, covered=0)),
        "pending none - none",
        "created detected confirmed settled reverted",
    ),
    "a reorg takes the payment after the deadline": Case(
        (read(DEADLINE_BLOCK + 1, t(1000, DEADLINE_BLOCK)), reorg(OVER)),
        "expired none - none",
        "created detected reverted expired",
    ),
    "a reorg takes the settled payment after the deadline": Case(
        (read(OVER, t(1000, DEADLINE_BLOCK), covered=1000), reorg(OVER + 1, covered=0)),
        "expired none - none",
        "created detected confirmed settled reverted expired",
    ),
    "a reorg takes the deadline's block back": Case(
        (read(OVER), reorg(OVER - 1)), "pending none - none", "created expired reverted"
    ),
    "a reorg brings a payment before the deadline": Case(
        (read(OVER), reorg(LATE, t(1000, DEADLINE_BLOCK))),
        "detected exact on_time none",
        "created expired reverted detected",
    ),
    "a reorg brings a payment before the deadline, and it is final": Case(
        (read(OVER), reorg(OVER, t(1000, DEADLINE_BLOCK))),
        "confirmed exact on_time waiting",
        "created expired reverted detected confirmed",
    ),
    "a reorg makes a late payment one on time": Case(
        (read(OVER, t(1000, LATE)), reorg(LATE, t(1000, DEADLINE_BLOCK))),
        "detected exact on_time none",
        "created expired late reverted detected",
    ),
    "a reorg makes a payment on time a late one": Case(
        (read(DEADLINE_BLOCK, t(1000, DEADLINE_BLOCK)), reorg(LATE, t(1000, LATE))),
        "pending exact late none",
        "created detected reverted late",
    ),
    "a reorg makes it late, and the deadline is final": Case(
        (read(DEADLINE_BLOCK, t(1000, DEADLINE_BLOCK)), reorg(OVER, t(1000, LATE))),
        "expired exact late waiting",
        "created detected reverted expired late",
    ),
    "a reorg takes late money": Case(
        (read(OVER, t(1000, LATE)), reorg(OVER)), "expired none - none", "created expired late reverted"
    ),
    "a reorg takes what was accepted late, and brings it back": Case(
        (read(OVER, t(1000, LATE)), accept, reorg(OVER + 1), reorg(OVER + 4, t(1000, OVER + 2))),
        "confirmed exact late waiting",
        "created expired late accepted reverted late accepted",
    ),
    "a reorg moves what was accepted up: it counts again when it is final": Case(
        (read(OVER, t(1000, LATE)), accept, reorg(OVER + 1, t(1000, OVER + 1)), read(OVER + 3)),
        "confirmed exact late waiting",
        "created expired late accepted reverted accepted",
    ),
    "a reorg takes what was accepted and swept": Case(
        (read(OVER, t(1000, LATE), covered=1000), accept, reorg(OVER + 1, covered=0)),
        "expired none - none",
        "created expired late accepted settled reverted",
    ),
    "a reorg takes what was accepted late, and the deadline's block": Case(
        (read(OVER, t(1000, LATE)), accept, reorg(OVER - 1)),
        "expired none - none",
        "created expired late accepted reverted",
    ),
    "a reorg takes what was accepted after a cancel": Case(
        (read(5), cancel, read(12, t(1000, 10)), accept, reorg(13)),
        "canceled none - none",
        "created canceled late accepted reverted",
    ),
    "a reorg takes what was accepted after a cancel, and swept": Case(
        (read(5), cancel, read(12, t(1000, 10), covered=1000), accept, reorg(13, covered=0)),
        "canceled none - none",
        "created canceled late accepted settled reverted",
    ),
    "a reorg makes accepted late money one on time": Case(
        (read(OVER, t(1000, LATE)), accept, reorg(LATE, t(1000, DEADLINE_BLOCK)), read(OVER)),
        "confirmed exact on_time waiting",
        "created expired late accepted reverted confirmed",
    ),
    "a reorg takes the surplus of what was accepted: enough is left": Case(
        (read(OVER + 1, t(1000, LATE), t(50, LATE + 1)), accept, reorg(OVER + 2, t(1000, LATE))),
        "confirmed exact late waiting",
        "created expired late accepted reverted",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_payment_stands_where_the_facts_say_and_tells_how_it_got_there(name: str) -> None:
    case = CASES[name]
    life = case.play()
    standing = life.standing
    seen = f"{standing.status} {standing.amount_status} {standing.timing or '-'} {standing.settlement}"
    assert (seen, " ".join(life.events)) == (case.standing, case.events)
    assert life.payment.version == len(life.events), "one event for each version"


def test_the_cases_take_every_arrow() -> None:
    taken = {arrow for case in CASES.values() for arrow in case.play().arrows}
    assert taken == {(old, new) for old, targets in TRANSITIONS.items() for new in targets}


def test_where_it_stands_depends_on_the_facts_and_not_on_where_it_stood() -> None:
    for case in CASES.values():
        life = case.play()
        forgetful = replace(life.payment, standing=Standing(), confirmed=0, version=1)
        backwards = tuple(reversed(life.judged))
        assert assess(forgetful, backwards, life.facts) == assess(life.payment, life.judged, life.facts)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"token": OTHER_TOKEN}, Reason.ASSET),
        ({"chain_id": OTHER_CHAIN_ID}, Reason.CHAIN),
        ({"chain_id": OTHER_CHAIN_ID, "token": OTHER_TOKEN}, Reason.CHAIN),
        ({"is_payable": False}, Reason.NOT_PAYABLE),
        ({"is_own": True, "token": OTHER_TOKEN}, Reason.OWN_TRANSACTION),
    ],
)
def test_each_transfer_counts_or_says_why_not(changes: dict[str, Any], reason: Reason | None) -> None:
    assessment = _assess(make_payment(), t(1000, 10, **changes))
    (verdict,) = assessment.verdicts
    assert (verdict.counts, verdict.reason) == (reason is None, reason)


def test_what_comes_after_completion_does_not_count_but_is_received() -> None:
    assessment = _assess(make_payment(), t(600, 5), t(600, 6), t(7, 7))
    assert [verdict.reason for verdict in assessment.verdicts] == [None, None, Reason.AFTER_COMPLETION]
    assert assessment.standing.received == 1207
    assert assessment.standing.completed_block == 6, "its confirmations are those of the youngest that was needed"


def test_an_orphaned_transfer_is_no_money() -> None:
    assessment = _assess(make_payment(), t(1000, 10, status=TransferStatus.ORPHANED))
    assert assessment.verdicts == ()
    assert assessment.standing == Standing()


def test_only_the_final_part_is_confirmed() -> None:
    assessment = _assess(make_payment(), t(300, 5), t(300, 9), t(300, 10), final_block=9)
    assert assessment.confirmed == 600
    assert assessment.standing.received == 900


def test_a_payment_is_confirmed_when_each_transfer_that_it_needs_is_final() -> None:
    final, deadline = TransferStatus.FINAL, Facts(passed_time=block_time(DEADLINE_BLOCK + 1))
    parts = (t(400, 5), t(600, 6, status=final), t(50, 7))
    waiting = assess(make_payment(), parts, deadline)
    assert (waiting.standing.status, waiting.confirmed) == (Status.DETECTED, 600), "the older part is not verified yet"
    done = assess(make_payment(), (replace(parts[0], status=final), *parts[1:]), deadline)
    assert (done.standing.status, done.confirmed) == (Status.CONFIRMED, 1000), "the surplus is not needed"


F = {"status": TransferStatus.FINAL}
BESIDE_UNVERIFIED: dict[str, tuple[tuple[Transfer, ...], str, list[bool]]] = {
    "one unit before all of it": ((t(1, 5), t(1000, 6, **F)), "confirmed on_time 1000 of 1001 block 6", [True, True]),
    "all of it twice": ((t(1000, 5), t(1000, 6, **F)), "confirmed on_time 1000 of 2000 block 6", [True, True]),
    "all of it twice, both final": (
        (t(1000, 5, **F), t(1000, 6, **F)),
        "confirmed on_time 2000 of 2000 block 5",
        [True, False],
    ),
    "it makes up for what is missing": (
        (t(1, 5), t(999, 6, **F)),
        "detected on_time 999 of 1000 block 6",
        [True, True],
    ),
    "what is final is late": ((t(1000, 5), t(1000, LATE, **F)), "detected on_time 1000 of 2000 block 5", [True, True]),
    "it comes after what is final": (
        (t(1000, 5, **F), t(1, 6)),
        "confirmed on_time 1000 of 1001 block 5",
        [True, False],
    ),
}


@pytest.mark.parametrize("name", BESIDE_UNVERIFIED)
def test_what_nobody_bears_out_keeps_no_final_money_waiting_and_makes_up_for_none(name: str) -> None:
    transfers, told, counts = BESIDE_UNVERIFIED[name]
    found = assess(make_payment(), transfers, Facts(passed_time=block_time(DEADLINE_BLOCK)))
    standing, block = found.standing, found.standing.completed_block
    assert f"{standing.status} {standing.timing} {found.confirmed} of {standing.received} block {block}" == told
    assert [verdict.counts for verdict in found.verdicts] == counts


def test_a_chain_whose_final_block_was_never_read_expires_nothing() -> None:
    facts = Facts(passed_time=None)
    assert assess(make_payment(), (), facts).standing.status is Status.PENDING


def test_more_confirmations_asked_for_are_waited_for() -> None:
    life = Life(make_payment(required=10))
    read(18, t(1000, 10))(life)
    assert life.events == ["created", "detected"], "9 of 10"
    read(19)(life)
    assert life.events == ["created", "detected", "confirmed"]


def test_what_can_be_accepted_is_what_is_final_in_the_asset() -> None:
    final, seen = TransferStatus.FINAL, TransferStatus.SEEN
    transfers = (
        t(300, 5, status=final),
        t(900, 6, status=final),
        t(50, 7, status=seen),
        t(1000, 8, status=final, token=OTHER_TOKEN),
        t(1000, 9, status=TransferStatus.ORPHANED),
    )
    assert final_amount(make_payment(), transfers) == 1200


def test_a_payment_is_shown_as_the_contract_says() -> None:
    standing = Standing(
        Status.CONFIRMED, 12_600_000, AmountStatus.OVER, Timing.ON_TIME, Settlement.WAITING, completed_block=118
    )
    payment = make_payment(
        amount=12_500_000,
        standing=standing,
        confirmed=12_500_000,
        version=3,
        token=bytes.fromhex("5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"),
        address=TREASURY,
        order_id="1001",
        metadata={"plan": "pro"},
        confirmed_at=block_time(30).replace(microsecond=999_999),
    )
    assert payment_object(payment, read_block=120) == {
        "id": payment.id,
        "object": "payment",
        "status": "confirmed",
        "amount_status": "over",
        "timing": "on_time",
        "settlement": "waiting",
        "version": 3,
        "chain": "anvil",
        "chain_id": 31337,
        "token": "USDC",
        "token_address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "decimals": 6,
        "amount": "12.5",
        "amount_atomic": "12500000",
        "received": "12.6",
        "received_atomic": "12600000",
        "confirmed": "12.5",
        "confirmed_atomic": "12500000",
        "address": "0x" + "99" * 20,
        "payment_uri": None,
        "checkout_url": None,
        "confirmations": 3,
        "confirmations_required": 3,
        "price": None,
        "assets": None,
        "quote": None,
        "order_id": "1001",
        "customer_email": None,
        "metadata": {"plan": "pro"},
        "webhook_url": None,
        "created_at": "2026-11-22T12:00:00Z",
        "expires_at": "2026-11-22T12:01:40Z",
        "detected_at": None,
        "confirmed_at": "2026-11-22T12:00:30Z",
        "settled_at": None,
    }


def test_a_payment_of_coin_has_a_link_to_pay_it_and_no_token() -> None:
    shown = payment_object(make_payment(token=NATIVE, decimals=18, address=TREASURY), read_block=0)
    assert shown["payment_uri"] == f"ethereum:0x{'99' * 20}@31337?value=1000"
    assert (shown["token"], shown["token_address"], shown["amount"]) == (None, None, "0.000000000000001")
    assert shown["confirmations"] == 0


def _assess(payment: Any, *transfers: Transfer, final_block: int = 50) -> Any:
    final, seen = TransferStatus.FINAL, TransferStatus.SEEN
    judged = (
        replace(t, status=final if t.block_number <= final_block else seen)
        if t.status is not TransferStatus.ORPHANED
        else t
        for t in transfers
    )
    return assess(payment, tuple(judged), Facts(passed_time=block_time(final_block)))
