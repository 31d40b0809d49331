"""Random lives: whatever a chain, a merchant and a sweeper do, statuses follow the arrows and events tell the truth."""

from dataclasses import replace
from itertools import pairwise, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctrip.domain.events import EventType
from ctrip.domain.money import tolerated
from ctrip.domain.payments import final_amount
from ctrip.domain.standings import TRANSITIONS, AmountStatus, Settlement, Standing, Status, Step, Timing, steps
from ctrip.domain.transfers import Transfer
from tests.domain.life import Life
from tests.factories import OTHER_TOKEN, TOKEN, asked_of, block_time, make_payment, make_transfer

DEADLINE = 10
HEADS = st.integers(0, 9) | st.integers(10, 18)
AMOUNTS = st.integers(1, 8)

_STATUS_OF = {
    EventType.PAYMENT_DETECTED: Status.DETECTED,
    EventType.PAYMENT_CONFIRMED: Status.CONFIRMED,
    EventType.PAYMENT_SETTLED: Status.SETTLED,
    EventType.PAYMENT_EXPIRED: Status.EXPIRED,
    EventType.PAYMENT_CANCELED: Status.CANCELED,
    EventType.PAYMENT_ACCEPTED: Status.CONFIRMED,
}
_HEIGHT = {Status.PENDING: 0, Status.EXPIRED: 0, Status.CANCELED: 0, Status.DETECTED: 1, Status.CONFIRMED: 2}


@st.composite
def transfers(draw: st.DrawFn) -> tuple[Transfer, ...]:
    """What one fork of the chain holds: in our asset, mostly."""
    drawn = draw(
        st.lists(
            st.tuples(AMOUNTS, st.integers(1, 18), st.sampled_from([TOKEN] * 4 + [OTHER_TOKEN])), min_size=1, max_size=3
        )
    )
    return tuple(
        make_transfer(amount, block, token=token, name=f"{number}")
        for number, (amount, block, token) in enumerate(drawn)
    )


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """A life of up to eight reads, each of any fork; the merchant cancels and accepts wherever that is allowed."""
    payment = make_payment(
        amount=draw(AMOUNTS),
        tolerance_bps=draw(st.sampled_from([0, 2500])),
        required=draw(st.integers(1, 4)),
        expires_at=block_time(DEADLINE),
    )
    life = Life(payment, threshold=draw(st.integers(0, 3)))
    for _ in range(draw(st.integers(1, 8))):
        if draw(st.integers(0, 2)):
            life.transfers = draw(transfers())
        life.head = draw(HEADS)
        life.transfers = tuple(t for t in life.transfers if t.block_number <= life.head)
        life.covered, life.is_held = draw(st.integers(0, 16)), draw(st.booleans())
        life.assess()
        # Most payments are not canceled at once: other things should happen to them, too.
        if draw(st.integers(0, 9)) >= (8 if life.standing.status is Status.PENDING else 3):
            _let_the_merchant_act(life)
    return life


def _let_the_merchant_act(life: Life) -> None:
    status, final = life.standing.status, final_amount(life.payment, life.judged)
    if status is Status.PENDING and not life.transfers:
        life.payment = replace(life.payment, canceled_at=block_time(life.head))
    elif status in (Status.EXPIRED, Status.CANCELED) and final > 0:
        life.payment = replace(life.payment, accepted_at=block_time(life.head), accepted_amount=final)
    life.assess()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lives())
def test_no_life_leaves_the_arrows_and_each_change_has_one_version_and_one_event(life: Life) -> None:
    # `Life` checks each arrow as it is taken.
    assert life.payment.version == len(life.events) == 1 + len(life.told)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lives())
def test_each_event_says_what_its_payment_shows(life: Life) -> None:
    before = [Standing(), *(step.standing for step in life.told)]
    for old, step in zip(before, life.told, strict=False):
        _check_event(old, step)


def _check_event(old: Standing, step: Step) -> None:
    new, event = step.standing, step.event
    assert not (new.status in (Status.PENDING, Status.EXPIRED) and new.timing is Timing.ON_TIME)
    assert not (new.status in (Status.PENDING, Status.DETECTED) and new.settlement is not Settlement.NONE)
    assert not (new.status is Status.SETTLED and new.settlement is not Settlement.DONE)
    if event in _STATUS_OF:
        assert new.status is _STATUS_OF[event]
        assert new.status is not old.status
        return
    if event is EventType.PAYMENT_REVERTED:
        fell = _HEIGHT.get(new.status, 3) < _HEIGHT.get(old.status, 3) or old.status is Status.EXPIRED
        assert fell or new.received < old.received
        return
    assert new.status is old.status, f"{event} tells of no status"
    if event is EventType.PAYMENT_LATE:
        assert new.timing is Timing.LATE or new.status is Status.CANCELED
    elif event is EventType.PAYMENT_PARTIALLY_PAID:
        assert new.received > old.received
        assert new.timing is None
    else:
        assert event is EventType.PAYMENT_UPDATED


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lives())
def test_no_standing_contradicts_itself(life: Life) -> None:
    payment, standing = life.payment, life.standing
    status, timing = standing.status, standing.timing
    assert (timing is None) == (standing.received < tolerated(asked_of(payment).amount, payment.tolerance_bps))
    assert (standing.amount_status is AmountStatus.NONE) == (standing.received == 0)
    assert (standing.amount_status is AmountStatus.EXACT) == (standing.received == asked_of(payment).amount)
    assert (standing.amount_status is AmountStatus.OVER) == (standing.received > asked_of(payment).amount)
    assert payment.confirmed <= standing.received
    if status in (Status.PENDING, Status.DETECTED):
        assert standing.settlement is Settlement.NONE
    if status in (Status.CONFIRMED, Status.SETTLED):
        assert payment.target is not None and payment.confirmed >= payment.target
        assert (status is Status.SETTLED) == (standing.settlement is Settlement.DONE)
        assert timing is Timing.ON_TIME or payment.accepted_at is not None
    if status is Status.DETECTED:
        assert timing is Timing.ON_TIME
    if status is Status.EXPIRED:
        assert timing is not Timing.ON_TIME
    if status is Status.CANCELED:
        assert payment.canceled_at is not None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lives())
def test_reading_the_same_blocks_again_tells_nothing(life: Life) -> None:
    told = len(life.told)
    life.assess()
    assert len(life.told) == told


STANDINGS = [
    Standing(),
    Standing(Status.PENDING, 400, AmountStatus.PARTIAL),
    Standing(Status.PENDING, 1000, AmountStatus.EXACT, Timing.LATE),
    Standing(Status.DETECTED, 1000, AmountStatus.EXACT, Timing.ON_TIME),
    Standing(Status.CONFIRMED, 1000, AmountStatus.EXACT, Timing.ON_TIME, Settlement.WAITING),
    Standing(Status.CONFIRMED, 1000, AmountStatus.EXACT, Timing.ON_TIME, Settlement.HELD),
    Standing(Status.SETTLED, 1000, AmountStatus.EXACT, Timing.ON_TIME, Settlement.DONE),
    Standing(Status.SETTLED, 1400, AmountStatus.OVER, Timing.ON_TIME, Settlement.DONE),
    Standing(Status.EXPIRED),
    Standing(Status.EXPIRED, 400, AmountStatus.PARTIAL, None, Settlement.DONE),
    Standing(Status.EXPIRED, 1000, AmountStatus.EXACT, Timing.LATE, Settlement.WAITING),
]


@pytest.mark.parametrize(("old", "new"), list(product(STANDINGS, STANDINGS)))
def test_there_is_a_way_from_any_standing_to_any_other(old: Standing, new: Standing) -> None:
    way = list(steps(old, new))
    assert ([step.standing for step in way] or [old])[-1] == new
    for before, after in pairwise([old, *(step.standing for step in way)]):
        assert before != after
        assert after.status is before.status or after.status in TRANSITIONS[before.status]


def test_another_block_for_the_same_money_is_no_change() -> None:
    old = Standing(Status.DETECTED, 1000, AmountStatus.EXACT, Timing.ON_TIME, completed_block=10)
    assert list(steps(old, replace(old, completed_block=11))) == []
