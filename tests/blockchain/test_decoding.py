import json
from typing import Any

import pytest

from ctrip.blockchain.decoding import BLOCKS, HeaderJson, TransactionJson, blocks_of, header_of, to_bytes, to_int
from ctrip.errors import NodeUnavailable


@pytest.mark.parametrize(
    "changes",
    [
        {"number": hex(2**63)},
        {"number": "-0x1"},
        {"number": "seven"},
        {"hash": "0x" + "11" * 31},
        {"hash": "0xno"},
        {"parent_hash": "0x" + "11" * 33},
        {"timestamp": hex(2**60)},
        {"timestamp": hex(2**256)},
    ],
)
def test_a_header_that_could_not_be_stored_is_that_of_a_node_that_fails(changes: dict[str, str]) -> None:
    told = {"number": "0x7", "hash": "0x" + "11" * 32, "parent_hash": "0x" + "22" * 32, "timestamp": "0x5"}
    assert header_of(HeaderJson(**told)).number == 7
    with pytest.raises(NodeUnavailable):
        header_of(HeaderJson(**told | changes))


def test_a_number_may_have_as_many_bits_as_are_asked_for() -> None:
    assert to_int(hex(2**256 - 1)) == 2**256 - 1
    for number in (hex(2**256), "-0x1", "", "0xzz"):
        with pytest.raises(NodeUnavailable):
            to_int(number)
    with pytest.raises(NodeUnavailable):
        to_int("0x100", bits=8)


def test_bytes_may_be_asked_for_by_their_length() -> None:
    assert to_bytes("0x0102", size=2) == to_bytes("0x0102")
    with pytest.raises(NodeUnavailable):
        to_bytes("0x0102", size=3)


def told_block(transactions: Any) -> bytes:
    """A reply with a block, as a node writes it."""
    block = {"number": "0x7", "hash": "0x" + "11" * 32, "parentHash": "0x" + "22" * 32, "timestamp": "0x5"}
    return json.dumps({"id": 0, "result": block | transactions}).encode()


SENT = {"hash": "0x01", "from": "0x02", "to": None, "value": "0x3", "gas": "0x4"}


@pytest.mark.parametrize(
    ("transactions", "read"),
    [([], ()), ([SENT, SENT], (TransactionJson(hash="0x01", sender="0x02", value="0x3"),) * 2)],
)
def test_a_block_is_read_with_its_transactions(transactions: list[object], read: tuple[TransactionJson, ...]) -> None:
    (reply,) = BLOCKS.decode(told_block({"transactions": transactions}))
    (block,) = blocks_of([7], [reply.result])
    assert block.transactions == read


@pytest.mark.parametrize(
    "more", [{}, {"transactions": None}, {"transactions": ["0x01"]}, {"transactions": [SENT, "0x01"]}]
)
def test_a_block_without_its_transactions_is_a_header_and_not_an_empty_block(more: dict[str, object]) -> None:
    (reply,) = BLOCKS.decode(told_block(more))
    assert header_of(reply.result).number == 7
    with pytest.raises(NodeUnavailable, match="without its transactions"):
        blocks_of([7], [reply.result])


def test_a_block_that_must_be_there_and_is_not_is_that_of_a_node_that_fails() -> None:
    (reply,) = BLOCKS.decode(b'{"id":0,"result":null}')
    assert blocks_of([7], [reply.result]) == []
    with pytest.raises(NodeUnavailable):
        header_of(reply.result)
