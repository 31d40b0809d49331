"""The synthetic node's blocks hang together as a real node's do: what is measured with them must be true."""

import json
from typing import Any

import pytest

from bench.scan_blocks import FIRST_BLOCK, Filter, SyntheticChain, issued_address
from bench.scan_bodies import LISTED, TRANSFER, make_bodies, word
from ctrip.blockchain.bloom import mask, may_hold
from ctrip.domain.addresses import NATIVE
from ctrip.domain.transfers import NATIVE_LOG_INDEX

NUMBER = FIRST_BLOCK + 7
LISTED_TRANSFERS = Filter.of({"address": list(LISTED), "topics": [TRANSFER]})


@pytest.fixture(scope="module")
def chain() -> SyntheticChain:
    return SyntheticChain(1, make_bodies(2), payees=999)


def block(chain: SyntheticChain, number: int) -> Any:
    return json.loads(chain.block(number, is_full=True))


def logs(chain: SyntheticChain, wanted: Filter, *numbers: int) -> Any:
    return json.loads(chain.logs(numbers, wanted))


def test_a_block_has_the_size_of_mainnets_and_links_to_the_one_before(chain: SyntheticChain) -> None:
    before, now = block(chain, NUMBER - 1), block(chain, NUMBER)
    assert now["parentHash"] == before["hash"] != now["hash"]
    assert chain.number_of(now["hash"]) == NUMBER
    assert len(now["transactions"]) == 200
    assert {tx["blockHash"] for tx in now["transactions"]} == {now["hash"]}
    header = json.loads(chain.block(NUMBER, is_full=False))
    assert header["transactions"] == [tx["hash"] for tx in now["transactions"]]


def test_logs_are_of_the_blocks_transactions_and_in_its_bloom_filter(chain: SyntheticChain) -> None:
    now, every = block(chain, NUMBER), logs(chain, Filter.of({}), NUMBER)
    assert [int(log["logIndex"], 16) for log in every] == list(range(400))
    hashes = [tx["hash"] for tx in now["transactions"]]
    assert all(log["transactionHash"] == hashes[int(log["transactionIndex"], 16)] for log in every)
    assert {log["blockHash"] for log in every} == {now["hash"]}
    entries = [[bytes.fromhex(text[2:]) for text in (log["address"], *log["topics"])] for log in every]
    assert all(may_hold(int(now["logsBloom"], 16), [mask(*each)]) for each in entries)
    assert sum(log["topics"][0] == TRANSFER for log in every) == 150


def test_a_filter_picks_the_logs_that_a_node_would(chain: SyntheticChain) -> None:
    every = logs(chain, Filter.of({}), NUMBER, NUMBER + 1)
    listed = [log for log in every if log["address"] in LISTED and log["topics"][0] == TRANSFER]
    assert logs(chain, LISTED_TRANSFERS, NUMBER, NUMBER + 1) == listed
    recipient = word("0x" + chain.payments(NUMBER)[1].recipient.hex())
    to_one = Filter.of({"topics": [[TRANSFER], None, [recipient]]})
    assert logs(chain, to_one, NUMBER, NUMBER + 1) == [log for log in listed if log["topics"][2] == recipient]


def test_each_block_pays_the_next_three_addresses_and_receipts_agree(chain: SyntheticChain) -> None:
    now, paid = block(chain, NUMBER), chain.payments(NUMBER)
    assert [payment.recipient for payment in paid] == [issued_address(NUMBER % 333 * 3 + which) for which in range(3)]
    for payment in paid:
        tx_hash = "0x" + payment.tx_hash.hex()
        receipt, transaction = json.loads(chain.receipt(tx_hash) or b""), json.loads(chain.transaction(tx_hash) or b"")
        assert transaction == now["transactions"][payment.transaction]
        assert receipt["blockHash"] == now["hash"]
        if payment.token == NATIVE:
            assert payment.log_index == NATIVE_LOG_INDEX
            assert (transaction["to"], int(transaction["value"], 16)) == (
                "0x" + payment.recipient.hex(),
                payment.amount,
            )
            assert receipt["logs"] == []
        else:
            stored = logs(chain, LISTED_TRANSFERS, NUMBER)
            (log,) = receipt["logs"]
            assert log in stored
            assert (log["topics"][2][-40:], int(log["data"], 16)) == (payment.recipient.hex(), payment.amount)


def test_without_payees_nobody_of_ours_is_paid() -> None:
    quiet = SyntheticChain(1, make_bodies(1), payees=0)
    ours = {issued_address(number) for number in range(1000)}
    assert not ours & {payment.recipient for payment in quiet.payments(NUMBER)}


@pytest.mark.parametrize("tx_hash", ["0x" + "00" * 32, "0x" + "ab" * 24 + "0000000001312d07"])
def test_a_transaction_that_is_not_planted_is_unknown(chain: SyntheticChain, tx_hash: str) -> None:
    assert chain.receipt(tx_hash) is None
    assert chain.transaction(tx_hash) is None
