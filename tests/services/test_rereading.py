"""Blocks behind the cursor, on a real dev chain: ranges read again, and what a token that is listed later lacks."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database import coverage, cursors
from ctrip.database.models import chain_cursors, transfers
from ctrip.database.models import coverage as coverage_rows
from ctrip.domain.chains import Token
from ctrip.domain.loops import Tick
from ctrip.domain.payments import Status
from ctrip.domain.scanning import BlockRange
from ctrip.errors import Conflict, InvalidValue, NotFound
from ctrip.services import jobs
from ctrip.services.audit import audit
from ctrip.services.overview import take
from ctrip.services.rereading import Rescanned, backfill, process_payment, rescan_chain, schedule_backfills
from ctrip.services.rereading.rescanning import SPAN
from tests.between import Answer, between, forward
from tests.devchain import ETHER, USDC, DevChain
from tests.jobs import BY, see_through
from tests.world import World

pytestmark = pytest.mark.infra


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    anvil.mine(20)  # so that no reorg here reaches what all tests stand on
    return World(ctx, anvil)


def rescan(world: World, first: int | None = None, last: int | None = None, *, ctx: Context | None = None) -> Rescanned:
    at = world.cursor()
    first, last = at.start_block + 1 if first is None else first, at.read_block if last is None else last
    *_, done = rescan_chain(ctx or world.ctx, world.chain.name, first=first, last=last, by="cli:me")
    return done


def test_a_rescan_stores_what_is_missing_orphans_what_is_not_there_and_leaves_the_rest(
    world: World, usdc: bytes
) -> None:
    coin, token = world.paid(), world.paid(5 * USDC, token=usdc)
    world.anvil.mine(world.chain.reorg_window + 5)
    world.scan()
    before = world.rows()
    done = rescan(world)
    read = world.cursor().read_block - world.cursor().start_block
    assert done == Rescanned(world.cursor().read_block + 1, blocks=read)
    assert world.rows() == before, "what is right stays as it is"

    with world.ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers).where(transfers.c.payment_id == coin.id))
        false = {"tx_hash": b"\x01" * 32, "id": "trf_false", "log_index": 7}
        (row,) = session.execute(sa.select(transfers).where(transfers.c.payment_id == token.id))
        session.execute(transfers.insert().values({**row._mapping, **false}))
    assert audit(world.ctx) != []
    done = rescan(world)
    assert (done.transfers_stored, done.transfers_orphaned) == (1, 1)
    world.scan()
    assert audit(world.ctx) == []
    after = world.rows()
    done = rescan(world)
    assert (done.transfers_stored, done.transfers_orphaned) == (0, 0)
    assert world.rows() == after, "a second call changes nothing"
    assert world.payment(coin).standing.status is world.payment(token).standing.status is Status.CONFIRMED


def test_a_rescan_that_was_left_off_leaves_consistent_rows_and_a_second_one_goes_on(world: World) -> None:
    early = world.paid()
    world.anvil.mine(2 * SPAN)  # so that no span holds both
    late = world.paid()
    world.anvil.mine(30)
    world.scan()
    with world.ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers))
    at = world.cursor()
    going = rescan_chain(world.ctx, world.chain.name, first=at.start_block + 1, last=at.read_block, by="cli:me")
    stored = next(going).transfers_stored
    going.close()
    assert stored < 2, "or nothing is left to do"
    assert rescan(world).transfers_stored == 2 - stored
    assert audit(world.ctx) == []
    assert len(world.transfers(early)) == len(world.transfers(late)) == 1


def test_a_reorg_that_the_listener_has_not_followed_yet_lets_a_rescan_store_nothing(world: World) -> None:
    coin = world.paid()
    before = world.rows()
    world.anvil.reorg(world.chain.confirmations)
    with pytest.raises(Exception, match="not the one that the listener read"):
        rescan(world)
    assert world.rows() == before
    world.scan()
    assert rescan(world).transfers_orphaned == 0
    assert world.payment(coin).standing.status is Status.PENDING


@pytest.mark.parametrize(
    ("why", "name", "first", "last", "error"),
    [
        ("there is no enabled chain 'moon'; there is anvil", "moon", 1, 2, NotFound),
        ("there are no blocks from 7 to 6", "anvil", 7, 6, InvalidValue),
        ("comes by itself", "anvil", 1, 10**9, InvalidValue),
    ],
)
def test_blocks_that_cannot_be_read_again_are_refused_with_a_reason(
    world: World, why: str, name: str, first: int, last: int, error: type[Exception]
) -> None:
    with pytest.raises(error, match=why):
        rescan_chain(world.ctx, name, first=first, last=last, by="cli:me")


def test_a_node_without_history_is_told_of_before_anything_is_read(world: World) -> None:
    def pruned(body: bytes) -> Answer:
        asked, found = json.loads(body), json.loads(forward(world.anvil.url, body))
        for call, answer in zip(*([each] if isinstance(each, dict) else each for each in (asked, found)), strict=True):
            if call["method"] == "eth_getBlockByNumber" and call["params"][1]:
                answer["result"] = None
        return 200, json.dumps(found).encode()

    world.anvil.mine()
    world.scan()
    with between(world.ctx, pruned) as ctx, pytest.raises(Conflict, match="keeps the whole history"):
        rescan(world, ctx=ctx)


def test_blocks_from_before_the_start_are_read_and_the_chain_begins_there_from_then_on(world: World) -> None:
    start = world.cursor().start_block
    rescan(world, start - 12, start)
    assert world.cursor().start_block == start - 13
    assert audit(world.ctx) == []
    rescan(world, start - 20, start - 15)
    assert world.cursor().start_block == start - 13, "a block between them was not read"


def listing(world: World, token: bytes | None) -> Context:
    """The context of a process that was started with this token listed besides coin, or with coin alone."""
    chain = world.chain
    tokens = (chain.native, *(() if token is None else (Token("NEW", token, 6),)))
    listed = replace(chain, tokens=tokens)
    settings = replace(world.ctx.settings, chains=(listed, *world.ctx.settings.chains[1:]))
    return replace(world.ctx, settings=settings, clients={chain.chain_id: ChainClient(listed)})


def test_what_lies_behind_a_token_that_is_listed_later_is_read_by_its_logs(world: World, usdc: bytes) -> None:
    old, new = listing(world, None), listing(world, usdc)
    world.ctx, world.chain = old, old.settings.chains[0]
    first = world.paid()
    world.anvil.pay_token(usdc, first.address, 7 * USDC)
    world.anvil.mine(30)
    world.anvil.pay_token(usdc, first.address, 8 * USDC)
    world.anvil.mine(world.chain.reorg_window + 5)
    world.scan()
    assert [transfer.symbol for transfer in world.transfers(first)] == ["ETH"], "nobody has asked for the token yet"
    assert schedule_backfills(old) == [], "of coin nothing is missing"

    world.ctx, world.chain = new, new.settings.chains[0]
    world.anvil.mine()
    world.scan()
    unread = world.cursor().read_block - world.cursor().start_block - 1
    assert take(new).chains[0].unread_blocks == unread
    assert audit(new) == [], "what was not read for it yet is no violation"
    assert schedule_backfills(new) == [world.chain.name]
    assert schedule_backfills(new) == [], "a job for it is open"
    (job,) = jobs.matching(new, kind="backfill", status=None, limit=9)
    done = see_through(new, {"id": job.id}, backfill)
    assert done["result"] == {
        "blocks_read": unread,
        "transfers_stored": 2,
        "transfers_orphaned": 0,
        "unread_blocks": 0,
    }
    assert [transfer.amount for transfer in world.transfers(first)][1:] == [7 * USDC, 8 * USDC]
    assert take(new).chains[0].unread_blocks == 0
    assert schedule_backfills(new) == []
    world.scan()
    assert audit(new) == []
    assert world.events(first).count("transfer.unexpected") == 2


def test_blocks_that_coin_lacks_are_read_whole(world: World, usdc: bytes) -> None:
    coin, token = world.paid(), world.paid(USDC, token=usdc)
    world.anvil.mine(world.chain.reorg_window + 30)
    world.scan()
    with world.ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers))
        newest = world.cursor().read_block
        session.execute(sa.delete(coverage_rows).where(coverage_rows.c.last_block < newest))
        session.execute(sa.update(coverage_rows).values(first_block=newest))
    assert schedule_backfills(world.ctx) == [world.chain.name]
    (job,) = jobs.matching(world.ctx, kind="backfill", status=None, limit=9)
    done = see_through(world.ctx, {"id": job.id}, backfill)
    assert (done["result"]["transfers_stored"], done["result"]["unread_blocks"]) == (2, 0)
    assert len(world.transfers(coin)) == len(world.transfers(token)) == 1
    with world.ctx.sessions.begin() as session:
        at = world.cursor()
        within = BlockRange(at.start_block + 1, at.read_block)
        assert coverage.gaps(session, at.chain_id, usdc, within) == []


def never_read(world: World) -> Context:
    with world.ctx.sessions.begin() as session:
        session.execute(sa.delete(chain_cursors))
    return world.ctx


def stopped(world: World) -> Context:
    with world.ctx.sessions.begin() as session:
        cursors.stop(session, world.chain.chain_id, "a deep reorg")
    return world.ctx


def switched_off(world: World) -> Context:
    settings = replace(world.ctx.settings, chains=(replace(world.chain, enabled=False),))
    return replace(world.ctx, settings=settings)


@pytest.mark.parametrize(
    ("rests", "why"),
    [(never_read, "was never read"), (stopped, "operator looks: a deep reorg"), (switched_off, "anvil is not served")],
)
@pytest.mark.parametrize("service", [backfill, process_payment])
def test_a_job_of_a_chain_that_is_not_read_any_more_fails_and_says_why(
    world: World, service: Callable[[Context, str], Tick], rests: Callable[[World], Context], why: str
) -> None:
    asked = (
        jobs.backfill(world.ctx, chain=world.chain.name, by=BY)
        if service is backfill
        else jobs.process_payment(world.ctx, payment_id=world.ask(ETHER).id, by=BY)
    )
    done = see_through(rests(world), asked, service)
    assert done["status"] == "failed"
    assert why in done["error"]
