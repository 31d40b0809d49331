"""Coin that moved inside of a block's transactions, where an endpoint traces them.

Asked for by `debug_traceBlockByHash` (geth, Erigon, Nethermind, Besu, reth, anvil) or `trace_block` (Erigon,
Nethermind, reth). Tracing is heavy and often not sold: an endpoint that refuses it, or fails at it, is not asked again
for a while, longer each time.
"""

import time
from collections.abc import Iterator

import msgspec

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import to_bytes, to_int
from ctrip.blockchain.transport import Call, Clock
from ctrip.domain.addresses import hex_text
from ctrip.domain.inflows import Hop
from ctrip.domain.scanning import Header
from ctrip.errors import NodeUnavailable

_MOVING = ("CALL", "CREATE", "CREATE2", "SELFDESTRUCT")
"""The frames that move coin: the value of a DELEGATECALL is its caller's, and a CALLCODE's stays where it is."""


class _Frame(msgspec.Struct):
    """A call as geth's callTracer tells it."""

    type: str = ""
    sender: str = msgspec.field(name="from", default="0x")
    to: str | None = None
    value: str | None = None
    error: str | None = None
    calls: list["_Frame"] = msgspec.field(default_factory=list)


class _Traced(msgspec.Struct):
    """A transaction of a traced block."""

    tx_hash: str = msgspec.field(name="txHash")
    result: _Frame


class _Action(msgspec.Struct):
    """What a step of a Parity trace does; a suicide has the last three."""

    sender: str = msgspec.field(name="from", default="0x")
    to: str | None = None
    value: str = "0x0"
    call_type: str = msgspec.field(name="callType", default="call")
    address: str = "0x"
    heir: str = msgspec.field(name="refundAddress", default="0x")
    balance: str = "0x0"


class _Step(msgspec.Struct):
    """A step of a Parity trace. A reward has no transaction."""

    action: _Action
    type: str
    path: list[int] = msgspec.field(name="traceAddress")
    block_hash: str = msgspec.field(name="blockHash")
    tx_hash: str | None = msgspec.field(name="transactionHash", default=None)
    error: str | None = None


_FRAMES = msgspec.json.Decoder(list[_Traced])
_STEPS = msgspec.json.Decoder(list[_Step])


def hops_in(client: ChainClient, block: Header, *, clock: Clock = time.monotonic) -> list[Hop] | None:
    """Return every hop of coin below the top of a block's transactions; None where the endpoint does not tell them.

    `client` is a pinned one. A frame that failed moved nothing, and nothing below it did.
    """
    refusals = client.learnt.traces
    ways: tuple[Call, ...] = (
        ("debug_traceBlockByHash", [hex_text(block.hash), {"tracer": "callTracer"}]),
        ("trace_block", [hex(block.number)]),
    )
    methods = [method for method, _ in ways]
    if refusals.has_any(methods, now=clock()):
        return None
    try:
        for call in ways:
            reply = client.ask([call])[0]
            if reply.error is None:
                hops = _hops(call[0], reply.result, block=block)
                refusals.forget(methods)
                return hops
    except NodeUnavailable:
        pass  # too heavy, or of a form of its own: what was inferred stands
    refusals.note(ways[0][0], now=clock())
    return None


def _hops(method: str, result: msgspec.Raw, *, block: Header) -> list[Hop]:
    try:
        if method == "trace_block":
            return list(_of_steps(_STEPS.decode(result), block=block))
        return [hop for traced in _FRAMES.decode(result) for hop in _of_frames(traced)]
    except (ValueError, RecursionError) as error:  # msgspec's errors; calls nest up to 1,024 deep, or as a liar likes
        raise NodeUnavailable(f"a trace of the wrong form: {type(error).__name__}") from error


def _of_frames(traced: _Traced) -> Iterator[Hop]:
    """Walk below the top frame, whose value the transaction itself tells, in the order of the calls."""
    tx_hash, position = to_bytes(traced.tx_hash), 0
    waiting = [] if traced.result.error is not None else traced.result.calls[::-1]
    while waiting:
        frame = waiting.pop()
        if frame.error is not None:
            continue
        amount = to_int(frame.value or "0x0")
        if amount and frame.type in _MOVING and frame.to is not None:
            yield Hop(tx_hash, position, to_bytes(frame.sender), to_bytes(frame.to), amount)
            position += 1
        waiting += frame.calls[::-1]


def _of_steps(steps: list[_Step], *, block: Header) -> Iterator[Hop]:
    failed: dict[str, list[list[int]]] = {}
    positions: dict[str, int] = {}
    for step in steps:
        if to_bytes(step.block_hash) != block.hash:
            raise NodeUnavailable(f"a trace of another block was given for block {block.number}")
        if step.tx_hash is None:
            continue
        if step.error is not None:
            failed.setdefault(step.tx_hash, []).append(step.path)
        is_failed = any(step.path[: len(path)] == path for path in failed.get(step.tx_hash, ()))
        hop = None if is_failed or not step.path else _hop(step, position=positions.get(step.tx_hash, 0))
        if hop is not None:
            positions[step.tx_hash] = hop.position + 1
            yield hop


def _hop(step: _Step, *, position: int) -> Hop | None:
    action = step.action
    if step.type == "suicide":
        sender, recipient, amount = action.address, action.heir, to_int(action.balance)
    elif step.type == "call" and action.call_type == "call":
        sender, recipient, amount = action.sender, action.to or "0x", to_int(action.value)
    else:
        return None  # no contract is ever made at an address of ours
    return (
        Hop(to_bytes(step.tx_hash or "0x"), position, to_bytes(sender), to_bytes(recipient), amount) if amount else None
    )
