"""Chains whose coin has logs (EIP-7708), read late or by a node that left them out: coin is credited once."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from prometheus_client import REGISTRY

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.context import Context
from ctrip.domain.addresses import COIN_LOGGER, hex_text
from ctrip.domain.payments import Payment, Status
from ctrip.domain.transfers import Source
from ctrip.services.audit import audit
from ctrip.services.rereading import rescan_chain
from tests.devchain import ETHER, DevChain
from tests.lying_node import LyingNode, Window
from tests.node_faults import Fault, Json, Surroundings, refusal
from tests.services.test_inflows import MULTISEND, Contracts

pytestmark = pytest.mark.infra

FIRST_INDEX = 0x100
MOVING = ("CALL", "CREATE", "SELFDESTRUCT")


class CoinLogs(Fault):
    """A node of a chain with EIP-7708: a log for all coin that moves, in logs and receipts. Its own: it traces none."""

    traces: ClassVar[bool] = True
    leaves_out: ClassVar[bool] = False
    first_index: ClassVar[int] = FIRST_INDEX

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._known: dict[str, dict[str, list[Json]]] = {}

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        result = reply.get("result")
        if "trace" in method and not self.traces:
            return refusal(-32601, "no such method")
        if method == "eth_getLogs" and "blockHash" in params[0] and hex_text(COIN_LOGGER) in params[0]["address"]:
            of_block = [] if self.leaves_out else self._of(params[0]["blockHash"]).values()
            return {"result": [*(result or []), *(log for logs in of_block for log in logs)]}
        if method == "eth_getTransactionReceipt" and result:
            return {"result": self._with_logs(result)}
        if method == "eth_getBlockReceipts" and result:
            return {"result": [self._with_logs(receipt) for receipt in result]}
        return reply

    def _with_logs(self, receipt: Json) -> Json:
        logs = [] if self.leaves_out else self._of(receipt["blockHash"]).get(receipt["transactionHash"], [])
        return {**receipt, "logs": receipt["logs"] + logs}

    def _of(self, block_hash: str) -> dict[str, list[Json]]:
        """The logs of coin in a block, by transaction."""
        if block_hash not in self._known:
            traces = self.upstream.call("debug_traceBlockByHash", block_hash, {"tracer": "callTracer"})
            block = self.upstream.call("eth_getBlockByHash", block_hash, False)
            index, of_block = self.first_index, dict[str, list[Json]]()
            for traced in traces or []:
                moves = list(_moves(traced["result"]))
                place = {"blockHash": block_hash, "blockNumber": block["number"], "transactionHash": traced["txHash"]}
                of_block[traced["txHash"]] = [
                    _log(frame) | place | {"logIndex": hex(index + number)} for number, frame in enumerate(moves)
                ]
                index += len(moves)
            self._known[block_hash] = of_block
        return self._known[block_hash]


class Untraced(CoinLogs):
    traces = False


class Forgetful(CoinLogs):
    leaves_out = True


class UntracedAndForgetful(Untraced, Forgetful):
    pass


def _moves(frame: Json) -> Iterator[Json]:
    if "error" not in frame:
        if frame["type"] in MOVING and int(frame.get("value") or "0x0", 16):
            yield frame
        for below in frame.get("calls", []):
            yield from _moves(below)


def _log(frame: Json) -> Json:
    words = [address_word(bytes.fromhex(frame[side][2:])) for side in ("from", "to")]
    return {
        "address": hex_text(COIN_LOGGER),
        "topics": [hex_text(TRANSFER_TOPIC), *map(hex_text, words)],
        "data": hex_text(int(frame["value"], 16).to_bytes(32)),
        "removed": False,
    }


class Miscounting(Untraced):
    """A node that counts logs otherwise than all the others."""

    first_index = FIRST_INDEX + 7


Nodes = Callable[[int], list[LyingNode]]


@pytest.fixture
def nodes(anvil: DevChain) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(closing(LyingNode(anvil.url))) for _ in range(count)]


@pytest.fixture
def node(nodes: Nodes) -> LyingNode:
    return nodes(1)[0]


def be(node: LyingNode, fault: type[Fault]) -> None:
    node.follow((Window(0, float("inf"), fault, seed=1),), targets=())


def on(ctx: Context, *nodes: LyingNode, logs_from: int | None) -> Context:
    """A context whose chain is read from these nodes, with logs of coin from a block on."""
    urls = tuple(node.url for node in nodes)
    chain = replace(ctx.settings.chains[0], rpc_urls=urls, native_logs_from=logs_from)
    settings = replace(ctx.settings, chains=(chain,))
    return replace(ctx, settings=settings, clients={chain.chain_id: ChainClient(chain)})


def coin_of(world: Contracts, asked: Payment) -> list[tuple[Source, int, bool]]:
    """Its canonical transfers: what told of them, how much, and whether by a log."""
    return sorted((each.source, each.amount, each.log_index >= 0) for each in world.transfers(asked))


def disagreements() -> float:
    return REGISTRY.get_sample_value("ctrip_chain_disagreements_total", {"chain": "anvil", "kind": "receipt"}) or 0


def rescan(world: Contracts) -> None:
    cursor = world.cursor()
    blocks = {"first": cursor.start_block + 1, "last": cursor.read_block}
    list(rescan_chain(world.ctx, world.chain.name, **blocks, by="tests"))


BY_LOG = (Source.NATIVE, ETHER, True)


def test_coin_has_one_transfer_for_each_of_its_logs(ctx: Context, anvil: DevChain, node: LyingNode) -> None:
    be(node, CoinLogs)
    world = Contracts(on(ctx, node, logs_from=0), anvil)
    asked = world.ask(3 * ETHER)
    anvil.pay(asked.address, ETHER)
    world.through(MULTISEND, (asked.address, ETHER), (asked.address, ETHER), value=2 * ETHER)
    world.see(3)
    assert coin_of(world, asked) == [BY_LOG] * 3
    assert world.payment(asked).standing.status is Status.CONFIRMED
    assert audit(world.ctx) == []


LATE = {
    "the chain's upgrade was listed late": (None, CoinLogs, CoinLogs),
    "it was, and no node traces": (None, Untraced, Untraced),
    "a node left the logs out": (0, Forgetful, CoinLogs),
    "it did, and no node traces": (0, UntracedAndForgetful, Untraced),
}


@pytest.mark.parametrize("way", LATE.values(), ids=LATE.keys())
def test_logs_of_coin_that_are_read_late_take_the_place_of_what_was_found_without_them(
    ctx: Context, anvil: DevChain, node: LyingNode, way: tuple[int | None, type[Fault], type[Fault]]
) -> None:
    logs_from, before, after = way
    be(node, before)
    world = Contracts(on(ctx, node, logs_from=logs_from), anvil)
    direct, forwarded, both = paid = world.ask(ETHER), world.ask(ETHER), world.ask(4 * ETHER)
    for asked in (direct, both):
        anvil.pay(asked.address, ETHER)
    world.see()
    for asked in (forwarded, both):
        world.forwarded(asked)
    world.see()
    anvil.pay(both.address, ETHER)
    world.forwarded(both)
    world.see(3)
    world.see()
    credited, told = [world.events(each) for each in paid], disagreements()
    assert [each[-1] for each in credited] == ["confirmed"] * 3
    be(node, after)
    world.ctx = on(ctx, node, logs_from=0)
    for _ in range(2):
        rescan(world)
        assert [coin_of(world, each) for each in paid] == [[BY_LOG], [BY_LOG], [BY_LOG] * 4]
        assert [world.payment(each).standing.received for each in paid] == [ETHER, ETHER, 4 * ETHER]
        world.see()
    assert [coin_of(world, each) for each in paid] == [[BY_LOG], [BY_LOG], [BY_LOG] * 4]
    assert [world.events(each) for each in paid] == credited, "at no moment did it count twice, or not at all"
    assert disagreements() == told
    assert audit(world.ctx) == []


def reward(world: Contracts, asked: Payment) -> None:
    """Let a block's reward go there: no log tells of it."""
    faucet, other = hex_text(world.anvil.faucet), "0x" + "11" * 20
    fee = {"from": faucet, "to": other, "gas": hex(21_000), "value": "0x0"}
    world.anvil.call("anvil_setCoinbase", hex_text(asked.address))
    world.anvil.call("eth_sendTransaction", fee | {"maxFeePerGas": hex(10**14), "maxPriorityFeePerGas": hex(10**14)})
    world.anvil.mine()
    world.anvil.call("anvil_setCoinbase", "0x" + "00" * 20)


def test_a_log_that_stands_elsewhere_than_one_endpoint_told_brings_no_coin_besides_what_was_known(
    ctx: Context, anvil: DevChain, nodes: Nodes
) -> None:
    three = nodes(3)
    for node, fault in zip(three, (Miscounting, Untraced, Untraced), strict=True):
        be(node, fault)
    world = Contracts(on(ctx, *three, logs_from=0), anvil)
    asked = world.ask(2 * ETHER)
    anvil.pay(asked.address, ETHER)
    anvil.mine()
    world.scan()
    assert coin_of(world, asked) == [BY_LOG]
    reward(world, asked)
    world.scan()
    world.check()
    assert [source for source, _, _ in coin_of(world, asked)] == [Source.INTERNAL, Source.NATIVE]
    known = coin_of(world, asked)
    world.see(world.chain.confirmations)
    indexes = [each.log_index for each in world.transfers(asked) if each.source is Source.NATIVE]
    assert (indexes, coin_of(world, asked)) == ([FIRST_INDEX], known)
    for node in three:
        be(node, Untraced)
    assert audit(world.ctx) == []
