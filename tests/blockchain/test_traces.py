"""Which coin a trace says has moved, in the two forms that nodes tell it in."""

from typing import Any

import msgspec
import pytest

from ctrip.blockchain.learning import REFUSED_S, Learnt
from ctrip.blockchain.traces import hops_in
from ctrip.blockchain.transport import Fault, Reply
from ctrip.domain.inflows import Hop
from tests.blockchain.nodes import Clock
from tests.factories import header

HASH = "0x" + "22" * 32
BLOCK = header(7)


def _call(kind: str, to: str, value: int, *, calls: tuple[object, ...] = (), **more: object) -> dict[str, object]:
    sides = {"from": "0x" + "aa" * 20, "to": "0x" + to * 20}
    return {"type": kind, "value": hex(value), "calls": calls, "gas": "0x1"} | sides | more


FAILED = _call("CALL", "01", 9, error="execution reverted", calls=(_call("CALL", "01", 9),))
FRAMES = [
    {
        "txHash": HASH,
        "result": _call(
            "CALL",
            "01",
            9,
            calls=(
                _call("CALL", "02", 3, calls=(_call("SELFDESTRUCT", "03", 4), _call("CALL", "01", 0))),
                _call("DELEGATECALL", "04", 9),
                _call("CALLCODE", "04", 9),
                _call("STATICCALL", "04", 0),
                FAILED,
                _call("CREATE2", "05", 5),
            ),
        ),
    },
    {"txHash": HASH, "result": FAILED},
]
TOLD = [(0, 2, 3), (1, 3, 4), (2, 5, 5)]


def _step(path: list[int], to: str, value: int, kind: str = "call", **more: object) -> dict[str, object]:
    sides = {"from": "0x" + "aa" * 20, "to": "0x" + to * 20, "value": hex(value), "callType": "call"}
    step = {"type": kind, "traceAddress": path, "blockHash": "0x" + BLOCK.hash.hex(), "transactionHash": HASH}
    return step | {"action": sides} | more


DEATH = {"address": "0x" + "aa" * 20, "refundAddress": "0x" + "03" * 20, "balance": "0x4"}
REWARD = {"author": "0x" + "06" * 20, "value": "0x9", "rewardType": "block"}
STEPS = [
    _step([], "01", 9),
    _step([0], "02", 3),
    _step([0, 0], "00", 0, "suicide", action=DEATH),
    _step([1], "04", 9, action={"callType": "delegatecall", "from": "0x", "to": "0x", "value": "0x9"}),
    _step([2], "01", 9, error="Reverted"),
    _step([2, 0], "01", 9),
    _step([3], "05", 5),
    _step([], "06", 9, "reward", action=REWARD, transactionHash=None),
]


class Node:
    """Stands for a client that is asked raw calls."""

    def __init__(self, endpoint: str, **results: object) -> None:
        self.endpoint, self.results, self.asked = endpoint, results, list[str]()
        self.learnt = Learnt()

    def ask(self, calls):
        ((method, _),) = calls
        self.asked.append(method)
        if method not in self.results:
            return [Reply(error=Fault(-32601, "no such method"))]
        return [Reply(result=msgspec.Raw(msgspec.json.encode(self.results[method])))]


def _told(hops: list[Hop] | None) -> list[tuple[int, int, int]] | None:
    return None if hops is None else [(hop.position, hop.recipient[0], hop.amount) for hop in hops]


@pytest.mark.parametrize(
    "node",
    [Node("geth", debug_traceBlockByHash=FRAMES), Node("parity", trace_block=STEPS)],
    ids=lambda node: node.endpoint,
)
def test_what_succeeded_below_the_top_has_moved(node) -> None:
    assert _told(hops_in(node, BLOCK)) == TOLD


@pytest.mark.parametrize(
    "node",
    [
        Node("none"),
        Node("rubbish", debug_traceBlockByHash=[{"a": 1}], trace_block=STEPS),
        Node("another block", trace_block=[{**STEPS[1], "blockHash": HASH}]),
    ],
    ids=lambda node: node.endpoint,
)
def test_a_node_that_does_not_tell_is_asked_again_after_a_while_that_grows(node) -> None:
    clock = Clock()
    assert hops_in(node, BLOCK, clock=clock) is None
    once = len(node.asked)
    for times, pause_s in ((1, REFUSED_S), (2, 2 * REFUSED_S)):
        clock.wait(pause_s - 1)
        assert hops_in(node, BLOCK, clock=clock) is None
        assert len(node.asked) == times * once
        clock.wait(1)
        assert hops_in(node, BLOCK, clock=clock) is None
        assert len(node.asked) == (times + 1) * once


def test_a_node_that_was_busy_once_traces_again() -> None:
    clock = Clock()
    node: Any = Node("busy")
    assert hops_in(node, BLOCK, clock=clock) is None
    node.results = {"debug_traceBlockByHash": FRAMES}
    clock.wait(REFUSED_S)
    for _ in range(2):
        assert _told(hops_in(node, BLOCK, clock=clock)) == TOLD
    node.results = {}
    assert hops_in(node, BLOCK, clock=clock) is None
    clock.wait(REFUSED_S)
    node.results = {"debug_traceBlockByHash": FRAMES}
    assert _told(hops_in(node, BLOCK, clock=clock)) == TOLD, "what it told in between is not held against it"
