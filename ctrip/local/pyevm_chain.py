"""The chain for machines without npm: py-evm, spoken to in JSON-RPC, in memory only, without reorgs.

A transaction is executed when it arrives, into the block that is being made, and is in the chain at the next tick.
There is no pool: a nonce ahead of its turn is refused, and so is a replacement.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from eth.vm.spoof import SpoofTransaction
from eth_tester import PyEVMBackend
from eth_utils.exceptions import ValidationError

from ctrip.local.devchain import CHAIN_ID, MNEMONIC

_GWEI = 10**9
_ETHER = 10**18
_CALL_GAS = 10_000_000
_FAILED, _REVERTED, _UNKNOWN_METHOD = -32000, 3, -32601

Json = dict[str, Any]


class Refused(Exception):
    """A JSON-RPC error answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class PyEvmChain:
    """A chain of mined blocks, kept as JSON-RPC writes them, and the EVM that makes the next one.

    Threads may share it: each call holds the one lock.
    """

    def __init__(self) -> None:
        self._evm = PyEVMBackend.from_mnemonic(
            MNEMONIC, hd_path="m/44'/60'/0'/0", genesis_state_overrides={"balance": 1_000_000 * _ETHER}
        )
        self._evm.chain.chain_id = CHAIN_ID
        self._blocks: list[Json] = []
        self._numbers: dict[str, int] = {}
        self._transactions: dict[str, Json] = {}
        self._receipts: dict[str, Json] = {}
        self._lock = threading.Lock()
        self._methods: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: "ctrip/py-evm",
            "net_version": lambda: str(CHAIN_ID),
            "eth_chainId": lambda: hex(CHAIN_ID),
            "eth_accounts": lambda: [_text(account) for account in self._evm.get_accounts()],
            "eth_blockNumber": lambda: self._blocks[-1]["number"],
            "eth_syncing": lambda: False,
            "eth_gasPrice": lambda: hex(self._base_fee() + _GWEI),
            "eth_maxPriorityFeePerGas": lambda: hex(_GWEI),
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getLogs": self._logs,
            "eth_getTransactionByHash": lambda tx_hash: self._transactions.get(tx_hash.lower()),
            "eth_getTransactionReceipt": lambda tx_hash: self._receipts.get(tx_hash.lower()),
            "eth_getBalance": lambda address, tag="latest": hex(self._evm.get_balance(_bytes(address), self._at(tag))),
            "eth_getTransactionCount": lambda address, tag="latest": hex(self._nonce(_bytes(address), tag)),
            "eth_getCode": lambda address, tag="latest": _text(self._evm.get_code(_bytes(address), self._at(tag))),
            "eth_call": lambda request, tag="latest": _text(self._execute(request, tag).output),
            "eth_estimateGas": self._estimate,
            "eth_sendRawTransaction": self._send_raw,
            "eth_sendTransaction": self._send,
            "evm_mine": lambda *_: self._mine(),
        }
        self._keep(self._evm.get_block_by_number(0))

    def mine(self) -> None:
        """Close the block that is being made."""
        with self._lock:
            self._mine()

    def answer(self, request: Any) -> Json:
        """Answer one JSON-RPC request."""
        if not isinstance(request, Mapping):
            return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "invalid request"}}
        head = {"jsonrpc": "2.0", "id": request.get("id")}
        try:
            with self._lock:
                return {**head, "result": self._result(str(request.get("method")), request.get("params") or [])}
        except Refused as refusal:
            return {**head, "error": {"code": refusal.code, "message": refusal.message}}

    def _result(self, method: str, params: list[Any]) -> Any:
        known = self._methods.get(method)
        if known is None:
            raise Refused(_UNKNOWN_METHOD, f"the method {method} does not exist here")
        try:
            return known(*params)
        except (ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(_FAILED, f"{method}: {error}") from error

    # --- blocks -----------------------------------------------------------------------------------------------------

    def _mine(self) -> str:
        self._evm.mine_blocks(1)
        self._keep(self._evm.get_block_by_number("latest"))
        return "0x0"

    def _keep(self, block: Json) -> None:
        kept = _json({**block, "miner": block["coinbase"], "transactions": []})
        log_index = 0
        for transaction in block["transactions"]:
            written = _json({**transaction, "input": transaction["data"]})
            written["to"] = None if written["to"] == "0x" else written["to"]
            receipt = _json(self._evm.get_transaction_receipt(transaction["hash"]))
            for log in receipt["logs"]:  # eth-tester counts them per transaction, JSON-RPC per block
                log |= {"logIndex": hex(log_index), "removed": False}
                log_index += 1
            kept["transactions"].append(written)
            self._transactions[written["hash"]] = written
            self._receipts[written["hash"]] = receipt
        self._blocks.append(kept)
        self._numbers[kept["hash"]] = len(self._blocks) - 1

    def _block_by_number(self, tag: str, whole: bool = False) -> Json | None:  # noqa: FBT001, FBT002 (JSON-RPC's own)
        number = self._number(tag)
        return _shown(self._blocks[number], whole=whole) if number < len(self._blocks) else None

    def _block_by_hash(self, block_hash: str, whole: bool = False) -> Json | None:  # noqa: FBT001, FBT002 (as above)
        number = self._numbers.get(block_hash.lower())
        return None if number is None else _shown(self._blocks[number], whole=whole)

    def _logs(self, wanted: Json) -> list[Json]:
        if "blockHash" in wanted:
            number = self._numbers.get(wanted["blockHash"].lower())
            if number is None:
                raise Refused(_FAILED, "unknown block")
            blocks = [self._blocks[number]]
        else:
            first, last = self._number(wanted.get("fromBlock", "latest")), self._number(wanted.get("toBlock", "latest"))
            blocks = self._blocks[first : last + 1]
        hashes = (transaction["hash"] for block in blocks for transaction in block["transactions"])
        return [log for tx_hash in hashes for log in self._receipts[tx_hash]["logs"] if _matches(log, wanted)]

    def _number(self, tag: str) -> int:
        head = len(self._blocks) - 1
        named = {"earliest": 0, "latest": head, "safe": head, "finalized": head, "pending": head}
        return named[tag] if tag in named else int(tag, 16)

    def _at(self, tag: str) -> int | str:
        """Name a block to the EVM. Raises Refused for one that is not there yet."""
        number = self._number(tag)
        if number >= len(self._blocks):
            raise Refused(_FAILED, f"header not found: {tag}")
        return number

    # --- transactions -----------------------------------------------------------------------------------------------

    def _base_fee(self) -> int:
        return int(self._blocks[-1]["baseFeePerGas"], 16)

    def _nonce(self, address: bytes, tag: str) -> int:
        if tag == "pending":
            nonce: int = self._evm.chain.get_vm().state.get_nonce(address)
            return nonce
        return int(self._evm.get_nonce(address, self._at(tag)))

    def _send_raw(self, raw: str) -> str:
        return self._apply(self._evm.chain.get_transaction_builder().decode(_bytes(raw)))

    def _send(self, request: Json) -> str:
        transaction = self._asked(request, gas=request.get("gas") or self._estimate(request))
        if "nonce" not in transaction:
            transaction["nonce"] = self._nonce(transaction["from"], "pending")
        return self._apply(self._evm._get_normalized_and_signed_evm_transaction(transaction))

    def _apply(self, transaction: Any) -> str:
        tx_hash = _text(transaction.hash)
        pending = self._evm.chain.get_block().transactions
        if tx_hash in self._transactions or any(other.hash == transaction.hash for other in pending):
            raise Refused(_FAILED, "already known")
        expected = self._nonce(transaction.sender, "pending")
        if transaction.nonce != expected:
            how = "low" if transaction.nonce < expected else "high"
            raise Refused(_FAILED, f"nonce too {how}: next nonce {expected}, tx nonce {transaction.nonce}")
        try:
            self._evm.chain.apply_transaction(transaction)
        except ValidationError as error:
            poor = "balance" in str(error) or "afford" in str(error)
            raise Refused(_FAILED, f"insufficient funds: {error}" if poor else str(error)) from error
        return tx_hash

    def _estimate(self, request: Json, tag: str = "latest") -> str:
        """Return an upper estimate: what the execution used, a fifth more, and the price of being a transaction."""
        call = _bytes(request.get("data") or request.get("input") or "0x")
        used = self._execute(request, tag).get_gas_used()
        return hex(21_000 + 16 * len(call) + used + used // 5 + (53_000 if not request.get("to") else 0))

    def _execute(self, request: Json, tag: str) -> Any:
        header = self._evm.chain.get_canonical_block_header_by_number(self._at(tag))
        state = self._evm.chain.get_vm(at_header=header).state
        transaction = self._asked(request, gas=hex(_CALL_GAS))
        sender = transaction["from"]
        # A question costs nothing: whoever asks is lent the price of its gas.
        state.set_balance(sender, state.get_balance(sender) + _ETHER)
        transaction["nonce"] = state.get_nonce(sender)
        unsigned = self._evm._get_normalized_and_unsigned_evm_transaction(transaction)
        computation = state.apply_transaction(SpoofTransaction(unsigned, from_=sender))
        if computation.is_error:
            raise Refused(_REVERTED, "execution reverted")
        return computation

    def _asked(self, request: Json, *, gas: str) -> Json:
        fields = {
            "from": _bytes(request["from"]) if request.get("from") else self._evm.get_accounts()[0],
            "to": _bytes(request.get("to") or "0x"),
            "value": int(request.get("value") or "0x0", 16),
            "data": _bytes(request.get("data") or request.get("input") or "0x"),
            "gas": int(gas, 16),
            "max_fee_per_gas": 2 * self._base_fee() + _GWEI,
            "max_priority_fee_per_gas": _GWEI,
        }
        return fields | ({"nonce": int(request["nonce"], 16)} if "nonce" in request else {})


def _shown(block: Json, *, whole: bool) -> Json:
    return block if whole else {**block, "transactions": [transaction["hash"] for transaction in block["transactions"]]}


def _matches(log: Json, wanted: Json) -> bool:
    addresses = wanted.get("address")
    addresses = [addresses] if isinstance(addresses, str) else addresses
    if addresses and log["address"] not in {address.lower() for address in addresses}:
        return False
    for position, topic in enumerate(wanted.get("topics") or []):
        choices = [topic] if isinstance(topic, str) else topic
        if choices and (position >= len(log["topics"]) or log["topics"][position] not in choices):
            return False
    return True


def _json(value: Any) -> Any:
    """Write as JSON-RPC does: camelCase names, quantities and bytes as `0x` text."""
    if isinstance(value, Mapping):
        return {_camel(name): _json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner) for inner in value]
    if isinstance(value, bytes):
        return _text(value)
    return hex(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _text(value: bytes) -> str:
    return "0x" + value.hex()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
