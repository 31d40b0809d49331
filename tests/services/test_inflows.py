"""Coin that contracts send, on a real dev chain and Postgres: credited once, whatever is known of it when."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import msgspec
import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ctrip.blockchain.balances import MOST
from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.transport import label_of
from ctrip.context import Context
from ctrip.database import balance_checks, cursors
from ctrip.database.models import loops as loop_rows
from ctrip.database.models import payments as payment_rows
from ctrip.database.models import transfers as transfer_rows
from ctrip.domain.addresses import NATIVE
from ctrip.domain.loops import Tick
from ctrip.domain.payments import Payment, Status, Timing
from ctrip.domain.transfers import Reason, Source
from ctrip.services.audit import audit
from ctrip.services.inflows import check_balances
from ctrip.services.inflows.rounds import CALL_EACH
from ctrip.services.inflows.witnesses import drawn
from ctrip.services.rereading import rescan_chain
from tests.between import Answer, between, forward
from tests.devchain import ETHER, USDC, DevChain
from tests.world import World

pytestmark = pytest.mark.infra

FORWARDER, FORWARDING = b"\xf0" * 20, bytes.fromhex("5f5f5f5f345f355af100")
"""call(gas, calldata[0:32], callvalue, 0, 0, 0, 0)."""
MULTISEND, MULTISENDING = (
    b"\xf1" * 20,
    bytes.fromhex("5f5b80361115601d575f5f5f5f846020013585355af1506040016001565b00"),
)
"""For each 64 bytes of call data: call(gas, address, amount, 0, 0, 0, 0)."""
HEIRLOOM, DYING = b"\xf2" * 20, bytes.fromhex("5f35ff")
"""selfdestruct(calldata[0:32])."""
TRACING = (b"debug_traceBlock", b"trace_block")


class Contracts(World):
    """A world with contracts that send coin, and the loop of the balances."""

    def __init__(self, ctx: Context, anvil: DevChain) -> None:
        super().__init__(ctx, anvil)
        for address, code in ((FORWARDER, FORWARDING), (MULTISEND, MULTISENDING), (HEIRLOOM, DYING)):
            anvil.set_code(address, code)

    def through(self, contract: bytes, *receivers: tuple[bytes, int] | tuple[bytes], value: int) -> bytes:
        """Call a contract with these words and so much coin."""
        words = [word for receiver in receivers for word in receiver]
        call = b"".join(word.rjust(32, b"\0") if isinstance(word, bytes) else word.to_bytes(32) for word in words)
        return self.anvil.send(sender=self.anvil.faucet, to=contract, value=value, call=call, gas=hex(300_000))

    def forwarded(self, asked: Payment, amount: int = ETHER) -> bytes:
        """Pay by a contract."""
        return self.through(FORWARDER, (asked.address,), value=amount)

    def check(self, ctx: Context | None = None, *, by: int | None = 0) -> Tick:
        """Let the loop of the balances make one tick, led by the endpoint of this place; None: by any, as it comes."""
        ctx = ctx or self.ctx
        self._due()
        if by is not None:
            endpoints, of = len(ctx.clients[self.chain.chain_id].endpoints), loop_rows.c
            is_this = of.name == f"balances:{self.chain.chain_id}"
            with self.ctx.sessions.begin() as session:
                fence = session.scalar(sa.select(of.fence).where(is_this)) or 0
                number = next(number for number in count(fence + 1) if drawn(number, endpoints) == by)
                session.execute(sa.update(loop_rows).where(is_this).values(fence=number - 1))
        return check_balances(ctx, self.chain.chain_id)

    def see(self, blocks: int = 1, *, ctx: Context | None = None, by: int | None = 0) -> None:
        """Mine, let the listener read, and look at the balances."""
        self.anvil.mine(blocks)
        self.scan()
        self.check(ctx, by=by)

    def told(self, asked: Payment) -> list[tuple[Source, int, bytes | None]]:
        """What is known of its canonical transfers."""
        return [(each.source, each.amount, each.tx_hash) for each in self.transfers(asked)]

    def superseded(self, asked: Payment) -> list[int]:
        """The amounts that gave way to transfers that explain them."""
        query = sa.select(transfer_rows.c.amount).where(
            transfer_rows.c.payment_id == asked.id, transfer_rows.c.reason == Reason.SUPERSEDED
        )
        with self.ctx.sessions.begin() as session:
            return list(session.scalars(query))


@pytest.fixture
def world(ctx: Context, anvil: DevChain) -> Iterator[Contracts]:
    world = Contracts(ctx, anvil)
    yield world
    assert audit(world.ctx) == []


@contextmanager
def refusing(world: World, *methods: bytes) -> Iterator[Context]:
    """Yield a context whose node knows none of these methods."""

    def answer(body: bytes) -> Answer:
        if any(method in body for method in methods):
            return 200, b'{"jsonrpc": "2.0", "id": 0, "error": {"code": -32601, "message": "no such method"}}'
        return 200, forward(world.anvil.url, body)

    with between(world.ctx, answer) as ctx:
        yield ctx


def among(world: World, *urls: str) -> Context:
    """A context whose chain has these endpoints."""
    chain = replace(world.chain, rpc_urls=urls)
    return replace(world.ctx, clients={chain.chain_id: ChainClient(chain)})


def url_of(ctx: Context) -> str:
    """The first endpoint of a context's only client."""
    return next(iter(ctx.clients.values())).chain.rpc_urls[0]


def check_while(world: Contracts, something_happens: Callable[[], object]) -> Tick:
    """Look at the balances; when all is read, and nothing stored yet, something happens."""

    def answer(body: bytes) -> Answer:
        if b"debug_trace" in body:
            something_happens()
        return 200, forward(world.anvil.url, body)

    with between(world.ctx, answer) as ctx:
        return world.check(ctx)


def mismatches(world: World) -> float:
    return REGISTRY.get_sample_value("ctrip_balance_mismatches_total", {"chain": world.chain.name}) or 0


def disagreements(world: World) -> float:
    labels = {"chain": world.chain.name, "kind": "balance"}
    return REGISTRY.get_sample_value("ctrip_chain_disagreements_total", labels) or 0


def test_coin_that_contracts_send_is_credited_once_and_its_transaction_told(world: Contracts) -> None:
    forwarded, first, second, inherited = (world.ask(ETHER) for _ in range(4))
    sent = world.forwarded(forwarded)
    several = world.through(MULTISEND, (first.address, ETHER), (second.address, ETHER), value=2 * ETHER)
    left = world.through(HEIRLOOM, (inherited.address,), value=ETHER)
    world.see()
    paid = (forwarded, first, second, inherited)
    assert [world.events(each) for each in paid] == [["created", "detected"]] * 4
    assert [world.told(each) for each in paid] == [
        [(Source.INTERNAL, ETHER, tx_hash)] for tx_hash in (sent, several, several, left)
    ]
    world.anvil.mine(world.chain.confirmations - 1)
    world.scan()
    assert [world.events(each) for each in paid] == [["created", "detected"]] * 4, "until it was looked at again"
    world.check()
    assert [world.events(each) for each in paid] == [["created", "detected", "confirmed"]] * 4
    world.see()
    assert [len(world.transfers(each)) for each in paid] == [1] * 4


def test_a_block_reward_has_no_trace_and_is_credited_as_inferred(world: Contracts) -> None:
    asked = world.ask(ETHER)
    world.anvil.call("anvil_setCoinbase", "0x" + asked.address.hex())
    fee = {"from": "0x" + world.anvil.faucet.hex(), "to": "0x" + "11" * 20, "gas": hex(21_000), "value": "0x0"}
    world.anvil.call("eth_sendTransaction", fee | {"maxFeePerGas": hex(10**14), "maxPriorityFeePerGas": hex(10**14)})
    world.anvil.mine()
    world.anvil.call("anvil_setCoinbase", "0x" + "00" * 20)
    world.see()
    (reward,) = world.ctx.clients[world.chain.chain_id].balances([(asked.address, NATIVE)])
    assert reward > ETHER
    assert world.told(asked) == [(Source.INTERNAL, reward, None)]
    assert world.payment(asked).standing.status is Status.DETECTED
    (transfer,) = world.transfers(asked)
    assert transfer.block_number == world.anvil.block_number() - 1, "the block that brought it, not where it was seen"


def test_without_traces_the_block_is_still_found(world: Contracts) -> None:
    asked = world.ask(ETHER)
    with refusing(world, *TRACING) as ctx:
        world.anvil.mine(3)
        world.forwarded(asked)
        block = world.anvil.mine()
        world.see(4, ctx=ctx)
        world.see(ctx=ctx)
    (transfer,) = world.transfers(asked)
    assert (transfer.block_number, transfer.sender, transfer.tx_hash) == (block, None, None)
    assert world.events(asked) == ["created", "detected", "confirmed"]


def test_coin_of_two_blocks_that_is_seen_at_once_came_by_the_later_one(world: Contracts) -> None:
    asked = world.ask(2 * ETHER)
    with refusing(world, *TRACING) as ctx:
        world.forwarded(asked)
        world.anvil.mine(2)
        world.forwarded(asked)
        block = world.anvil.mine()
        world.see(2, ctx=ctx)
    assert [(each.block_number, each.amount) for each in world.transfers(asked)] == [(block, 2 * ETHER)]


def test_what_comes_after_an_inflow_that_was_told_too_late_is_not_looked_for_before_that(world: Contracts) -> None:
    asked = world.ask(2 * ETHER)
    with refusing(world, *TRACING) as ctx:
        world.forwarded(asked)
        world.see(ctx=ctx)
        world.anvil.mine(3)
        world.scan()
        with world.ctx.sessions.begin() as session:  # as if the node had had no older state when it was seen
            late = cursors.headers(session, world.chain.chain_id)[-2]
            at = {"block_number": late.number, "block_hash": late.hash, "block_time": late.time}
            session.execute(sa.update(transfer_rows).values(at))
        world.forwarded(asked)
        block = world.anvil.mine()
        world.see(ctx=ctx)
    assert [each.block_number for each in world.transfers(asked)] == [late.number, block]


def test_a_reorg_that_takes_the_coin_takes_the_credit(world: Contracts) -> None:
    asked = world.ask(ETHER)
    sent = world.forwarded(asked)
    raw = world.anvil.raw(sent)
    world.see()
    world.reorg(1)
    world.anvil.mine()
    world.scan()
    world.check()
    assert world.told(asked) == []
    assert world.payment(asked).standing.status is Status.PENDING
    world.anvil.call("eth_sendRawTransaction", "0x" + raw.hex())
    world.see(3)
    world.see()
    assert world.told(asked) == [(Source.INTERNAL, ETHER, sent)]
    assert world.payment(asked).standing.status is Status.CONFIRMED


def test_a_transfer_that_turns_up_later_takes_the_place_of_what_was_inferred(world: Contracts) -> None:
    asked = world.ask(3 * ETHER)
    direct = world.anvil.pay(asked.address, ETHER)
    world.forwarded(asked, 2 * ETHER)
    before = world.cursor()
    world.anvil.mine()
    world.scan()
    with world.ctx.sessions.begin() as session:  # as if the node had shown the block without that transaction
        session.execute(transfer_rows.delete())
    with refusing(world, *TRACING) as ctx:
        world.check(ctx)
    assert world.told(asked) == [(Source.INTERNAL, 3 * ETHER, None)]
    for _ in range(2):
        with world.ctx.sessions.begin() as session:
            session.execute(
                sa.text("UPDATE chain_cursors SET read_block = :number, read_hash = :hash"),
                {"number": before.read_block, "hash": before.read_hash},
            )
            cursors.drop_headers_after(session, world.chain.chain_id, before.read_block)
            session.execute(sa.text("DELETE FROM coverage"))
        world.scan()
        assert sorted(world.told(asked), key=lambda told: told[1]) == [
            (Source.NATIVE, ETHER, direct),
            (Source.INTERNAL, 2 * ETHER, None),
        ]
    assert world.superseded(asked) == [3 * ETHER]
    assert world.payment(asked).standing.received == 3 * ETHER
    assert "reverted" not in world.events(asked), "at no moment did it count twice, or not at all"


def test_our_own_sweeps_and_top_ups_are_no_inflow(world: Contracts, usdc: bytes) -> None:
    tokens, coin = world.ask(5 * USDC, token=usdc), world.ask(2 * ETHER)
    world.anvil.pay_token(usdc, tokens.address, 5 * USDC)
    world.anvil.pay(coin.address, ETHER)
    world.forwarded(coin)
    both = (tokens, coin)

    looks = count()

    def settled() -> bool:
        if next(looks) % 3 == 0:
            world.check()
        return all(world.payment(each).standing.status is Status.SETTLED for each in both)

    world.live(24, until=settled)
    assert settled()
    world.forwarded(tokens, 7)
    world.see()
    internal = [[each.amount for each in world.transfers(one) if each.source is Source.INTERNAL] for one in both]
    assert internal == [[7], [ETHER]]
    assert mismatches(world) == 0


def test_coin_that_comes_before_the_deadline_and_is_seen_after_it_is_on_time(world: Contracts) -> None:
    asked, late = world.ask(ETHER, expires_in_s=60), world.ask(ETHER, expires_in_s=60)
    world.forwarded(asked)
    world.anvil.mine()
    world.anvil.mine_at(world.anvil.head_time() + 61)
    world.forwarded(late)
    with refusing(world, *TRACING) as ctx:
        for _ in range(3):  # at the deadline, at the deadline once it is final, and after it
            world.see(ctx=ctx)
    world.anvil.mine(2)
    world.scan()
    assert [world.payment(each).standing.timing for each in (asked, late)] == [Timing.ON_TIME, Timing.LATE]
    assert [world.payment(each).standing.status for each in (asked, late)] == [Status.CONFIRMED, Status.EXPIRED]


def test_where_the_state_of_older_blocks_is_gone_the_newest_is_looked_at(world: Contracts) -> None:
    asked = world.ask(ETHER, expires_in_s=60)
    world.forwarded(asked)
    world.anvil.mine_at(world.anvil.head_time() + 59)
    world.anvil.mine_at(world.anvil.head_time() + 59)
    newest: dict[str, str] = world.anvil.call("eth_getBlockByNumber", "latest", False)

    def pruned(body: bytes) -> Answer:
        is_of_state = b"eth_call" in body or b"eth_getBalance" in body
        if is_of_state and newest["hash"].encode() not in body:
            return 200, b'{"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "missing trie node"}}'
        return 200, forward(world.anvil.url, body)

    world.scan()
    with between(world.ctx, pruned) as ctx:
        world.check(ctx)
    assert [each.block_number for each in world.transfers(asked)] == [int(newest["number"], 16)]


def test_what_came_in_time_during_a_long_outage_is_on_time(world: Contracts) -> None:
    asked, late = world.ask(ETHER, expires_in_s=60), world.ask(ETHER, expires_in_s=60)
    world.check()
    world.forwarded(asked)
    world.anvil.mine()
    world.anvil.mine_at(world.anvil.head_time() + 61)
    world.forwarded(late)
    world.anvil.mine(world.chain.reorg_window + 10)
    world.scan()
    world.check()
    world.check()
    assert [world.payment(each).standing.timing for each in (asked, late)] == [Timing.ON_TIME, Timing.LATE]
    assert [world.payment(each).standing.status for each in (asked, late)] == [Status.CONFIRMED, Status.EXPIRED]


def test_a_run_that_is_overtaken_after_it_read_stores_nothing(world: Contracts) -> None:
    asked = world.ask(ETHER)
    world.forwarded(asked)
    world.anvil.mine()
    world.scan()

    def overtake() -> None:
        with world.ctx.sessions.begin() as session:
            session.execute(sa.update(loop_rows).values(fence=loop_rows.c.fence + 1))

    assert check_while(world, overtake) == Tick()
    assert world.told(asked) == []
    world.check()
    assert len(world.told(asked)) == 1


def test_a_block_that_a_reorg_takes_while_balances_are_looked_at_brings_no_inflow(world: Contracts) -> None:
    asked = world.ask(ETHER)
    world.forwarded(asked)
    world.anvil.mine()
    world.scan()

    def reorg() -> None:
        world.reorg(1)
        world.anvil.mine()
        world.scan()

    check_while(world, reorg)
    assert world.told(asked) == []


def test_a_transfer_that_is_found_while_balances_are_looked_at_is_not_inferred_as_well(world: Contracts) -> None:
    asked = world.ask(ETHER)
    direct = world.anvil.pay(asked.address, ETHER)
    world.anvil.mine()
    world.scan()
    at = world.cursor()
    with world.ctx.sessions.begin() as session:  # as if the node had shown the block without that transaction
        session.execute(transfer_rows.delete())
    blocks = {"first": at.start_block + 1, "last": at.read_block}
    check_while(world, lambda: list(rescan_chain(world.ctx, world.chain.name, **blocks, by="tests")))
    assert world.told(asked) == [(Source.NATIVE, ETHER, direct)]


def lying(world: World, *, instead: Callable[[int], int]) -> Callable[[bytes], Answer]:
    """A node that shows other balances than there are, wherever there are some."""

    def answer(body: bytes) -> Answer:
        real = forward(world.anvil.url, body)
        if b"eth_call" not in body:
            return 200, real
        reply = msgspec.json.decode(real)
        words = [reply["result"][at : at + 64] for at in range(2, len(reply["result"]), 64)]
        reply["result"] = "0x" + "".join(f"{instead(int(word, 16)):064x}" for word in words)
        return 200, msgspec.json.encode(reply)

    return answer


def test_coin_that_one_endpoint_alone_shows_is_not_credited(world: Contracts) -> None:
    asked = world.ask(ETHER)
    before = disagreements(world)
    with between(world.ctx, lying(world, instead=lambda balance: balance + ETHER)) as liar:
        world.see(ctx=among(world, url_of(liar), world.anvil.url))
    assert world.told(asked) == []
    assert disagreements(world) == before + 1


def test_coin_that_one_endpoint_hides_is_credited_where_two_others_show_it(world: Contracts) -> None:
    asked = world.ask(ETHER)
    world.forwarded(asked)
    world.anvil.mine(2)
    before = disagreements(world)
    with between(world.ctx, lying(world, instead=lambda _: 0)) as liar:
        world.see(ctx=among(world, world.anvil.url, url_of(liar)))
        assert (world.told(asked), disagreements(world)) == ([], before + 1), "one against one"
        with capture_logs() as logs:
            world.check(among(world, world.anvil.url, url_of(liar), world.anvil.url.replace("127.0.0.1", "localhost")))
    said = [line["endpoint"] for line in logs if line["event"] == "endpoints_disagree"]
    assert said == [label_of(url_of(liar))], "two against one"
    assert disagreements(world) == before + 2
    assert world.events(asked) == ["created", "detected"]
    world.check(among(world, honest(world), honest(world, "localhost")))
    assert world.events(asked) == ["created", "detected", "confirmed"], "two have the block that makes it deep"


@contextmanager
def hiding(world: World) -> Iterator[tuple[Context, Callable[[], None]]]:
    """Yield a context whose node shows no balance until it is healed by what comes with it."""
    is_hiding = [True]

    def answer(body: bytes) -> Answer:
        return lying(world, instead=lambda balance: balance * (not is_hiding))(body)

    with between(world.ctx, answer) as ctx:
        yield ctx, is_hiding.clear


def honest(world: World, name: str = "127.0.0.1") -> str:
    """The dev chain under another name, as an endpoint of its own."""
    return world.anvil.url.replace("127.0.0.1", name)


def test_coin_that_the_best_endpoint_hides_is_seen_when_it_is_anothers_turn(world: Contracts) -> None:
    asked = world.ask(ETHER)
    world.forwarded(asked)
    with hiding(world) as (liar, _):
        ctx = among(world, url_of(liar), honest(world), honest(world, "localhost"))
        world.see(ctx=ctx, by=0)
        assert world.told(asked) == []
        for _ in range(6):
            world.check(ctx, by=None)
    assert world.events(asked) == ["created", "detected"]


def test_what_one_endpoint_hides_at_a_deadline_two_others_show_and_it_is_on_time(world: Contracts) -> None:
    asked = world.ask(ETHER, expires_in_s=60)
    world.forwarded(asked)
    world.anvil.mine()
    world.anvil.mine_at(world.anvil.head_time() + 61)
    with hiding(world) as (liar, _):
        ctx = among(world, url_of(liar), honest(world), honest(world, "localhost"))
        for blocks in (1, world.chain.confirmations, 1):
            world.see(blocks, ctx=ctx)
    assert world.events(asked) == ["created", "detected", "confirmed"]
    assert world.payment(asked).standing.timing is Timing.ON_TIME


def test_a_deadline_of_which_two_endpoints_tell_different_stories_is_looked_at_until_they_agree(
    world: Contracts,
) -> None:
    asked = world.ask(ETHER, expires_in_s=60)
    world.check()
    world.forwarded(asked)
    world.anvil.mine()
    world.anvil.mine_at(world.anvil.head_time() + 61)
    with hiding(world) as (liar, heal):
        ctx = among(world, url_of(liar), honest(world))
        for blocks in (1, world.chain.reorg_window + 10):
            for by in (0, 1):
                world.see(blocks, ctx=ctx, by=by)
        assert world.told(asked) == [], "one against one"
        heal()
        world.check(ctx)
        world.check(ctx)
    assert world.payment(asked).standing.timing is Timing.ON_TIME
    assert world.payment(asked).standing.status is Status.CONFIRMED


def test_a_deadline_is_passed_by_though_no_other_endpoint_tells(world: Contracts) -> None:
    unpaid, asked = world.ask(ETHER, expires_in_s=60), world.ask(ETHER)
    world.anvil.mine_at(world.anvil.head_time() + 61)
    world.forwarded(asked)
    with between(world.ctx, lambda _: None) as away:
        for _ in range(2):
            world.see(3, ctx=among(world, honest(world), url_of(away)))
    with world.ctx.sessions.begin() as session:
        assert (balance_checks.find(session, world.chain.chain_id).deadlines_until or unpaid.created_at) > (
            unpaid.expires_at
        )
    assert world.events(asked) == ["created", "detected"]


def test_a_round_over_more_addresses_than_a_run_looks_at_goes_on_soon(ctx: Context, anvil: DevChain) -> None:
    world = Contracts(ctx, anvil)
    world.ask(ETHER, expires_in_s=7200)
    ids = {"id": "'pay_' || lpad(i::text, 26, '0')", "address": "decode(lpad(to_hex(i), 40, '0'), 'hex')"}
    columns = {column.name: ids.get(column.name, column.name) for column in payment_rows.c}
    copied = f"SELECT {', '.join(columns.values())} FROM payments, generate_series(1, {MOST}) i"
    with world.ctx.sessions.begin() as session:
        session.execute(sa.text(f"INSERT INTO payments ({', '.join(columns)}) {copied}"))
    last = world.ask(ETHER, expires_in_s=7300)
    world.forwarded(last)
    world.anvil.mine()
    world.scan()
    assert world.check().again_in == CALL_EACH
    assert world.told(last) == [], "its turn comes next"
    assert (world.check().again_in or CALL_EACH) > CALL_EACH
    assert world.events(last) == ["created", "detected"]


def test_coin_that_nobody_else_can_bear_out_yet_is_seen_and_not_final(world: Contracts) -> None:
    asked = world.ask(ETHER)
    world.forwarded(asked)
    is_away = True

    def away(body: bytes) -> Answer:
        return None if is_away else (200, forward(world.anvil.url, body))

    with between(world.ctx, away) as other:
        world.see(3, ctx=among(world, world.anvil.url, url_of(other)))
        assert world.events(asked) == ["created", "detected"]
        is_away = False
        world.check(among(world, world.anvil.url, url_of(other)))
    assert world.events(asked) == ["created", "detected", "confirmed"]


def stateless(code: int, message: str) -> Callable[[World], Callable[[bytes], Answer]]:
    """A node that knows all about blocks, and of no balance."""
    told = msgspec.json.encode({"jsonrpc": "2.0", "id": 0, "error": {"code": code, "message": message}})

    def of(world: World) -> Callable[[bytes], Answer]:
        def answer(body: bytes) -> Answer:
            is_of_state = b"eth_getBalance" in body or b"eth_call" in body
            return 200, told if is_of_state else forward(world.anvil.url, body)

        return answer

    return of


NO_METHOD = stateless(-32601, "the method eth_getBalance does not exist/is not available")
NO_STATE = stateless(-32000, "missing trie node")
SILENT: dict[str, Callable[[World], Callable[[bytes], Answer]]] = {
    "does not serve the methods": NO_METHOD,
    "has not the state": NO_STATE,
    "serves only who pays": stateless(-32000, "your app is inactive"),
    "is away": lambda _: lambda _: None,
    "answers nonsense": lambda _: lambda _: (200, b"{}"),
}


@pytest.mark.parametrize("silent", SILENT.values(), ids=SILENT.keys())
def test_where_the_first_endpoint_tells_no_balance_the_next_one_is_asked(
    world: Contracts, silent: Callable[[World], Callable[[bytes], Answer]]
) -> None:
    asked = world.ask(ETHER)
    world.forwarded(asked)
    with between(world.ctx, silent(world)) as first:
        world.see(ctx=among(world, url_of(first), world.anvil.url))
    assert world.events(asked) == ["created", "detected"]


def last_tick(world: World) -> object:
    query = sa.select(loop_rows.c.last_tick_at).where(loop_rows.c.name == f"balances:{world.chain.chain_id}")
    with world.ctx.sessions.begin() as session:
        return session.scalar(query)


def test_where_nobody_tells_a_balance_the_loop_stalls_and_the_log_says_who_refused_and_why(world: Contracts) -> None:
    world.ask(ETHER)
    world.see()
    before = last_tick(world)
    with between(world.ctx, NO_METHOD(world)) as first, between(world.ctx, NO_STATE(world)) as second:
        ctx = among(world, url_of(first), url_of(second))
        with capture_logs() as lines:
            world.check(ctx)
    assert last_tick(world) == before is not None, "LoopStalled rests on that"
    (error,) = [line["error"] for line in lines if line["event"] == "chain_unreadable"]
    for told in ("nobody tells balances", "the method eth_getBalance does not exist", "missing trie node"):
        assert told in error


def claim_head(world: World, head_block: int) -> None:
    """As if a node had told of such a head."""
    with world.ctx.sessions.begin() as session:
        session.execute(sa.text("UPDATE chain_cursors SET head_block = :head_block"), {"head_block": head_block})


def test_a_head_that_is_not_there_keeps_nobody_from_looking_at_balances(world: Contracts) -> None:
    asked = world.ask(ETHER)
    world.forwarded(asked)
    world.anvil.mine()
    world.scan()
    claim_head(world, 10**6)
    world.check()
    assert world.events(asked) == ["created", "detected"]


def test_far_behind_the_head_a_node_without_old_state_stalls_nothing(world: Contracts) -> None:
    world.ask(ETHER)
    world.see()
    before = last_tick(world)
    claim_head(world, 10**6)
    with between(world.ctx, NO_STATE(world)) as ctx:
        world.check(ctx)
    assert last_tick(world) != before, "what came meanwhile is found when the head is reached"


def test_what_was_inferred_from_a_lie_is_taken_back_when_two_endpoints_deny_it(world: Contracts) -> None:
    asked = world.ask(ETHER)
    is_lying = True

    def repenting(body: bytes) -> Answer:
        return lying(world, instead=lambda balance: balance + ETHER * is_lying)(body)

    with between(world.ctx, repenting) as liar, between(world.ctx, lambda _: None) as away:
        world.see(3, ctx=among(world, url_of(liar), url_of(away)))
        assert world.events(asked) == ["created", "detected"], "it is seen, and never final"
        world.check(among(world, world.anvil.url, url_of(away)))
        assert world.events(asked) == ["created", "detected"], "one alone that denies it takes nothing back"
        is_lying = False
        world.check(among(world, world.anvil.url, url_of(liar)))
    assert world.events(asked) == ["created", "detected", "reverted"]


def test_a_balance_below_the_rows_is_told_and_changes_nothing(world: Contracts) -> None:
    asked = world.ask(ETHER)
    world.anvil.pay(asked.address, ETHER)
    before = mismatches(world)
    with between(world.ctx, lying(world, instead=lambda balance: balance // 2)) as ctx:
        world.see(ctx=ctx)
    assert mismatches(world) == before + 1
    assert [transfer.amount for transfer in world.transfers(asked)] == [ETHER]


def test_the_audit_finds_coin_that_a_look_should_have_found(ctx: Context, anvil: DevChain) -> None:
    world = Contracts(ctx, anvil)
    asked = world.ask(ETHER)
    world.see()
    world.forwarded(asked)
    world.anvil.mine()
    world.scan()
    assert audit(ctx) == [], "it came after the last look"
    with ctx.sessions.begin() as session:
        session.execute(sa.text("UPDATE balance_checks SET checked_block = :block"), {"block": anvil.block_number()})
    assert [violation.invariant for violation in audit(ctx)] == ["1 coin_is_explained"]
