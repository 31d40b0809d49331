"""Balances of many addresses after one block: the same ones, whatever way of asking a node allows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import msgspec
import pytest
from eth_abi.abi import decode, encode

from ctrip.blockchain.balances import MULTICALL, PROGRAM_AT, balances_at, most_at_once
from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.domain.addresses import ADDRESS_BYTES, NATIVE
from ctrip.domain.scanning import Header
from ctrip.errors import BlockVanished, NodeRefused, NodeUnavailable
from tests.between import Answer, between, forward
from tests.devchain import DevChain
from tests.factories import make_chain

pytestmark = pytest.mark.infra

HOLDERS = [number.to_bytes(ADDRESS_BYTES) for number in range(0x1000, 0x1000 + 40)]
REFUSED = b'{"jsonrpc": "2.0", "id": 0, "error": {"code": -32602, "message": "no"}}'
PRUNED = b'{"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "missing trie node"}}'


def _multicall(url: str, body: bytes) -> bytes:
    """Answer as Multicall3 would, that dev chains do not have."""
    asked = msgspec.json.decode(body)
    call, at = asked["params"]
    (calls,) = decode(["(address,bytes)[]"], bytes.fromhex(call["data"][10:]))
    balances = []
    for target, data in calls:
        assert bytes.fromhex(target[2:]) == MULTICALL and data[:4].hex() == "4d2301cc" and len(data) == 36
        one = {"jsonrpc": "2.0", "id": 0, "method": "eth_getBalance", "params": ["0x" + data[-20:].hex(), at]}
        told = msgspec.json.decode(forward(url, msgspec.json.encode(one)))["result"]
        balances.append(int(told, 16).to_bytes(32))
    answer = "0x" + encode(["uint256", "bytes[]"], [7, balances]).hex()
    return msgspec.json.encode({"jsonrpc": "2.0", "id": 0, "result": answer})


def _refuses(what: str, url: str) -> Callable[[bytes], Answer]:
    def answer(body: bytes) -> Answer:
        is_override = b'"code"' in body
        if what == "a block by its hash" and b"blockHash" in body:
            return 200, REFUSED
        if what == "more than ten at once" and is_override and len(body) > 1_000:
            return 200, REFUSED
        if what in ("state override", "state override, and has Multicall3") and is_override:
            return 200, REFUSED
        if what == "to heed the override" and is_override:
            return 200, b'{"jsonrpc": "2.0", "id": 0, "result": "0x"}'
        if what.endswith("Multicall3") and MULTICALL.hex().encode() in body:
            return 200, _multicall(url, body)
        return 200, forward(url, body)

    return answer


@pytest.fixture
def block(anvil: DevChain) -> Header:
    """A block after which the holders have 1, 2, 3 … wei; since then they have more."""
    for amount, address in zip(count(1), HOLDERS, strict=False):
        anvil.set_balance(address, amount)
    anvil.mine(2)  # what is set between two blocks also changes what is told of the first
    (header,) = _client(anvil.url).headers([anvil.block_number() - 1]).values()
    for address in HOLDERS:
        anvil.set_balance(address, 10**6)
    anvil.mine()
    return header


@contextmanager
def asking(ctx: Context, answer: Callable[[bytes], Answer]) -> Iterator[tuple[ChainClient, list[bytes]]]:
    """Yield a client of a node that answers so, of which nothing is known yet, and what is asked of it."""
    bodies: list[bytes] = []

    def noted(body: bytes) -> Answer:
        bodies.append(body)
        return answer(body)

    with between(ctx, noted) as there:
        yield next(iter(there.clients.values())).pinned(), bodies


def _client(url: str) -> ChainClient:
    return ChainClient(make_chain(rpc_urls=(url,)))


@pytest.mark.parametrize(
    ("refused", "requests_at_last"),
    [
        ("nothing", 1),
        ("state override", 1),
        ("to heed the override", 1),
        ("state override, and has Multicall3", 1),
        ("a block by its hash", 2),
        ("more than ten at once", 1),
    ],
)
def test_a_node_that_refuses_a_way_is_asked_in_another(
    ctx: Context, anvil: DevChain, block: Header, refused: str, requests_at_last: int
) -> None:
    with asking(ctx, _refuses(refused, anvil.url)) as (client, bodies):
        for _ in range(2):
            bodies.clear()
            assert balances_at(client, HOLDERS, block=block) == list(range(1, 41))
        assert len(bodies) == requests_at_last, "what was learnt is remembered"
        is_packed = refused in ("nothing", "a block by its hash", "state override, and has Multicall3")
        assert most_at_once(client) == (10_000 if is_packed else 500)
        assert all(b'"requireCanonical":true' in body for body in bodies if b"blockHash" in body)


def test_a_block_that_is_gone_is_refused_and_teaches_nothing(ctx: Context, anvil: DevChain, block: Header) -> None:
    with asking(ctx, lambda body: (200, forward(anvil.url, body))) as (client, bodies):
        anvil.reorg(3)
        with pytest.raises((NodeRefused, BlockVanished)):
            balances_at(client, HOLDERS, block=block)
        (header,) = client.headers([anvil.block_number()]).values()
        there = client.balances([(address, NATIVE) for address in HOLDERS])
        bodies.clear()
        assert balances_at(client, [*HOLDERS, PROGRAM_AT], block=header) == [*there, 0]
        assert len(bodies) == 1, "in the way that it was asked before"


def test_a_node_without_the_state_of_a_block_says_so_and_nothing_is_learnt_from_that(
    ctx: Context, anvil: DevChain, block: Header
) -> None:
    is_pruned = True

    def pruned(body: bytes) -> Answer:
        is_of_state = b"eth_call" in body or b"eth_getBalance" in body
        return 200, PRUNED if is_of_state and is_pruned else forward(anvil.url, body)

    with asking(ctx, pruned) as (client, bodies):
        with pytest.raises(NodeRefused):
            balances_at(client, HOLDERS, block=block)
        is_pruned = False
        bodies.clear()
        assert balances_at(client, HOLDERS, block=block) == list(range(1, 41))
        assert len(bodies) == 1


def test_a_node_that_tells_some_balances_and_refuses_others_is_not_asked_for_ever(
    ctx: Context, anvil: DevChain, block: Header
) -> None:
    def moody(body: bytes) -> Answer:
        if b"eth_call" in body:
            return 200, REFUSED
        asked, told = (msgspec.json.decode(each) for each in (body, forward(anvil.url, body)))
        if isinstance(asked, list):
            told[-1] = {**msgspec.json.decode(REFUSED), "id": asked[-1]["id"]}
        return 200, msgspec.json.encode(told)

    with asking(ctx, moody) as (client, _), pytest.raises(NodeUnavailable, match="refuses others"):
        balances_at(client, HOLDERS, block=block)
