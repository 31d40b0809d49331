"""Blocks behind the cursor, on a real dev chain: ranges read again, and what a token that is listed later lacks."""

import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.database import coverage, cursors
from ctrip.database.models import coverage as coverage_rows
from ctrip.database.models import events, payments, transfers
from ctrip.domain.chains import Token
from ctrip.domain.payments import Payment, Status
from ctrip.domain.scanning import BlockRange, Cursor
from ctrip.errors import Conflict, InvalidValue, NotFound
from ctrip.services import jobs
from ctrip.services.audit import audit
from ctrip.services.overview import take
from ctrip.services.rereading import Rescanned, backfill, rescan_chain, schedule_backfills
from ctrip.services.rereading.rescanning import SPAN
from tests.between import Answer, between, forward
from tests.devchain import ETHER, USDC, DevChain
from tests.jobs import see_through
from tests.world import World

pytestmark = pytest.mark.infra


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> World:
    anvil.mine(20)  # so that no reorg here reaches what all tests stand on
    return World(ctx, anvil)


def paid(world: World, *, token: bytes | None = None, amount: int = ETHER) -> Payment:
    asked = world.ask(amount) if token is None else world.ask(amount, token=token)
    if token is None:
        world.anvil.pay(asked.address, amount)
    else:
        world.anvil.pay_token(token, asked.address, amount)
    world.anvil.mine(world.chain.confirmations)
    world.scan()
    return asked


def cursor(world: World) -> Cursor:
    with world.ctx.sessions() as session:
        found = cursors.find(session, world.chain.chain_id)
    assert found is not None
    return found


def rescan(world: World, first: int | None = None, last: int | None = None, *, ctx: Context | None = None) -> Rescanned:
    at = cursor(world)
    first, last = at.start_block + 1 if first is None else first, at.read_block if last is None else last
    *_, done = rescan_chain(ctx or world.ctx, world.chain.name, first=first, last=last, by="cli:me")
    return done


def all_rows(world: World) -> list[dict[str, Any]]:
    with world.ctx.sessions() as session:
        return [
            dict(row._mapping)
            for table in (payments, transfers, events)
            for row in session.execute(sa.select(table).order_by(table.c.id))
        ]


def test_a_rescan_stores_what_is_missing_orphans_what_is_not_there_and_leaves_the_rest(
    world: World, usdc: bytes
) -> None:
    coin, token = paid(world), paid(world, token=usdc, amount=5 * USDC)
    world.anvil.mine(world.chain.reorg_window + 5)
    world.scan()
    before = all_rows(world)
    done = rescan(world)
    read = cursor(world).read_block - cursor(world).start_block
    assert done == Rescanned(cursor(world).read_block + 1, blocks=read)
    assert all_rows(world) == before, "what is right stays as it is"

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
    after = all_rows(world)
    done = rescan(world)
    assert (done.transfers_stored, done.transfers_orphaned) == (0, 0)
    assert all_rows(world) == after, "a second call changes nothing"
    assert world.payment(coin).standing.status is world.payment(token).standing.status is Status.CONFIRMED


def test_a_rescan_that_was_left_off_leaves_consistent_rows_and_a_second_one_goes_on(world: World) -> None:
    early = paid(world)
    world.anvil.mine(2 * SPAN)  # so that no span holds both
    late = paid(world)
    world.anvil.mine(30)
    world.scan()
    with world.ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers))
    at = cursor(world)
    going = rescan_chain(world.ctx, world.chain.name, first=at.start_block + 1, last=at.read_block, by="cli:me")
    stored = next(going).transfers_stored
    going.close()
    assert stored < 2, "or nothing is left to do"
    assert rescan(world).transfers_stored == 2 - stored
    assert audit(world.ctx) == []
    assert len(world.transfers(early)) == len(world.transfers(late)) == 1


def test_a_reorg_that_the_listener_has_not_followed_yet_lets_a_rescan_store_nothing(world: World) -> None:
    coin = paid(world)
    before = all_rows(world)
    world.anvil.reorg(world.chain.confirmations)
    with pytest.raises(Exception, match="not the one that the listener read"):
        rescan(world)
    assert all_rows(world) == before
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
    start = cursor(world).start_block
    rescan(world, start - 12, start)
    assert cursor(world).start_block == start - 13
    assert audit(world.ctx) == []
    rescan(world, start - 20, start - 15)
    assert cursor(world).start_block == start - 13, "a block between them was not read"


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
    first = paid(world)
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
    unread = cursor(world).read_block - cursor(world).start_block - 1
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
    coin, token = paid(world), paid(world, token=usdc, amount=USDC)
    world.anvil.mine(world.chain.reorg_window + 30)
    world.scan()
    with world.ctx.sessions.begin() as session:
        session.execute(sa.delete(transfers))
        newest = cursor(world).read_block
        session.execute(sa.delete(coverage_rows).where(coverage_rows.c.last_block < newest))
        session.execute(sa.update(coverage_rows).values(first_block=newest))
    assert schedule_backfills(world.ctx) == [world.chain.name]
    (job,) = jobs.matching(world.ctx, kind="backfill", status=None, limit=9)
    done = see_through(world.ctx, {"id": job.id}, backfill)
    assert (done["result"]["transfers_stored"], done["result"]["unread_blocks"]) == (2, 0)
    assert len(world.transfers(coin)) == len(world.transfers(token)) == 1
    with world.ctx.sessions() as session:
        at = cursor(world)
        within = BlockRange(at.start_block + 1, at.read_block)
        assert coverage.gaps(session, at.chain_id, usdc, within) == []
