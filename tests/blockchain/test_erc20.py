"""ERC-20's call data and logs, against another implementation of the ABI."""

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from ctrip.blockchain import erc20
from ctrip.blockchain.decoding import Log
from ctrip.domain.addresses import checksum_address

TOKEN, OTHER_TOKEN = b"\x70" * 20, b"\x71" * 20
ALICE, BOB, CAROL = b"\xaa" * 20, b"\xbb" * 20, b"\xcc" * 20


@pytest.mark.parametrize("amount", [0, 1, 12_500_000, 2**256 - 1])
def test_a_transfer_is_called_as_the_abi_says(amount: int) -> None:
    arguments = encode(["address", "uint256"], [checksum_address(BOB), amount])
    assert erc20.transfer_call(BOB, amount) == keccak(text="transfer(address,uint256)")[:4] + arguments


def test_the_other_calls_and_the_topic_are_those_of_the_abi() -> None:
    assert erc20.balance_of_call(BOB) == keccak(text="balanceOf(address)")[:4] + encode(
        ["address"], [checksum_address(BOB)]
    )
    assert erc20.decimals_call() == keccak(text="decimals()")[:4]
    assert keccak(text="Transfer(address,address,uint256)") == erc20.TRANSFER_TOPIC


@pytest.mark.parametrize("address", [b"", b"\x01" * 19, b"\x01" * 32])
def test_what_is_no_address_is_put_into_no_call(address: bytes) -> None:
    with pytest.raises(ValueError, match="20 bytes"):
        erc20.transfer_call(address, 1)


def log(amount: int, *, token: bytes = TOKEN, sender: bytes = ALICE, recipient: bytes = BOB) -> Log:
    topics = (erc20.TRANSFER_TOPIC, sender.rjust(32, b"\0"), recipient.rjust(32, b"\0"))
    return Log(address=token, topics=topics, payload=amount.to_bytes(32), log_index=0)


@pytest.mark.parametrize(
    ("situation", "logs", "moved"),
    [
        ("the one that counts", [log(5)], 5),
        ("among others", [log(9, token=OTHER_TOKEN), log(8, sender=CAROL), log(7, recipient=CAROL), log(5)], 5),
        ("in two parts", [log(5), log(6)], 11),
        ("a transfer of nothing", [log(0)], 0),
        ("none", [], None),
        ("of another token", [log(5, token=OTHER_TOKEN)], None),
        ("from another", [log(5, sender=CAROL)], None),
        ("to another", [log(5, recipient=CAROL)], None),
        ("the other way round", [log(5, sender=BOB, recipient=ALICE)], None),
    ],
)
def test_what_moved_is_what_the_tokens_own_logs_say(situation: str, logs: list[Log], moved: int | None) -> None:
    assert erc20.moved(logs, token=TOKEN, sender=ALICE, recipient=BOB) == moved
