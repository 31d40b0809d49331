"""Reorgs of depth 1 to 6 with 3 confirmations: whatever they take, the rows end as a scan from scratch would say."""

import itertools

import pytest

from ctrip.context import Context
from ctrip.domain.addresses import NATIVE
from ctrip.domain.payments import Payment, Status
from ctrip.services.audit import audit
from tests.devchain import ETHER, USDC, DevChain
from tests.world import World

pytestmark = pytest.mark.infra

DEPTHS = range(1, 7)
MOMENTS = ("before detection", "after detection", "after confirmation", "after the sweep")
FATES = ("comes back", "comes back with another log index", "vanishes")


CASES = [
    (asset, fate, moment)
    for asset, fate, moment in itertools.product(("coin", "token"), FATES, MOMENTS)
    if asset == "token" or "log index" not in fate  # coin has no log
]


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    anvil.mine(8)  # so that no reorg here reaches the block that the fixture goes back to
    return World(ctx, anvil)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[" ".join(case) for case in CASES])
def test_a_reorg_ends_as_a_scan_of_the_canonical_chain_would(world: World, usdc: bytes, number: int) -> None:
    asset, fate, moment = CASES[number]
    # One depth each here, so that all six are told in turn; `make test-chaos` tells each with every other.
    depth = DEPTHS[number % len(DEPTHS)]
    _tell(world, usdc if asset == "token" else NATIVE, depth=depth, fate=fate, moment=moment)
    assert audit(world.ctx) == []


@pytest.mark.chaos
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_reorg_of_every_depth_ends_so(world: World, usdc: bytes, case: tuple[str, str, str]) -> None:
    asset, fate, moment = case
    for depth in DEPTHS:
        _tell(world, usdc if asset == "token" else NATIVE, depth=depth, fate=fate, moment=moment)
    assert audit(world.ctx) == []


def _tell(world: World, token: bytes, *, depth: int, fate: str, moment: str) -> None:
    amount = ETHER if token == NATIVE else 10 * USDC
    asked = world.ask(amount, token=token)
    paid = _pay(world, token, asked.address, amount)
    raw = world.anvil.raw(paid)
    world.anvil.mine()
    if moment == "after detection":
        world.scan()
        assert world.payment(asked).standing.status is Status.DETECTED
    if moment == "after confirmation":
        world.anvil.mine(2)
        world.scan()
        assert world.payment(asked).standing.status is Status.CONFIRMED
    if moment == "after the sweep":
        world.live(24, until=lambda: _is_settled(world, asked))
        assert _is_settled(world, asked)
    world.anvil.mine(max(0, depth - 1 - _age(world, asked, paid)))  # so that the reorg may reach the payment
    if "log index" in fate:
        other = _pay(world, token, b"\x11" * 20, 1)  # its log goes first, and moves ours to another index
        again = [(world.anvil.raw(other), 0), (raw, 0)]
    else:
        again = [(raw, depth - 1)] if fate == "comes back" else []
    reached = _age(world, asked, paid) < depth
    world.reorg(depth, *(again if reached else []))
    world.anvil.mine()
    world.scan()
    gone = reached and fate == "vanishes"
    world.live(5 if gone else 24, until=lambda: not gone and _is_settled(world, asked))
    standing = world.payment(asked).standing
    assert standing.status is (Status.PENDING if gone else Status.SETTLED), (depth, fate, moment, world.events(asked))
    assert standing.received == (0 if gone else amount)
    assert [transfer.amount for transfer in world.transfers(asked) if not transfer.is_own] == ([] if gone else [amount])


def _pay(world: World, token: bytes, address: bytes, amount: int) -> bytes:
    if token == NATIVE:
        return world.anvil.pay(address, amount)
    return world.anvil.pay_token(token, address, amount)


def _age(world: World, asked: Payment, paid: bytes) -> int:
    """How many blocks stand on top of the payment's."""
    receipt = world.ctx.clients[world.chain.chain_id].receipts([paid])[paid]
    return world.anvil.block_number() - receipt.block_number


def _is_settled(world: World, asked: Payment) -> bool:
    return world.payment(asked).standing.status is Status.SETTLED


def test_a_reorg_deeper_than_the_window_stops_the_chain(world: World) -> None:
    asked = world.ask(ETHER)
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine(world.chain.reorg_window + 5)
    world.scan()
    confirmed = world.payment(asked)
    world.reorg(world.chain.reorg_window + 2)
    world.anvil.mine()
    world.scan()
    assert "canonical" in (world.stopped_reason() or "")
    assert world.payment(asked).standing == confirmed.standing, "a stopped chain moves no status"


def test_a_reorg_of_the_very_first_block_read_is_followed(world: World) -> None:
    world.reorg(1)
    world.anvil.mine()
    asked = world.ask(ETHER)
    world.anvil.pay(asked.address, ETHER)
    world.anvil.mine(3)
    world.scan()
    assert world.stopped_reason() is None
    assert world.payment(asked).standing.status is Status.CONFIRMED
