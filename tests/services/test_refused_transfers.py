"""Coin transactions that failed, on a real dev chain and Postgres: no money, and the evidence says so."""

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import cursors
from ctrip.database.models import refused_transfers
from ctrip.domain.addresses import hex_text
from ctrip.domain.evidence import evidence_object, explain
from ctrip.domain.payments import Payment, Status
from ctrip.domain.refused_transfers import RefusedTransfer
from ctrip.services import evidence, jobs
from ctrip.services.audit import audit
from ctrip.services.rereading import process_payment, rescan_chain
from ctrip.services.resuming import resume_chain
from tests.devchain import ETHER, DevChain
from tests.jobs import see_through
from tests.world import World

pytestmark = pytest.mark.infra

BURN_ALL = bytes.fromhex("5b5f56")  # JUMPDEST PUSH0 JUMP: for ever, until the gas is gone


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    return World(ctx, anvil)


def fail(world: World, asked: Payment) -> bytes:
    """Send coin by a transaction that runs out of gas."""
    world.anvil.set_code(asked.address, BURN_ALL)
    return world.anvil.send(sender=world.anvil.faucet, to=asked.address, value=ETHER, gas=hex(50_000))


def refused(world: World, asked: Payment) -> list[RefusedTransfer]:
    return list(evidence.gather(world.ctx, asked.id).refused)


def forget(world: World) -> None:
    with world.ctx.sessions.begin() as session:
        session.execute(sa.delete(refused_transfers))


def test_coin_of_a_transaction_that_failed_is_told_in_the_evidence(world: World) -> None:
    asked, other = world.ask(ETHER), world.ask(ETHER)
    sent = fail(world, asked)
    paid = world.anvil.pay(other.address, ETHER)
    block = world.anvil.mine()
    world.scan()
    found = evidence.gather(world.ctx, asked.id)
    assert (world.payment(asked).standing.status, world.transfers(asked)) == (Status.PENDING, [])
    said = f"transaction {hex_text(sent)} in block {block} to this address failed: no coin moved"
    assert said in explain(found)
    listed = evidence_object(found)["refused"]
    assert isinstance(listed, list)
    (shown,) = listed
    assert (shown["tx_hash"], shown["amount_atomic"], shown["reason"]) == (hex_text(sent), str(ETHER), "failed")
    assert [each.tx_hash for each in world.transfers(other)] == [paid], "what came beside it arrived"
    assert audit(world.ctx) == []


def test_what_failed_is_told_once_however_often_it_is_read_and_goes_with_its_block(world: World) -> None:
    asked = world.ask(ETHER)
    fail(world, asked)
    block = world.anvil.mine()
    world.scan()
    first = refused(world, asked)
    assert len(first) == 1
    for was_read_before in (True, False):
        if not was_read_before:
            forget(world)
        list(rescan_chain(world.ctx, world.chain.name, first=block, last=block, by="cli:me"))
        assert refused(world, asked) == first
    world.reorg(1)
    world.scan()
    assert refused(world, asked) == []


def test_reading_a_payment_again_finds_what_failed(world: World) -> None:
    asked, other = world.ask(ETHER), world.ask(ETHER)
    fail(world, asked)
    fail(world, other)
    world.anvil.mine()
    world.scan()
    found = refused(world, asked)
    forget(world)
    job = jobs.process_payment(world.ctx, payment_id=asked.id, by="key_1")
    assert see_through(world.ctx, job, process_payment)["status"] == "done"
    assert (refused(world, asked), refused(world, other)) == (found, [])


def test_what_failed_above_the_block_that_a_chain_is_resumed_from_is_forgotten(world: World) -> None:
    asked = world.ask(ETHER)
    fail(world, asked)
    block = world.anvil.mine()
    world.scan()
    with world.ctx.sessions.begin() as session:
        cursors.stop(session, world.chain.chain_id, "an operator looks")
    resume_chain(world.ctx, world.chain.name, from_block=block - 1, by="tests")
    assert refused(world, asked) == []
    world.scan()
    assert len(refused(world, asked)) == 1
