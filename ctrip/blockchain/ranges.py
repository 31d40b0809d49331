"""Logs of a range of blocks, asked for in pieces that the endpoint allows, for as many recipients as it looks for.

A node answers a range beyond its head silently with the part that it has, so no endpoint is asked beyond a head that it
told itself. Logs by number may be of a fork: whoever stores them compares their block hashes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from ctrip.blockchain.decoding import LogJson, to_int
from ctrip.blockchain.endpoint import Endpoint
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.blockchain.forms import decoded
from ctrip.blockchain.rpc import RpcPool
from ctrip.blockchain.transport import TooSlow
from ctrip.blockchain.turns import Manner
from ctrip.domain.addresses import hex_text
from ctrip.domain.limits import Limits
from ctrip.domain.scanning import BlockRange
from ctrip.errors import NodeUnavailable

MOST_LOGS = 10_000
"""An answer with more logs than this is kept, and fewer blocks are asked for from then on: it takes memory here."""


class RangeLogJson(LogJson, kw_only=True, gc=False):
    """A log in a range: its block is read whole where the log concerns us."""

    block_number: str = msgspec.field(name="blockNumber")


@dataclass(frozen=True)
class Piece:
    """All logs that were asked for in some blocks of the range, as one endpoint tells them."""

    blocks: BlockRange
    logs: tuple[RangeLogJson, ...]
    endpoint: str


@dataclass(frozen=True)
class Question:
    """Transfers of `tokens`, to some recipients or, where that is None, to anybody."""

    tokens: Sequence[bytes]
    recipients: Sequence[bytes] | None


_LOGS = msgspec.json.Decoder(list[RangeLogJson])


def logs_in(pool: RpcPool, span: BlockRange, question: Question) -> Iterator[Piece]:
    """Yield the logs of `span` in pieces, gapless and in order; their sizes are learnt.

    Raises NodeRefused where an endpoint refuses the smallest piece, NodeUnavailable where none answers or none has the
    last block.
    """
    first = span.first
    while first <= span.last:
        rest = BlockRange(first, span.last)
        piece = pool.on_one(partial(_piece, rest=rest, question=question, manner=pool.manner))
        yield piece
        first = piece.blocks.last + 1


def _piece(endpoint: Endpoint, *, rest: BlockRange, question: Question, manner: Manner) -> Piece:
    """Ask for as many of the first blocks of `rest` as the endpoint allows; for fewer, each time that it refuses."""
    head = endpoint.head.header.number if endpoint.head is not None else -1
    if head < rest.last:
        head = endpoint.newest_with([], manner)[0].number
    if head < rest.last:
        raise NodeUnavailable(f"{endpoint.label} has no block {rest.last} yet: its head is {head}")
    while True:
        limits = endpoint.learnt.limits
        blocks = BlockRange(rest.first, min(rest.last, rest.first + limits.span - 1))
        logs = _logs(endpoint, blocks, question, limits=limits, manner=manner)
        if logs is not None:
            return Piece(blocks, tuple(logs), endpoint.label)


def _logs(
    endpoint: Endpoint, blocks: BlockRange, question: Question, *, limits: Limits, manner: Manner
) -> list[RangeLogJson] | None:
    """Return all logs in `blocks`; None where less is to be asked for from now on. Raises NodeRefused."""
    found: list[RangeLogJson] = []
    for some in _portions(question.recipients, limits.topics):
        asked = Limits(batch=1, span=len(blocks), topics=len(some or ()))
        try:
            reply = endpoint.ask([("eth_getLogs", [_filter(blocks, question.tokens, some)])], manner)[0]
        except TooSlow:
            endpoint.learnt.too_much(asked=asked)
            raise
        if reply.error is not None:
            if endpoint.learnt.refused(reply.error.code, reply.error.text, asked=asked):
                return None
            raise endpoint.refused("eth_getLogs", reply.error)
        told = endpoint.understood(reply.result, partial(_read, blocks))
        found += told
        if len(told) > MOST_LOGS:
            endpoint.learnt.too_much(asked=asked)
        elif len(told) <= MOST_LOGS // 2:
            endpoint.learnt.accepted(asked=asked)
    return found


def _portions(recipients: Sequence[bytes] | None, most: int) -> Iterator[Sequence[bytes] | None]:
    if recipients is None:
        yield None
        return
    for first in range(0, len(recipients), most):
        yield recipients[first : first + most]


def _filter(blocks: BlockRange, tokens: Sequence[bytes], recipients: Sequence[bytes] | None) -> dict[str, object]:
    topics: list[object] = [hex_text(TRANSFER_TOPIC)]
    if recipients is not None:
        topics += [None, [hex_text(address_word(recipient)) for recipient in recipients]]
    return {
        "fromBlock": hex(blocks.first),
        "toBlock": hex(blocks.last),
        "address": [hex_text(token) for token in tokens],
        "topics": topics,
    }


def _read(blocks: BlockRange, result: msgspec.Raw) -> list[RangeLogJson]:
    """Decode logs. Raises NodeUnavailable where they are none, or of blocks that were not asked for."""
    logs = decoded(_LOGS, result)
    if not all(blocks.first <= to_int(log.block_number) <= blocks.last for log in logs):
        raise NodeUnavailable(f"logs of other blocks than {blocks.first} to {blocks.last}")
    return logs
