"""What the local stack and the tests do on a dev chain beyond what cTrip does: unlocked accounts and our own token."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import urllib3
from eth_hash.auto import keccak

from ctrip.domain.addresses import hex_text
from ctrip.errors import NodeRefused, NodeUnavailable

_TOKEN_FILE = Path(__file__).resolve().parents[2] / "contracts" / "TestToken.json"
USDC_DECIMALS = 6
MINE_WITHIN_S = 30


class DevNode:
    """A dev node whose accounts are unlocked, over plain JSON-RPC. Raises NodeUnavailable and NodeRefused."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = urllib3.PoolManager()

    def call(self, method: str, *params: Any) -> Any:
        """Return the `result` of one JSON-RPC call."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            answer = self._http.request("POST", self.url, json=request, timeout=30, retries=False).json()
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise NodeUnavailable(f"{method}: no answer from {self.url}") from error
        if "error" in answer:
            words = str(answer["error"].get("message"))
            code = int(answer["error"].get("code", 0))
            raise NodeRefused(f"{method}: {words}", rpc_code=code, rpc_message=words)
        return answer["result"]

    def accounts(self) -> list[bytes]:
        """Return the unlocked accounts."""
        return [bytes.fromhex(account[2:]) for account in self.call("eth_accounts")]

    def chain_id(self) -> int:
        """Return the chain id."""
        return int(self.call("eth_chainId"), 16)

    def block_number(self) -> int:
        """Return the number of the newest block."""
        return int(self.call("eth_blockNumber"), 16)

    def block(self, which: int | str) -> dict[str, Any] | None:
        """Return a block with its transactions' hashes, as the node writes it, or None where there is none."""
        number = hex(which) if isinstance(which, int) else which
        whole_transactions = False
        block: dict[str, Any] | None = self.call("eth_getBlockByNumber", number, whole_transactions)
        return block

    def mine_now(self) -> None:
        """Ask for a block at once; a node that knows no such method mines when it likes."""
        with contextlib.suppress(NodeRefused):
            self.call("evm_mine")

    def has_code(self, address: bytes) -> bool:
        """Say whether a contract stands at the address."""
        return bool(self.call("eth_getCode", hex_text(address), "latest") != "0x")

    def send(self, *, sender: bytes, to: bytes | None, value: int = 0, call: bytes = b"", **fields: str) -> bytes:
        """Send a transaction from an unlocked account; return its hash. It is mined when the chain next mines."""
        request = {"from": hex_text(sender), "value": hex(value), **fields}
        if to is not None:
            request["to"] = hex_text(to)
        if call:
            request["data"] = hex_text(call)
        return bytes.fromhex(self.call("eth_sendTransaction", request)[2:])

    def receipt(self, tx_hash: bytes) -> dict[str, Any] | None:
        """Return the receipt as the node writes it, or None where the transaction is in no block."""
        receipt: dict[str, Any] | None = self.call("eth_getTransactionReceipt", hex_text(tx_hash))
        return receipt

    def wait_mined(self, tx_hash: bytes) -> dict[str, Any]:
        """Return the receipt once there is one. Raises NodeUnavailable after MINE_WITHIN_S seconds."""
        deadline = time.monotonic() + MINE_WITHIN_S
        while time.monotonic() < deadline:
            receipt = self.receipt(tx_hash)
            if receipt is not None:
                return receipt
            time.sleep(0.05)
        raise NodeUnavailable(f"{hex_text(tx_hash)} was not mined within {MINE_WITHIN_S} s: does {self.url} mine?")

    def balance(self, address: bytes, token: bytes | None = None) -> int:
        """Return a balance in base units, of the native coin where no token is named."""
        if token is None:
            return int(self.call("eth_getBalance", hex_text(address), "latest"), 16)
        question = {"to": hex_text(token), "data": hex_text(_selector("balanceOf(address)") + _word(address))}
        return int(self.call("eth_call", question, "latest"), 16)

    def send_token_contract(self, sender: bytes) -> bytes:
        """Send the creation of a fresh test token (6 decimals, anybody may mint); return the transaction's hash."""
        bytecode = json.loads(_TOKEN_FILE.read_text())["bytecode"]
        return self.send(sender=sender, to=None, call=bytes.fromhex(bytecode[2:]), gas=hex(2_000_000))

    def mint(self, token: bytes, *, to: bytes, amount: int, sender: bytes) -> bytes:
        """Make new test tokens."""
        call = _selector("mint(address,uint256)") + _word(to) + _word(amount)
        return self.send(sender=sender, to=token, call=call, gas=hex(200_000))

    def send_token(self, token: bytes, *, to: bytes, amount: int, sender: bytes) -> bytes:
        """Pay in tokens from an unlocked account."""
        call = _selector("transfer(address,uint256)") + _word(to) + _word(amount)
        return self.send(sender=sender, to=token, call=call, gas=hex(200_000))


def _selector(signature: str) -> bytes:
    return keccak(signature.encode())[:4]


def _word(value: bytes | int) -> bytes:
    return value.to_bytes(32) if isinstance(value, int) else value.rjust(32, b"\0")
