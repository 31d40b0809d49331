import pytest

from ctrip.blockchain.decoding import HeaderJson, header_of, to_bytes, to_int
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
