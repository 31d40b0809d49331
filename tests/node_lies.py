"""What a node may say that is not so: if it were believed, money would move wrongly. One small class for each lie."""

from typing import Any

from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.domain.addresses import hex_text
from tests.node_bends import Bent
from tests.node_blocks import EarlyTimes, MadeUpBlocks, ManyMadeUpBlocks, Stuck, WrongTimes
from tests.node_faults import (
    BatchLimited,
    Broken,
    CallsLimited,
    Cut,
    Down,
    Fault,
    ForeignReceipts,
    HeadAhead,
    HeadBack,
    Json,
    NullBlocks,
    OneByOne,
    Pruned,
    RangeLimited,
    RateLimited,
    RateLimitedInside,
    Refusing,
    Removed,
    Silent,
    Slow,
    Surroundings,
    TwiceTold,
    WrongChain,
    fake_hash,
)


class EmptyLogs(Fault):
    """`[]` for logs that exist, of all blocks or of some."""

    is_lie = True

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._share = self.dice.choice([0.5, 1.0])

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        is_told = method == "eth_getLogs" and reply.get("result")
        return {"result": []} if is_told and self.chance(self._share, params) else reply


class ForgedLogs(Fault):
    """Transfers that never were: of a transaction that does not exist, or of one that holds no such log.

    One in two such nodes is thorough: its receipts and bloom filters agree with what it made up.
    """

    is_lie = True

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._is_thorough = self.chance(0.5)
        self._receipts: dict[str, Json] = {}

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        result = reply.get("result")
        if method == "eth_getLogs" and isinstance(result, list):
            return {"result": result + self._made_up(params[0])}
        if method == "eth_getTransactionReceipt" and result is None:
            return {"result": self._receipts.get(params[0])}
        if method == "eth_getBlockReceipts" and result is not None:
            return {"result": result + receipts_in(self._receipts, params[0])}
        if self._is_thorough and method.startswith("eth_getBlockBy") and result:
            return {"result": {**result, "logsBloom": "0x" + "f" * 512}}
        return reply

    def _made_up(self, asked: Json) -> list[Json]:
        blocks = [block for block in self._blocks(asked) if block and self.chance(0.6, block["hash"])]
        return [self._log(block, *target) for block in blocks for target in self.around.targets if any(target[1])]

    def _blocks(self, asked: Json) -> list[Json | None]:
        if "blockHash" in asked:
            return [self.upstream.call("eth_getBlockByHash", asked["blockHash"], False)]
        edges = [str(asked.get(edge, "")) for edge in ("fromBlock", "toBlock")]
        if not all(edge.startswith("0x") for edge in edges):
            return []
        first, last = (int(edge, 16) for edge in edges)
        return [self.upstream.call("eth_getBlockByNumber", hex(number), False) for number in range(first, last + 1)]

    def _log(self, block: Json, recipient: bytes, token: bytes, amount: int) -> Json:
        real = block["transactions"]
        tx_hash = real[0] if real and not self._is_thorough else fake_hash(block["hash"], recipient)
        log = {
            "address": hex_text(token),
            "topics": [
                hex_text(word) for word in (TRANSFER_TOPIC, address_word(b"\xaa" * 20), address_word(recipient))
            ],
            "data": hex_text(amount.to_bytes(32)),
            "blockHash": block["hash"],
            "blockNumber": block["number"],
            "blockTimestamp": block["timestamp"],
            "transactionHash": tx_hash,
            "transactionIndex": "0x63",
            "logIndex": hex(0x700 + recipient[0]),
            "removed": False,
        }
        if self._is_thorough:
            self._receipts[tx_hash] = receipt_for(block, tx_hash, recipient, logs=[log])
        return log


class ForgedCoin(Fault):
    """A transaction that pays coin, in a block that holds no such transaction, with a receipt that says it did."""

    is_lie = True

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._receipts: dict[str, Json] = {}

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        block = reply.get("result")
        if method == "eth_getTransactionReceipt" and block is None:
            return {"result": self._receipts.get(params[0])}
        if method == "eth_getBlockReceipts" and block is not None:
            return {"result": block + receipts_in(self._receipts, params[0])}
        if method.startswith("eth_getBlockBy") and block and len(params) > 1 and params[1]:
            return {"result": {**block, "transactions": block["transactions"] + self._made_up(block)}}
        return reply

    def _made_up(self, block: Json) -> list[Json]:
        if not self.chance(0.6, block["hash"]):
            return []
        return [self._transaction(block, *target) for target in self.around.targets if not any(target[1])]

    def _transaction(self, block: Json, recipient: bytes, token: bytes, amount: int) -> Json:
        tx_hash = fake_hash(block["hash"], recipient)
        self._receipts[tx_hash] = receipt_for(block, tx_hash, recipient, logs=[])
        return {
            "hash": tx_hash,
            "from": hex_text(b"\xaa" * 20),
            "to": hex_text(recipient),
            "value": hex(amount),
            "blockHash": block["hash"],
            "blockNumber": block["number"],
            "transactionIndex": "0x63",
            "input": "0x",
            "nonce": "0x0",
            "gas": "0x5208",
            "gasPrice": "0x3b9aca00",
            "type": "0x0",
        }


class Richer(Fault):
    """Balances of addresses that hold nothing, asked for singly or packed into one call."""

    is_lie = True

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        poor = {recipient for recipient, token, _ in self.around.targets if not any(token)}
        if method == "eth_getBalance" and bytes.fromhex(params[0][2:]) in poor:
            return {"result": hex(10**18)}
        if method == "eth_call" and len(params) > 2 and isinstance(reply.get("result"), str):
            return {"result": self._packed(params[0], reply["result"], poor)}
        return reply

    def _packed(self, call: Json, result: str, poor: set[bytes]) -> str:
        packed = bytes.fromhex(call["data" if "data" in call else "input"][2:])
        words = bytearray.fromhex(result[2:])
        for place in range(len(packed) // 20):
            if packed[20 * place : 20 * place + 20] in poor and len(words) >= 32 * place + 32:
                words[32 * place : 32 * place + 32] = (10**18).to_bytes(32)
        return hex_text(bytes(words))


class Fork(Fault):
    """A node that has lost its way: from some block on it has blocks of its own, without some of the payments."""

    is_lie = True

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._last_shared = int(self.upstream.call("eth_blockNumber"), 16) - self.dice.randrange(4)
        self._real: dict[str, str] = {}

    def question(self, method: str, params: list[Any]) -> list[Any]:
        return [self._known(param) for param in params]

    def _known(self, param: Any) -> Any:
        if isinstance(param, dict):
            return {name: self._known(value) for name, value in param.items()}
        return self._real.get(param, param) if isinstance(param, str) else param

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        result = reply.get("result")
        if method.startswith("eth_getBlockBy") and result:
            return {"result": self._block(result)}
        if method == "eth_getLogs" and isinstance(result, list):
            return {"result": [self._placed(log) for log in result if self._holds(log["transactionHash"], log)]}
        if method == "eth_getTransactionReceipt" and result:
            return {"result": self._receipt(result)}
        if method == "eth_getBlockReceipts" and result:
            return {"result": [receipt for receipt in map(self._receipt, result) if receipt]}
        return reply

    def _block(self, block: Json) -> Json:
        number = int(block["number"], 16)
        if number <= self._last_shared:
            return block
        kept = [tx for tx in block["transactions"] if self._holds(tx["hash"] if isinstance(tx, dict) else tx, block)]
        parent = block["parentHash"]
        bent = {
            "hash": self._own(block["hash"]),
            "parentHash": parent if number == self._last_shared + 1 else self._own(parent),
            "transactions": [
                {**tx, "blockHash": self._own(block["hash"])} if isinstance(tx, dict) else tx for tx in kept
            ],
        }
        return {**block, **bent, **({} if len(kept) == len(block["transactions"]) else {"logsBloom": "0x" + "0" * 512})}

    def _receipt(self, receipt: Json) -> Json | None:
        if not self._holds(receipt["transactionHash"], receipt):
            return None
        return {**self._placed(receipt), "logs": [self._placed(log) for log in receipt["logs"]]}

    def _placed(self, at: Json) -> Json:
        return {**at, "blockHash": self._own(at["blockHash"])} if self._is_ours(at) else at

    def _holds(self, tx_hash: str, at: Json) -> bool:
        return not (self._is_ours(at) and self.chance(0.3, tx_hash))

    def _is_ours(self, at: Json) -> bool:
        return int(at["blockNumber" if "blockNumber" in at else "number"], 16) > self._last_shared

    def _own(self, block_hash: str) -> str:
        own = fake_hash(block_hash, self.salt)
        self._real[own] = block_hash
        return own


def receipt_for(block: Json, tx_hash: str, recipient: bytes, *, logs: list[Json]) -> Json:
    return {
        "transactionHash": tx_hash,
        "transactionIndex": "0x63",
        "blockHash": block["hash"],
        "blockNumber": block["number"],
        "from": hex_text(b"\xaa" * 20),
        "to": hex_text(recipient),
        "status": "0x1",
        "gasUsed": "0x5208",
        "cumulativeGasUsed": "0x5208",
        "effectiveGasPrice": "0x3b9aca00",
        "contractAddress": None,
        "logsBloom": "0x" + "f" * 512,
        "type": "0x0",
        "logs": logs,
    }


def receipts_in(receipts: dict[str, Json], block: str) -> list[Json]:
    """Those of a block, which is named by its hash or its number."""
    return [receipt for receipt in receipts.values() if block in (receipt["blockHash"], receipt["blockNumber"])]


FAULTS: tuple[type[Fault], ...] = (
    Down,
    Slow,
    Silent,
    RateLimited,
    RateLimitedInside,
    Broken,
    Cut,
    WrongChain,
    HeadBack,
    NullBlocks,
    RangeLimited,
    BatchLimited,
    CallsLimited,
    OneByOne,
    Refusing,
    Pruned,
    HeadAhead,
    TwiceTold,
    Removed,
    ForeignReceipts,
    EmptyLogs,
    ForgedLogs,
    Bent,
    ForgedCoin,
    Richer,
    Fork,
    MadeUpBlocks,
    ManyMadeUpBlocks,
    WrongTimes,
    EarlyTimes,
    Stuck,
)
