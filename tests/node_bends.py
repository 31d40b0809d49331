"""What a node may say of transfers that were made: if it were believed, they would be others than they are."""

from typing import Any

from ctrip.blockchain.erc20 import address_word
from ctrip.domain.addresses import NATIVE, hex_text
from tests.node_faults import Fault, Json, Surroundings


class Bent(Fault):
    """Transfers that were made, told otherwise in logs, receipts and blocks alike: how much, to whom, or where."""

    is_lie = True
    ways: tuple[str, ...] = ("amount", "recipient", "place")

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._way = self.dice.choice(self.ways)

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        result = reply.get("result")
        if method == "eth_getLogs" and isinstance(result, list):
            return {"result": [self._log(log) for log in result]}
        if method == "eth_getTransactionReceipt" and result:
            return {"result": self._receipt(result)}
        if method == "eth_getBlockReceipts" and result:
            return {"result": [self._receipt(receipt) for receipt in result]}
        if method == "eth_getTransactionByHash" and result:
            return {"result": self._coin(result)}
        if method.startswith("eth_getBlockBy") and result and len(params) > 1 and params[1]:
            return {"result": {**result, "transactions": [self._coin(each) for each in result["transactions"]]}}
        return reply

    def _receipt(self, receipt: Json) -> Json:
        return {**receipt, "logs": [self._log(log) for log in receipt["logs"]]}

    def _log(self, log: Json) -> Json:
        if len(log["topics"]) != 3 or log["data"] == "0x":
            return log
        if self._way == "amount":
            return {**log, "data": hex_text((int(log["data"], 16) * 2).to_bytes(32))}
        if self._way == "place":
            # Some nodes count logs in each transaction anew.
            return {**log, "logIndex": hex(int(log["logIndex"], 16) + 7)}
        return {**log, "topics": [*log["topics"][:2], hex_text(address_word(self._other(log["address"])))]}

    def _coin(self, transaction: Json) -> Json:
        if self._way == "amount":
            return {**transaction, "value": hex(int(transaction["value"], 16) // 2)}
        is_plain = self._way == "recipient" and transaction["input"] == "0x"
        return {**transaction, "to": hex_text(self._other(hex_text(NATIVE)))} if is_plain else transaction

    def _other(self, token: str) -> bytes:
        return next(recipient for recipient, asked, _ in self.around.targets if hex_text(asked) == token)
