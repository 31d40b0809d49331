"""Nodes that are wrong about blocks themselves: they make some up, tell other times, or come no further."""

import json
from typing import Any, ClassVar

from tests.node_faults import Answer, Fault, Json, Surroundings, fake_hash


class MadeUpBlocks(Fault):
    """Empty blocks of its own on top of the chain as it was, a second apart, however the chain goes on."""

    is_lie = True
    blocks: ClassVar[int] = 6

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._base: Json = self.upstream.call("eth_getBlockByNumber", "latest", False)
        self._last_real = int(self._base["number"], 16)

    def question(self, method: str, params: list[Any]) -> list[Any]:
        if method not in ("eth_getBalance", "eth_call"):
            return params
        # Nobody moved anything in its own blocks.
        made_up = {hex(self._last_real + above) for above in range(1, self.blocks + 1)}
        return [hex(self._last_real) if isinstance(param, str) and param in made_up else param for param in params]

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        if method == "eth_getLogs" and params[0].get("blockHash") in {self._hash(n) for n in range(self.blocks + 1)}:
            return {"result": []}
        if method != "eth_getBlockByNumber" or params[0] in ("safe", "finalized"):
            return reply
        above = self.blocks if params[0] == "latest" else int(params[0], 16) - self._last_real
        if above <= 0:
            return reply
        return {"result": self._block(above) if above <= self.blocks else None}

    def _block(self, above: int) -> Json:
        its_own: Json = {
            "number": hex(self._last_real + above),
            "hash": self._hash(above),
            "parentHash": self._base["hash"] if above == 1 else self._hash(above - 1),
            "timestamp": hex(int(self._base["timestamp"], 16) + above),
            "transactions": [],
            "logsBloom": "0x" + "0" * 512,
        }
        return {**self._base, **its_own}

    def _hash(self, above: int) -> str:
        return fake_hash("made up", self._base["hash"], above)


class ManyMadeUpBlocks(MadeUpBlocks):
    """More than any reorg may take."""

    blocks = 40


class WrongTimes(Fault):
    """The right blocks, two hours too late."""

    is_lie = True
    seconds: ClassVar[int] = 7200

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        block = reply.get("result")
        if not method.startswith("eth_getBlockBy") or not block:
            return reply
        return {"result": {**block, "timestamp": hex(int(block["timestamp"], 16) + self.seconds)}}


class EarlyTimes(WrongTimes):
    """The right blocks, two hours too early."""

    seconds = -7200


class EarlyAtFirst(EarlyTimes):
    """Two hours too early where it is asked for one block, or two; true where it is asked for many at once."""

    def answer(self, body: bytes) -> Answer:
        asked = json.loads(body)
        return Fault(self.around).answer(body) if isinstance(asked, list) and len(asked) > 3 else super().answer(body)


class Stuck(Fault):
    """A node that lost its peers: it comes no further."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._head = self.upstream.call("eth_blockNumber")

    def question(self, method: str, params: list[Any]) -> list[Any]:
        return [self._head if param in ("latest", "pending", "safe", "finalized") else param for param in params]

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        result = reply.get("result")
        if method == "eth_blockNumber":
            return {"result": self._head}
        number = result.get("blockNumber", result.get("number")) if isinstance(result, dict) else None
        return {"result": None} if number is not None and int(number, 16) > int(self._head, 16) else reply
