"""What a chain itself says of the payments: its canonical blocks, read plainly and honestly, and remembered by hash."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ctrip.blockchain.erc20 import TRANSFER_TOPIC
from ctrip.domain.addresses import NATIVE, hex_text
from tests.devchain import DevChain


@dataclass(frozen=True)
class Paid:
    """A transfer as it stands in a block."""

    recipient: bytes
    token: bytes
    amount: int
    tx_hash: bytes
    log_index: int
    block_number: int
    block_hash: bytes

    def __str__(self) -> str:
        return f"{self.amount} in block {self.block_number} ({self.block_hash.hex()[:8]}), log {self.log_index}"


@dataclass(frozen=True)
class _Block:
    number: int
    parent: str
    paid: tuple[Paid, ...]


class CanonicalChain:
    """Reads from block `since` on. It shares nothing with the code that it judges."""

    def __init__(self, chain: DevChain, token: bytes, *, since: int) -> None:
        self._chain = chain
        self._token = token
        self._since = since
        self._blocks: dict[str, _Block] = {}

    def paid(self, recipients: Iterable[bytes], *, confirmations: int = 1) -> list[Paid]:
        """Every transfer to these addresses in blocks that have so many confirmations, oldest first."""
        ours = set(recipients)
        newest: dict[str, Any] = self._chain.call("eth_getBlockByNumber", "latest", True)
        head = int(newest["number"], 16)
        found: list[Paid] = []
        block_hash: str = newest["hash"]
        block: dict[str, Any] | None = newest
        while True:
            known = self._blocks.get(block_hash) or self._read(block_hash, block)
            if known.number < self._since:
                return found[::-1]
            if known.number <= head - confirmations + 1:
                found += [paid for paid in reversed(known.paid) if paid.recipient in ours]
            block_hash, block = known.parent, None

    def _read(self, block_hash: str, block: dict[str, Any] | None) -> _Block:
        block = block or self._chain.call("eth_getBlockByHash", block_hash, True)
        number = int(block["number"], 16)
        wanted = {"blockHash": block_hash, "address": hex_text(self._token), "topics": [hex_text(TRANSFER_TOPIC)]}
        logs = self._chain.call("eth_getLogs", wanted) if block["transactions"] else []
        coin = [tx for tx in block["transactions"] if tx["to"] and int(tx["value"], 16) and self._succeeded(tx["hash"])]
        paid = [
            Paid(_bytes(tx["to"]), NATIVE, int(tx["value"], 16), _bytes(tx["hash"]), -1, number, _bytes(block_hash))
            for tx in coin
        ] + [
            Paid(
                _bytes(log["topics"][2])[12:],
                self._token,
                int(log["data"], 16),
                _bytes(log["transactionHash"]),
                int(log["logIndex"], 16),
                number,
                _bytes(block_hash),
            )
            for log in logs
        ]
        self._blocks[block_hash] = read = _Block(number, block["parentHash"], tuple(paid))
        return read

    def _succeeded(self, tx_hash: str) -> bool:
        return bool(self._chain.call("eth_getTransactionReceipt", tx_hash)["status"] == "0x1")


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])
