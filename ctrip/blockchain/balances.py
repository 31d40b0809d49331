"""What many addresses hold after one block, in as few requests as an endpoint allows.

    override    one eth_call of a tiny program that stands nowhere: the call itself puts it there (state override)
    multicall   one eth_call of Multicall3, where state override is not allowed and the chain has that contract
    single      batches of eth_getBalance

The block is pinned by its hash (EIP-1898). What an endpoint refuses is found out by smaller questions, not by its
words, and remembered while the process lives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import to_bytes, to_int
from ctrip.blockchain.erc20 import address_word
from ctrip.blockchain.transport import Call, Reply, TooSlow, refused
from ctrip.domain.addresses import hex_text
from ctrip.domain.scanning import Header
from ctrip.errors import BlockVanished, NodeUnavailable

MOST = 10_000
"""The most addresses of one call: 30 million gas, where nodes allow 50 million and more."""
MOST_OF_CONTRACT = 1_000
"""The most addresses of one call of Multicall3, whose call data is ten times as long."""
MOST_SINGLE = 500
"""The most addresses that are asked for where each of them is a call."""
_LEAST = 250
"""A call of so many is small for any node: what fails then does not fail by its size."""

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


@dataclass
class _Allowed:
    """What an endpoint was found to allow; `most` is addresses in one call."""

    way: _Way = _Way.OVERRIDE
    most: int = MOST
    by_hash: bool = True


_ALLOWED: dict[tuple[int, str | None], _Allowed] = {}


def most_at_once(client: ChainClient) -> int:
    """Return how many addresses may be asked for at once, by what is known of the endpoint of a pinned client."""
    return MOST_SINGLE if _allowed(client).way is _Way.SINGLE else MOST


def balances_at(client: ChainClient, addresses: Sequence[bytes], *, block: Header) -> list[int]:
    """Return the wei that addresses hold after `block`, as one endpoint tells. `client` is a pinned one.

    Raises NodeRefused where the endpoint does not have the state of the block, BlockVanished where the block is not
    on its chain any more, NodeUnavailable.
    """
    allowed, found = _allowed(client), list[int]()
    while len(found) < len(addresses):
        asked = addresses[len(found) : len(found) + allowed.most]
        told = _ask(client, asked, allowed=allowed, block=block)
        if told is None:
            _learn(client, allowed, block=block, refused_size=len(asked))
        else:
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
        return _quantities(client.ask(calls))
    if allowed.way is _Way.OVERRIDE:
        program = hex_text(PROGRAM_AT)
        call = {"to": program, "data": hex_text(b"".join(asked))}
        calls = [("eth_call", [call, at, {program: {"code": hex_text(PROGRAM)}}])]
    else:
        calls = [("eth_call", [{"to": hex_text(MULTICALL), "data": hex_text(_aggregate(asked))}, at])]
    try:
        reply = client.ask(calls)[0]
    except TooSlow:
        allowed.most = max(_LEAST, min(allowed.most, len(asked)) // 2)
        raise
    answer = None if reply.error is not None else to_bytes(_text(reply))
    if answer is None:
        return None
    return _words(answer, count=len(asked)) if allowed.way is _Way.OVERRIDE else _aggregated(answer, count=len(asked))


def _learn(client: ChainClient, allowed: _Allowed, *, block: Header, refused_size: int) -> None:
    """Find out why a call was refused: a block by hash, its size, or its way. Raises where it is none of these."""
    here: list[Call] = [("eth_getBalance", [hex_text(PROGRAM_AT), _reference(block, by_hash=allowed.by_hash)])]
    reply = client.ask(here)[0]
    if reply.error is not None:
        by_number: Call = ("eth_getBalance", [hex_text(PROGRAM_AT), _reference(block, by_hash=False)])
        if not allowed.by_hash or client.ask([by_number])[0].error is not None:
            raise refused("eth_getBalance", reply.error)
        _check_canonical(client, block)
        allowed.by_hash = False
    elif allowed.way is _Way.SINGLE:
        raise NodeUnavailable(f"{client.endpoint} tells some balances of block {block.number} and refuses others")
    elif refused_size > 1 and _ask(client, [PROGRAM_AT], allowed=allowed, block=block) is not None:
        allowed.most = refused_size // 2
    else:
        allowed.way, allowed.most = _Way(allowed.way + 1), MOST_OF_CONTRACT


def _check_canonical(client: ChainClient, block: Header) -> None:
    there = client.headers([block.number]).get(block.number)
    if there is None or there.hash != block.hash:
        raise BlockVanished(f"block {block.number} of {client.chain.name} moved while its balances were read")


def _reference(block: Header, *, by_hash: bool) -> object:
    return {"blockHash": hex_text(block.hash), "requireCanonical": True} if by_hash else hex(block.number)


def _text(reply: Reply) -> str:
    try:
        return _TEXT.decode(reply.result)
    except ValueError as error:  # msgspec's errors, and undecodable text
        raise NodeUnavailable(f"an answer of the wrong form: {error}") from error


def _quantities(replies: Sequence[Reply]) -> list[int] | None:
    if any(reply.error is not None for reply in replies):
        return None
    return [to_int(_text(reply)) for reply in replies]


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
