"""Reorgs of depth 1 to 12 with 3 confirmations: whatever they take, the rows end as a scan from scratch would say."""

import itertools
from collections import Counter
from dataclasses import dataclass, replace

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import cursors
from ctrip.database.models import chain_cursors, chain_headers, coverage, payments, transfers
from ctrip.domain.addresses import NATIVE
from ctrip.domain.payments import AmountStatus, Payment, Settlement, Standing, Status
from ctrip.services.audit import audit
from tests.chaos.canonical import CanonicalChain, Paid
from tests.devchain import ETHER, USDC, DevChain
from tests.factories import asked_of
from tests.world import World

pytestmark = pytest.mark.infra

DEPTHS = range(1, 13)
FATES = ("comes back", "vanishes", "is replaced", "moves to another block")
MOMENTS = ("before detection", "after detection", "after confirmation", "after the sweep")
CASES = list(itertools.product(FATES, MOMENTS))
LIFE = 24
"""Blocks in which whatever is paid is swept, with some to spare."""


@dataclass(frozen=True)
class Told:
    """A payment that was told of, what its address is sent in the end, and from which block on."""

    asked: Payment
    amount: int
    since: int


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    anvil.mine(max(DEPTHS) + 2)  # so that no reorg here reaches the block that the fixture goes back to
    return World(ctx, anvil)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[" ".join(case) for case in CASES])
def test_a_reorg_ends_as_a_scan_of_the_canonical_chain_would(world: World, usdc: bytes, number: int) -> None:
    fate, moment = CASES[number]
    # One depth each here, so that all twelve are told in turn; `make test-chaos` tells each with every other.
    depth = DEPTHS[(5 * number + 2) % len(DEPTHS)]
    told = _tell(world, usdc, depth=depth, fate=fate, moment=moment)
    assert audit(world.ctx) == []
    _check_against_a_scan_from_scratch(world, usdc, told)


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_reorg_of_every_depth_ends_so(world: World, usdc: bytes, case: tuple[str, str]) -> None:
    fate, moment = case
    told = [each for depth in DEPTHS for each in _tell(world, usdc, depth=depth, fate=fate, moment=moment)]
    assert audit(world.ctx) == []
    _check_against_a_scan_from_scratch(world, usdc, told)


# --- telling --------------------------------------------------------------------------------------------------------


def _tell(world: World, usdc: bytes, *, depth: int, fate: str, moment: str) -> list[Told]:
    """Pay in coin and in tokens, bring it to the moment, let a reorg of this depth do its work, and come to rest."""
    since = world.anvil.block_number()
    # So few confirmations that a reorg as deep as this takes what is final; a sweep is always three blocks deep.
    required = min(depth, 3) if moment == "after confirmation" else 3
    asked = [
        world.ask(ETHER + depth, required=required),
        world.ask(10 * USDC + depth, token=usdc, required=required),
    ]
    raws = [
        world.anvil.raw(_pay(world, asked_of(payment).token, payment.address, asked_of(payment).amount))
        for payment in asked
    ]
    world.anvil.mine()
    at = world.anvil.block_number()
    _bring_to(world, asked, moment)
    # The payment is to stand in the deepest block that the reorg takes.
    world.anvil.mine(max(0, depth - 1 - (world.anvil.block_number() - at)))
    if moment.endswith(("confirmation", "sweep")):
        world.scan()
    is_taken = world.anvil.block_number() - at < depth
    due = _reorg(world, asked, raws, depth=depth, fate=fate if is_taken else "")
    world.anvil.mine()
    world.scan()
    told = [Told(payment, amount, since) for payment, amount in zip(asked, due, strict=True)]
    world.live(LIFE, until=lambda: all(_is_at_rest(world, each) for each in told))
    if not any(due):
        world.live(5)  # whatever was swept of it meanwhile
    for each in told:
        standing = world.payment(each.asked).standing
        assert standing.received == each.amount, (depth, fate, moment, world.events(each.asked))
        assert standing.status is (Status.SETTLED if each.amount >= asked_of(each.asked).amount else Status.PENDING), (
            depth,
            fate,
            moment,
            world.events(each.asked),
        )
    return told


def _bring_to(world: World, asked: list[Payment], moment: str) -> None:
    if moment == "after detection":
        world.scan()
        assert [world.payment(payment).standing.status for payment in asked] == [Status.DETECTED] * 2
    if moment == "after confirmation":
        world.anvil.mine(asked_of(asked[0]).required - 1)
        world.scan()
        assert [world.payment(payment).standing.status for payment in asked] == [Status.CONFIRMED] * 2
    if moment == "after the sweep":
        world.live(LIFE, until=lambda: all(_is_settled(world, payment) for payment in asked))
        assert all(_is_settled(world, payment) for payment in asked)


def _reorg(world: World, asked: list[Payment], raws: list[bytes], *, depth: int, fate: str) -> list[int]:
    """Replace the newest blocks. Returns what each payment's address is sent in the end."""
    amounts = [asked_of(payment).amount for payment in asked]
    match fate:
        case "comes back":
            # In the same block; another's tokens go first, and move the log of ours to another index.
            other = world.anvil.raw(_pay(world, asked_of(asked[1]).token, b"\x11" * 20, 1))
            world.reorg(depth, (other, 0), *((raw, 0) for raw in raws))
        case "moves to another block" if depth > 1:
            world.reorg(depth, *((raw, depth - 1) for raw in raws))
        case "moves to another block":
            world.reorg(depth)
            for raw in raws:
                world.anvil.call("eth_sendRawTransaction", "0x" + raw.hex())
        case "is replaced":
            # By twice as much of the same sender, or by as much of another.
            world.reorg(depth)
            is_more = depth % 2 == 0
            amounts = [amount * (2 if is_more else 1) for amount in amounts]
            for payment, amount in zip(asked, amounts, strict=True):
                _pay(world, asked_of(payment).token, payment.address, amount, by_another=not is_more)
        case "vanishes":
            world.reorg(depth)
            amounts = [0, 0]
        case _:
            world.reorg(depth)
    return amounts


def _pay(world: World, token: bytes, address: bytes, amount: int, *, by_another: bool = False) -> bytes:
    sender = world.anvil.accounts()[1] if by_another else world.anvil.faucet
    if token == NATIVE:
        return world.anvil.pay(address, amount, sender=sender)
    if by_another:
        world.anvil.mint(token, to=sender, amount=amount, sender=sender)
    return world.anvil.pay_token(token, address, amount, sender=sender)


def _is_settled(world: World, asked: Payment) -> bool:
    return world.payment(asked).standing.status is Status.SETTLED


def _is_at_rest(world: World, told: Told) -> bool:
    return _is_settled(world, told.asked) or told.amount < asked_of(told.asked).amount


# --- judging --------------------------------------------------------------------------------------------------------


def _check_against_a_scan_from_scratch(world: World, usdc: bytes, told: list[Told]) -> None:
    """Forget all that was ever read, read the chain again, and compare. The chain itself is asked too."""
    lived = [_assessed(world, each.asked) for each in told]
    since = min(each.since for each in told)
    on_chain = CanonicalChain(world.anvil, usdc, since=since).paid([each.asked.address for each in told])
    stored = [paid for each in told for paid in _paid_to(world, each.asked)]
    assert Counter(stored) == Counter(on_chain)
    _forget(world, start_block=since)
    world.scan()
    assert lived == [_assessed(world, each.asked) for each in told]


def _assessed(world: World, asked: Payment) -> tuple[object, ...]:
    """Everything of a payment that follows from the chain, and nothing that tells when it was noticed."""
    payment = world.payment(asked)
    arrived = [replace(each, id="", is_announced=False) for each in world.transfers(asked)]
    return payment.standing, payment.confirmed, arrived


def _paid_to(world: World, asked: Payment) -> list[Paid]:
    return [
        Paid(t.recipient, t.token, t.amount, t.tx_hash or b"", t.log_index, t.block_number, t.block_hash)
        for t in world.transfers(asked)
    ]


def _forget(world: World, *, start_block: int) -> None:
    start = world.ctx.clients[world.chain.chain_id].headers([start_block])[start_block]
    fresh = Standing()
    unread = {
        "status": fresh.status,
        "received": 0,
        "confirmed": 0,
        "amount_status": AmountStatus.NONE,
        "timing": None,
        "settlement": Settlement.NONE,
        "completed_block": None,
    }
    with world.ctx.sessions.begin() as session:
        for table in (transfers, chain_headers, chain_cursors, coverage):
            session.execute(sa.delete(table))
        session.execute(sa.update(payments).values(unread))
        cursors.start(session, world.chain.chain_id, start)


# --- the edges ------------------------------------------------------------------------------------------------------


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
