"""Balances of many addresses after one block: the same ones, whatever way of asking a node allows."""

from collections.abc import Callable
from itertools import count

import msgspec
import pytest
from eth_abi.abi import decode, encode

from ctrip.blockchain.balances import MULTICALL, PROGRAM_AT, balances_at, most_at_once
from ctrip.blockchain.client import ChainClient
from ctrip.context import Context
from ctrip.domain.addresses import ADDRESS_BYTES, NATIVE
from ctrip.domain.scanning import Header
from ctrip.errors import BlockVanished, NodeRefused
from tests.between import Answer, between, forward
from tests.devchain import DevChain
from tests.factories import make_chain

pytestmark = pytest.mark.infra

HOLDERS = [number.to_bytes(ADDRESS_BYTES) for number in range(0x1000, 0x1000 + 40)]
REFUSED = b'{"jsonrpc": "2.0", "id": 0, "error": {"code": -32602, "message": "no"}}'


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
        ("more than ten at once", 4),
    ],
)
def test_a_node_that_refuses_a_way_is_asked_in_another(
    ctx: Context, anvil: DevChain, block: Header, refused: str, requests_at_last: int
) -> None:
    requests = count()
    answer = _refuses(refused, anvil.url)

    def counted(body: bytes) -> Answer:
        next(requests)
        return answer(body)

    with between(ctx, counted) as there:
        client = next(iter(there.clients.values())).pinned()
        for _ in range(2):
            before = next(requests) + 1
            assert balances_at(client, HOLDERS, block=block) == list(range(1, 41))
        assert next(requests) - before == requests_at_last, "what was learnt is remembered"
        assert most_at_once(client) == (500 if refused in ("state override", "to heed the override") else 10_000)


def test_a_block_that_is_gone_is_refused_and_teaches_nothing(ctx: Context, anvil: DevChain, block: Header) -> None:
    client = next(iter(ctx.clients.values())).pinned()
    anvil.reorg(3)
    with pytest.raises((NodeRefused, BlockVanished)):
        balances_at(client, HOLDERS, block=block)
    (header,) = client.headers([anvil.block_number()]).values()
    there = client.balances([(address, NATIVE) for address in HOLDERS])
    assert balances_at(client, [*HOLDERS, PROGRAM_AT], block=header) == [*there, 0]
