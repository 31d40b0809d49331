"""The chain without npm: what cTrip asks of a node, answered as a node answers."""

from collections.abc import Iterator

import pytest
import requests
from eth_account import Account
from eth_utils.crypto import keccak

from ctrip.domain.addresses import hex_text
from ctrip.errors import NodeRefused
from ctrip.local import devchain
from ctrip.local.node import DevNode
from tests.conftest import running

pytestmark = pytest.mark.infra

SHOP = bytes.fromhex("11" * 20)
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevNode]:
    program, url = devchain.py_evm(port=28745, block_time_s=3600)
    with running(program, tmp_path_factory.mktemp("pyevm")):
        yield DevNode(url)


@pytest.fixture(scope="module")
def usdc(node: DevNode) -> bytes:
    tx_hash = node.send_token_contract(node.accounts()[0])
    node.mine_now()
    usdc = bytes.fromhex(node.wait_mined(tx_hash)["contractAddress"][2:])
    node.mint(usdc, to=node.accounts()[0], amount=10**9, sender=node.accounts()[0])
    node.mine_now()
    return usdc


def test_it_has_the_chain_id_and_the_accounts_of_anvil(node: DevNode) -> None:
    assert node.chain_id() == 31337
    assert node.call("net_version") == "31337"
    assert hex_text(node.accounts()[0]) == "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"


def test_two_payments_of_one_sender_are_in_one_block(node: DevNode) -> None:
    faucet = node.accounts()[0]
    before = node.balance(SHOP)
    hashes = [node.send(sender=faucet, to=SHOP, value=value) for value in (1, 2)]
    assert node.receipt(hashes[0]) is None
    node.mine_now()
    receipts = [node.receipt(tx_hash) for tx_hash in hashes]
    assert [receipt and receipt["status"] for receipt in receipts] == ["0x1", "0x1"]
    block = node.call("eth_getBlockByNumber", "latest", True)
    assert [transaction["value"] for transaction in block["transactions"]] == ["0x1", "0x2"]
    assert node.balance(SHOP) - before == 3


def test_logs_are_found_by_block_hash_and_counted_per_block(node: DevNode, usdc: bytes) -> None:
    faucet = node.accounts()[0]
    for amount in (5, 6):
        node.send_token(usdc, to=SHOP, amount=amount, sender=faucet)
    node.mine_now()
    block_hash = node.call("eth_getBlockByNumber", "latest", False)["hash"]
    for address in (hex_text(usdc), [hex_text(usdc)]):
        logs = node.call("eth_getLogs", {"blockHash": block_hash, "address": address, "topics": [[TRANSFER]]})
        assert [(log["logIndex"], int(log["data"], 16)) for log in logs] == [("0x0", 5), ("0x1", 6)]
    assert node.call("eth_getLogs", {"blockHash": block_hash, "address": [hex_text(SHOP)]}) == []
    with pytest.raises(NodeRefused, match="unknown block"):
        node.call("eth_getLogs", {"blockHash": "0x" + "77" * 32})


def test_a_block_that_is_not_there_is_null(node: DevNode) -> None:
    assert node.block(10_000) is None
    assert node.call("eth_getBlockByHash", "0x" + "77" * 32, False) is None


def test_a_call_that_reverts_is_refused(node: DevNode, usdc: bytes) -> None:
    transfer = "0xa9059cbb" + SHOP.hex().rjust(64, "0") + f"{10**30:064x}"
    with pytest.raises(NodeRefused, match="reverted"):
        node.call("eth_estimateGas", {"from": hex_text(SHOP), "to": hex_text(usdc), "data": transfer})


def test_gas_is_estimated_for_a_sender_without_coin(node: DevNode, usdc: bytes) -> None:
    poor = bytes.fromhex("33" * 20)
    node.mint(usdc, to=poor, amount=9, sender=node.accounts()[0])
    node.mine_now()
    transfer = "0xa9059cbb" + SHOP.hex().rjust(64, "0") + f"{9:064x}"
    gas = int(node.call("eth_estimateGas", {"from": hex_text(poor), "to": hex_text(usdc), "data": transfer}), 16)
    assert 30_000 < gas < 120_000


def test_it_answers_batches(node: DevNode) -> None:
    batch = [{"jsonrpc": "2.0", "id": n, "method": method} for n, method in enumerate(("eth_chainId", "no_such"))]
    answers = requests.post(node.url, json=batch, timeout=5).json()
    assert answers[0] == {"jsonrpc": "2.0", "id": 0, "result": "0x7a69"}
    assert answers[1]["error"]["code"] == -32601


def test_a_signed_transaction_is_taken_once_and_in_its_turn(node: DevNode) -> None:
    payer = Account.create()
    node.send(sender=node.accounts()[0], to=bytes.fromhex(payer.address[2:]), value=10**18)
    node.mine_now()

    def signed(nonce: int, value: int) -> str:
        fields = {"nonce": nonce, "to": "0x" + SHOP.hex(), "value": value, "gas": 21_000, "chainId": 31337}
        fees = {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 10**9, "type": 2}
        return hex_text(bytes(payer.sign_transaction({**fields, **fees}).raw_transaction))

    first = signed(0, 7)
    assert node.call("eth_sendRawTransaction", first) == hex_text(keccak(hexstr=first))
    for raw, words in (
        (first, "already known"),
        (signed(0, 8), "nonce too low"),
        (signed(2, 8), "nonce too high"),
        (signed(1, 10**19), "insufficient funds"),
    ):
        with pytest.raises(NodeRefused, match=words):
            node.call("eth_sendRawTransaction", raw)
    node.mine_now()
    assert node.call("eth_getTransactionCount", payer.address, "latest") == "0x1"
    with pytest.raises(NodeRefused, match="already known"):
        node.call("eth_sendRawTransaction", first)
