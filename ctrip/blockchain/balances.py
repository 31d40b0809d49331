"""What many addresses hold after one block, in as few requests as an endpoint allows.

    override    one eth_call of a tiny program that stands nowhere: the call itself puts it there (state override)
    multicall   one eth_call of Multicall3, where state override is not allowed and the chain has that contract
    single      batches of eth_getBalance

The block is pinned by its hash (EIP-1898). What an endpoint refuses is found out by smaller questions, not by its
words, and remembered until it has answered for a while; then more is tried again.

    one eth_getBalance at that block    refused   it has not the block or its state, or takes no hash
    the same way, a single address      refused   it does not serve this way: the next one
    the same once more                  told      what it refused for has passed, and teaches nothing
                                        refused   too many at once: half of them; of few ones: the next way
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import to_bytes, to_int
from ctrip.blockchain.erc20 import address_word
from ctrip.blockchain.forms import decoded
from ctrip.blockchain.learning import ANSWERS_BEFORE_MORE
from ctrip.blockchain.transport import Call, Reply, TooSlow, refused
from ctrip.domain.addresses import hex_text
from ctrip.domain.limits import is_its_own
from ctrip.domain.scanning import Header
from ctrip.errors import BlockVanished, NodeUnavailable

MOST = 10_000
"""The most addresses of one call: 30 million gas, where nodes allow 50 million and more."""
MOST_OF_CONTRACT = 1_000
"""The most addresses of one call of Multicall3, whose call data is ten times as long."""
MOST_SINGLE = 500
"""The most addresses that are asked for where each of them is a call."""
LEAST = 250
"""A call of so many is small for any node: what fails then does not fail by its size."""
MOST_REQUESTS = 50
"""The most requests that one look is split into, however little an endpoint takes in each of them."""

PROGRAM_AT = b"cTrip packed balance"
"""Where the program stands for the length of a call: an address that nobody can have a key or a contract for."""
PROGRAM = bytes.fromhex("3d5b80361115601e57803560601c31816014900460051b526014016001565b6014900460051b3df3")
"""Call data: addresses, 20 bytes each; returns: balances, 32 bytes each.

    0  for i = 0; i < calldatasize; i += 20:        RETURNDATASIZE is the zero of chains without PUSH0
    9      memory[i / 20 * 32] = balance(calldata[i] >> 96)
    30 return memory[0 : calldatasize / 20 * 32]
"""

MULTICALL = bytes.fromhex("ca11bde05977b3631167028862be2a173976ca11")
_AGGREGATE = bytes.fromhex("252dba42")
"""aggregate((address,bytes)[]) returns (uint256 blockNumber, bytes[] returnData)."""
_GET_ETH_BALANCE = bytes.fromhex("4d2301cc")
_WORD = 32
_TEXT = msgspec.json.Decoder(str)


class _Way(IntEnum):
    OVERRIDE = 0
    MULTICALL = 1
    SINGLE = 2


_MOST_OF = {_Way.OVERRIDE: MOST, _Way.MULTICALL: MOST_OF_CONTRACT, _Way.SINGLE: MOST_SINGLE}


@dataclass
class _Allowed:
    """What an endpoint was found to allow; `most` is addresses in one call.

    `answers_before_more` is how many it takes before more is tried: an endpoint that was busy once is not so for good.
    """

    way: _Way = _Way.OVERRIDE
    most: int = MOST
    by_hash: bool = True
    answers_before_more: int = 0

    def refuses_size(self, asked: int) -> None:
        self.most, self.answers_before_more = max(LEAST, min(self.most, asked) // 2), ANSWERS_BEFORE_MORE

    def refuses_way(self, way: _Way) -> None:
        self.way = _Way(way + 1)
        self.most, self.answers_before_more = _MOST_OF[self.way], ANSWERS_BEFORE_MORE

    def refuses_hashes(self) -> None:
        self.by_hash, self.answers_before_more = False, ANSWERS_BEFORE_MORE

    def accepted(self, asked: int) -> None:
        is_best = self.way is _Way.OVERRIDE and self.by_hash
        if is_best and (asked < self.most or self.most == MOST):
            return
        if self.answers_before_more > 0:
            self.answers_before_more -= 1
        elif self.most < _MOST_OF[self.way]:
            self.most = min(_MOST_OF[self.way], 2 * self.most)
        else:
            self.way, self.most, self.by_hash = _Way.OVERRIDE, MOST, True


_ALLOWED: dict[tuple[int, str | None], _Allowed] = {}


def most_at_once(client: ChainClient) -> int:
    """Return how many addresses may be asked for at once, by what is known of the endpoint of a pinned client."""
    allowed = _allowed(client)
    if allowed.way is not _Way.SINGLE:
        return min(MOST, MOST_REQUESTS * allowed.most)
    return min(MOST_SINGLE, MOST_REQUESTS * client.limits()[client.endpoint or ""].batch)


def calls_for(client: ChainClient, addresses: int) -> int:
    """Return how many calls so many addresses take, by what is known of the endpoint of a pinned client."""
    allowed = _allowed(client)
    return addresses if allowed.way is _Way.SINGLE else -(-addresses // allowed.most)


def balances_at(client: ChainClient, addresses: Sequence[bytes], *, block: Header) -> list[int]:
    """Return the wei that addresses hold after `block`, as one endpoint tells. `client` is a pinned one.

    Raises NodeRefused where the endpoint does not have the state of the block, or does not tell balances, BlockVanished
    where the block is not on its chain any more, NodeUnavailable.
    """
    allowed, found = _allowed(client), list[int]()
    while len(found) < len(addresses):
        asked = addresses[len(found) : len(found) + allowed.most]
        told = _ask(client, asked, allowed=allowed, block=block)
        if told is None:
            told = _learn(client, asked, allowed=allowed, block=block)
        else:
            allowed.accepted(len(asked))
        found += told
    if not allowed.by_hash:
        _check_canonical(client, block)
    return found


def _allowed(client: ChainClient) -> _Allowed:
    return _ALLOWED.setdefault((client.chain.chain_id, client.endpoint), _Allowed())


def _ask(client: ChainClient, asked: Sequence[bytes], *, allowed: _Allowed, block: Header) -> list[int] | None:
    """Ask in the way that is allowed; None where the endpoint refuses, or answers what is no answer to this."""
    at = _reference(block, by_hash=allowed.by_hash)
    calls: list[Call]
    if allowed.way is _Way.SINGLE:
        calls = [("eth_getBalance", [hex_text(address), at]) for address in asked]
        return client.read(calls, _quantities)
    if allowed.way is _Way.OVERRIDE:
        program = hex_text(PROGRAM_AT)
        call = {"to": program, "data": hex_text(b"".join(asked))}
        calls = [("eth_call", [call, at, {program: {"code": hex_text(PROGRAM)}}])]
    else:
        calls = [("eth_call", [{"to": hex_text(MULTICALL), "data": hex_text(_aggregate(asked))}, at])]
    try:
        answer = client.read(calls, _answer)
    except TooSlow:
        allowed.refuses_size(len(asked))
        raise
    if answer is None:
        return None
    return _words(answer, count=len(asked)) if allowed.way is _Way.OVERRIDE else _aggregated(answer, count=len(asked))


def _learn(client: ChainClient, asked: Sequence[bytes], *, allowed: _Allowed, block: Header) -> list[int]:
    """Find out why a call was refused: a block by hash, its way, its size, or nothing that lasts.

    Returns what was asked for, where it is told now, or else nothing: it is to be asked for again, in another way.
    Raises where the endpoint will not tell in any.
    """
    way, is_by_hash = allowed.way, allowed.by_hash
    here: list[Call] = [("eth_getBalance", [hex_text(PROGRAM_AT), _reference(block, by_hash=is_by_hash)])]
    reply = client.ask(here)[0]
    if reply.error is not None:
        by_number: Call = ("eth_getBalance", [hex_text(PROGRAM_AT), _reference(block, by_hash=False)])
        if not is_by_hash or client.ask([by_number])[0].error is not None:
            if is_its_own("eth_getBalance", reply.error.refusal):
                client.pass_over("eth_getBalance")
            raise refused("eth_getBalance", reply.error)
        _check_canonical(client, block)
        allowed.refuses_hashes()
        return []
    if way is _Way.SINGLE:
        raise NodeUnavailable(f"{client.endpoint} tells some balances of block {block.number} and refuses others")
    if _ask(client, [PROGRAM_AT], allowed=allowed, block=block) is None:
        allowed.refuses_way(way)
        return []
    told = _ask(client, asked, allowed=allowed, block=block)
    if told is None and len(asked) > LEAST:
        allowed.refuses_size(len(asked))
    elif told is None:
        allowed.refuses_way(way)
    return told or []


def _check_canonical(client: ChainClient, block: Header) -> None:
    there = client.headers([block.number]).get(block.number)
    if there is None or there.hash != block.hash:
        raise BlockVanished(f"block {block.number} of {client.chain.name} moved while its balances were read")


def _reference(block: Header, *, by_hash: bool) -> object:
    return {"blockHash": hex_text(block.hash), "requireCanonical": True} if by_hash else hex(block.number)


def _quantities(replies: Sequence[Reply]) -> list[int] | None:
    if any(reply.error is not None for reply in replies):
        return None
    return [to_int(decoded(_TEXT, reply.result)) for reply in replies]


def _answer(replies: Sequence[Reply]) -> bytes | None:
    (reply,) = replies
    return None if reply.error is not None else to_bytes(decoded(_TEXT, reply.result))


def _words(answer: bytes, *, count: int) -> list[int] | None:
    # A node that ignores the override answers an empty text: nothing stands at the program's address.
    if len(answer) != count * _WORD:
        return None
    return [int.from_bytes(answer[at : at + _WORD]) for at in range(0, len(answer), _WORD)]


def _aggregate(addresses: Sequence[bytes]) -> bytes:
    """Encode a call of `aggregate` with a getEthBalance(address) for each address (Solidity's ABI)."""
    size = 5 * _WORD  # target, offset and length of its call data, and 36 bytes of that in two words
    offsets = b"".join((len(addresses) * _WORD + number * size).to_bytes(_WORD) for number in range(len(addresses)))
    head = address_word(MULTICALL) + (2 * _WORD).to_bytes(_WORD) + (4 + _WORD).to_bytes(_WORD)
    calls = b"".join(head + (_GET_ETH_BALANCE + address_word(each)).ljust(2 * _WORD, b"\0") for each in addresses)
    return _AGGREGATE + _WORD.to_bytes(_WORD) + len(addresses).to_bytes(_WORD) + offsets + calls


def _aggregated(answer: bytes, *, count: int) -> list[int] | None:
    """Read what `aggregate` returns where each call returns a word.

    Block, offset of the array, its count, an offset for each answer, and for each its length and its word.
    """
    first = (3 + count) * _WORD
    if len(answer) != first + 2 * count * _WORD:
        return None
    return [int.from_bytes(answer[at + _WORD : at + 2 * _WORD]) for at in range(first, len(answer), 2 * _WORD)]
