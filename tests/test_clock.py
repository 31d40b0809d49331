"""Until when deadlines may pass: as far as a chain's time is not one node's word alone."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from ctrip.domain.payments import Status
from ctrip.services.audit import audit
from tests.devchain import ETHER, DevChain
from tests.node_blocks import Stuck, WrongTimes
from tests.node_faults import Down, Fault, Json
from tests.test_made_up_blocks import Watch, Worlds, be, scan, status, worlds

__all__ = ["worlds"]
pytestmark = pytest.mark.infra


class OneWrongTime(WrongTimes):
    """One block four minutes too late; those after it are later still."""

    seconds = 240
    number: ClassVar[int]

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        block = reply.get("result")
        is_meant = method.startswith("eth_getBlockBy") and block and int(block["number"], 16) == self.number
        return super().reply(method, params, reply) if is_meant else reply


@pytest.mark.parametrize("count", [2, 3])
def test_while_catching_up_no_money_is_late_by_the_word_of_one(worlds: Worlds, anvil: DevChain, count: int) -> None:
    world, nodes = worlds(count)
    anvil.mine(10)
    asked = world.ask(ETHER, expires_in_s=100)
    anvil.pay(asked.address, ETHER)
    OneWrongTime.number = anvil.mine(1)
    anvil.mine(80, seconds_apart=60)
    be(nodes[0], OneWrongTime)
    scan(world, 5)
    assert world.events(asked) in (["created"], ["created", "detected", "confirmed"])
    nodes[0].heal()
    world.scan()
    assert world.events(asked) == ["created", "detected", "confirmed"]
    assert audit(world.ctx) == []


def test_a_payment_that_something_else_concerns_does_not_expire_by_the_word_of_one(
    worlds: Worlds, anvil: DevChain
) -> None:
    watch = Watch()
    world, nodes = worlds(2, clock=watch, now=lambda: datetime.now(UTC) + timedelta(hours=1))
    part, unpaid = world.ask(ETHER), world.ask(ETHER)
    scan(world, 2)
    be(nodes[0], WrongTimes)
    be(nodes[1], Down)
    anvil.mine(2)
    scan(world, 2)
    anvil.pay(part.address, ETHER // 2)
    anvil.mine(4)
    for _ in range(6):
        watch.ahead_s += 20
        scan(world, 1)
    assert world.cursor().read_block == anvil.block_number()
    assert (world.events(part), world.events(unpaid)) == (["created", "partially_paid"], ["created"])


@pytest.mark.parametrize("fault", [Down, Stuck])
def test_while_no_other_node_can_tell_deadlines_pass_a_little_later(
    worlds: Worlds, anvil: DevChain, fault: type[Fault]
) -> None:
    watch = Watch()
    world, nodes = worlds(2, clock=watch, now=lambda: datetime.fromtimestamp(anvil.head_time() + 2, UTC))
    anvil.mine(20, seconds_apart=60)
    world.scan()
    unpaid = world.ask(ETHER, expires_in_s=300)
    be(nodes[1], fault)
    for _ in range(20):
        anvil.mine(1, seconds_apart=60)
        watch.ahead_s += 60
        scan(world, 2)
    assert status(world, unpaid) == {Status.EXPIRED}
    assert world.cursor().read_block == anvil.block_number()
