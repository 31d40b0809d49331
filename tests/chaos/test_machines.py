"""Two machines on one Postgres and one Redis: they share the chains out, and either may die or lose its network."""

import time
from collections.abc import Callable

import pytest

from ctrip.database.loops import LEASE
from ctrip.domain.payments import Payment, Status
from ctrip.services.audit import audit
from tests.chaos.deposits import Shop
from tests.chaos.machines import Machine, build_machines, read_by_both, watching
from tests.chaos.town import Town
from tests.conftest import MERCHANT_ID
from tests.devchain import ETHER
from tests.waiting import wait_until

pytestmark = pytest.mark.chaos
TOGETHER_S = 10.0
TAKEN_OVER_WITHIN_S = LEASE.total_seconds() + 25
"""The lease of the dead, and the time in which a scheduler finds out that a message went with them."""


@pytest.mark.timeout(600)
def test_chains_are_shared_out_either_machine_may_go_and_nothing_is_read_by_both(town: Town) -> None:
    with watching(town.ctx), build_machines(town) as (left, right):
        for machine in (left, right):
            town.settle(machine.group)
        for street in town.streets:
            street.chain.mine_every(1)
        _live_for(TOGETHER_S)
        shares = {machine.name: sum(map(len, machine.read_at.values())) for machine in (left, right)}
        assert min(shares.values()) > 0, shares
        for gone, stays in ((left, right), (right, left)):
            _goes_on_without(town, gone, stays, leave=gone.group.kill, come_back=gone.group.keep)
            _goes_on_without(town, gone, stays, leave=gone.cut, come_back=gone.mend)
        _live_for(TOGETHER_S)
        for street in town.streets:
            street.chain.mine_every(0)
        assert read_by_both(town, (left, right)) == []
    assert audit(town.ctx) == []
    print(f"blocks were asked for {shares} times together")  # noqa: T201


def _goes_on_without(
    town: Town, gone: Machine, stays: Machine, *, leave: Callable[[], None], come_back: Callable[[], None]
) -> None:
    """Every chain is read by the one that stays, payments on it are confirmed, and the other comes back."""
    leave()
    began = time.monotonic()
    asked = [_pay(town, number) for number in range(len(town.streets))]

    def are_confirmed() -> bool:
        return all(shop.payment(payment).standing.status is Status.CONFIRMED for shop, payment in asked)

    wait_until(are_confirmed, within_s=TAKEN_OVER_WITHIN_S, every_s=0.5, what=f"{stays.name} reads every chain")
    print(f"without {gone.name}: all confirmed after {time.monotonic() - began:.1f} s")  # noqa: T201
    reads = {chain_id: len(read_at) for chain_id, read_at in gone.read_at.items()}
    come_back()
    wait_until(
        lambda: any(len(read_at) > reads[chain_id] for chain_id, read_at in gone.read_at.items()),
        within_s=TAKEN_OVER_WITHIN_S,
        what=f"{gone.name} reads again",
    )


def _pay(town: Town, number: int) -> tuple[Shop, Payment]:
    street = town.streets[number]
    shop = Shop(town, street, MERCHANT_ID)
    payment = shop.ask(ETHER)
    street.chain.pay(payment.address, ETHER)
    return shop, payment


def _live_for(seconds: float) -> None:
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until, within_s=seconds + 5)
