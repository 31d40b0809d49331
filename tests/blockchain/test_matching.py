from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ctrip.blockchain.decoding import Block, LogJson, TransactionJson
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, UPGRADED_TOPIC
from ctrip.blockchain.matching import checked, sightings, upgrades
from ctrip.domain.addresses import COIN_LOGGER, NATIVE, checksum_address, hex_text
from ctrip.domain.scanning import Header
from ctrip.errors import NodeUnavailable
from tests.factories import ADDRESS, PAYER, TOKEN, block_hash, block_time, tx_hash

HEADER = Header(7, block_hash(7), block_hash(6), block_time(7))
OTHER = b"\x55" * 20


def word(address: bytes) -> str:
    return "0x" + "00" * 12 + address.hex()


def coin(to: str | None = hex_text(ADDRESS), value: str = "0x5") -> TransactionJson:
    return TransactionJson(hash=hex_text(tx_hash("coin")), sender=hex_text(PAYER), value=value, to=to)


def transfer(index: str = "0x3", **changes: Any) -> LogJson:
    log = LogJson(
        address=hex_text(TOKEN),
        topics=[hex_text(TRANSFER_TOPIC), word(PAYER), word(ADDRESS)],
        payload=hex_text((9).to_bytes(32)),
        block_hash=hex_text(HEADER.hash),
        transaction_hash=hex_text(tx_hash("token")),
        log_index=index,
    )
    return msgspec.structs.replace(log, **changes)


def found(*transactions: TransactionJson, logs: tuple[LogJson, ...] = ()) -> list[tuple[bytes, bytes, int, int]]:
    seen = sightings(
        [checked(Block(HEADER, transactions), logs, tokens=[TOKEN])], issued=lambda asked: asked & {ADDRESS}
    )
    assert all((each.block_hash, each.recipient, each.sender) == (HEADER.hash, ADDRESS, PAYER) for each in seen)
    return [(each.token, each.tx_hash, each.log_index, each.amount) for each in seen]


def test_coin_and_tokens_to_an_issued_address_are_found_and_nothing_else() -> None:
    to_other = transfer("0x4", topics=[hex_text(TRANSFER_TOPIC), word(PAYER), word(OTHER)])
    assert found(coin(), coin(to=hex_text(OTHER)), logs=(transfer(), to_other)) == [
        (NATIVE, tx_hash("coin"), -1, 5),
        (TOKEN, tx_hash("token"), 3, 9),
    ]


def test_a_node_may_write_addresses_with_their_checksum() -> None:
    assert [each[-1] for each in found(coin(to=checksum_address(ADDRESS)))] == [5]


@pytest.mark.parametrize("nothing", [coin(to=None), coin(value="0x0"), coin(value="0x00")])
def test_a_call_that_moves_no_coin_is_no_transfer(nothing: TransactionJson) -> None:
    assert found(nothing) == []


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param({"topics": [hex_text(TRANSFER_TOPIC), word(PAYER), "0x" + "11" * 12 + ADDRESS.hex()]}, id="dirty"),
        pytest.param({"topics": [hex_text(TRANSFER_TOPIC), "0x" + "11" * 32, word(ADDRESS)]}, id="dirty sender"),
        pytest.param({"topics": [hex_text(TRANSFER_TOPIC), word(PAYER), word(ADDRESS), word(OTHER)]}, id="ERC-721"),
        pytest.param({"topics": [hex_text(TRANSFER_TOPIC), word(PAYER)]}, id="too few topics"),
        pytest.param({"topics": [hex_text(UPGRADED_TOPIC), word(PAYER), word(ADDRESS)]}, id="another event"),
        pytest.param({"topics": []}, id="no topics"),
        pytest.param({"payload": "0x"}, id="no amount"),
        pytest.param({"payload": hex_text((9).to_bytes(31))}, id="short amount"),
        pytest.param({"payload": hex_text((9).to_bytes(64))}, id="long amount"),
        pytest.param({"payload": hex_text(bytes(32))}, id="nothing"),
    ],
)
def test_a_log_that_is_no_clean_transfer_is_none(forged: dict[str, Any]) -> None:
    assert found(logs=(transfer(**forged),)) == []


def test_where_coin_has_logs_they_alone_tell_of_it() -> None:
    inner = transfer(address=hex_text(COIN_LOGGER))
    block = checked(Block(HEADER, (coin(),)), (inner,), tokens=[TOKEN, COIN_LOGGER], logs_coin=True)
    seen = sightings([block], issued=lambda asked: asked & {ADDRESS})
    assert [(each.token, each.log_index, each.amount) for each in seen] == [(NATIVE, 3, 9)]


def test_a_log_that_is_told_twice_is_one_transfer() -> None:
    assert len(found(logs=(transfer(), transfer()))) == 1


@pytest.mark.parametrize(
    "logs",
    [
        (transfer(removed=True),),
        (transfer(block_hash=hex_text(block_hash(7, "fork"))),),
        (transfer(), transfer(payload=hex_text((10).to_bytes(32)))),
        (transfer(), transfer("0x4", address=hex_text(OTHER))),
    ],
    ids=["removed", "of another block", "two of one index", "of a contract that was not asked for"],
)
def test_logs_that_cannot_be_of_this_block_are_not_believed(logs: tuple[LogJson, ...]) -> None:
    with pytest.raises(NodeUnavailable):
        checked(Block(HEADER, ()), logs, tokens=[TOKEN])


def test_nobody_is_asked_for_whole_batches_twice() -> None:
    asked: list[set[bytes]] = []
    blocks = [
        checked(Block(replace(HEADER, number=number), (coin(),)), (transfer(),), tokens=[TOKEN]) for number in (7, 8)
    ]
    sightings(blocks, issued=lambda addresses: (asked.append(addresses), set())[1])  # type: ignore[func-returns-value]
    assert asked == [{ADDRESS}]


def test_an_upgrade_of_a_listed_proxy_is_told() -> None:
    log = transfer(topics=[hex_text(UPGRADED_TOPIC), word(OTHER)], payload="0x")
    (upgrade,) = upgrades([checked(Block(HEADER, ()), (transfer("0x9"), log), tokens=[TOKEN])])
    assert (upgrade.token, upgrade.block_number, upgrade.tx_hash) == (TOKEN, 7, tx_hash("token"))
