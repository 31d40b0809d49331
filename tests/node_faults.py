"""What a node may do wrong, one small class for each fault, over the JSON that passes between a client and a chain."""

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any, ClassVar

import urllib3

Json = dict[str, Any]
_POOL = urllib3.PoolManager(maxsize=32, retries=False, timeout=urllib3.Timeout(20))


@dataclass(frozen=True)
class Answer:
    """What a client gets. `cut_to`: only so many bytes of the body come; a `status` of 0 closes without a word."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    cut_to: int | None = None


RESET = Answer(status=0)


class Upstream:
    """The dev chain itself."""

    def __init__(self, url: str) -> None:
        self._url = url

    def forward(self, body: bytes) -> bytes:
        return _POOL.request("POST", self._url, body=body, headers={"Content-Type": "application/json"}).data

    def call(self, method: str, *params: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        result: Any = json.loads(self.forward(json.dumps(request).encode())).get("result")
        return result


@dataclass
class Surroundings:
    """What a fault needs to know: the chain, whom a forged payment is for, and when all is to be well again.

    `targets` are addresses that nobody pays, each with its token (20 zero bytes: coin) and an amount.
    """

    upstream: Upstream
    dice: Random
    targets: Sequence[tuple[bytes, bytes, int]] = ()
    healed: threading.Event = field(default_factory=threading.Event)


class Fault:
    """An honest node, in the form that faults bend. `is_lie`: what it says would, if believed, move money wrongly."""

    is_lie: ClassVar[bool] = False

    def __init__(self, around: Surroundings) -> None:
        self.upstream, self.dice, self.around = around.upstream, around.dice, around
        self.salt = around.dice.random()

    def answer(self, body: bytes) -> Answer:
        """Answer a request's body, which is one call or a batch."""
        asked = json.loads(body)
        calls = asked if isinstance(asked, list) else [asked]
        sent = [{**call, "params": self.question(call["method"], call.get("params", []))} for call in calls]
        told = json.loads(self.upstream.forward(json.dumps(sent if isinstance(asked, list) else sent[0]).encode()))
        by_id = {reply.get("id"): reply for reply in (told if isinstance(told, list) else [told])}
        bent = [self._bent(call, params["params"], by_id[call["id"]]) for call, params in zip(calls, sent, strict=True)]
        return Answer(json.dumps(bent if isinstance(asked, list) else bent[0]).encode())

    def question(self, method: str, params: list[Any]) -> list[Any]:
        """Return the params that the dev chain is asked with."""
        return params

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        """Return the reply, bent."""
        return reply

    def _bent(self, call: Json, params: list[Any], reply: Json) -> Json:
        return {**self.reply(call["method"], params, reply), "id": call["id"], "jsonrpc": "2.0"}

    def chance(self, likelihood: float, *of: object) -> bool:
        """Decide by dice; the same thing always gets the same answer where it is named."""
        return (Random(f"{self.salt}{of}") if of else self.dice).random() < likelihood


class Sure(Fault):
    """One that does each time what others do by chance: stands before another fault among a class's bases."""

    def chance(self, likelihood: float, *of: object) -> bool:
        return True


def refusal(code: int, message: str) -> Json:
    return {"error": {"code": code, "message": message}}


# --- faults of the line ---------------------------------------------------------------------------------------------


class Down(Fault):
    def answer(self, body: bytes) -> Answer:
        return RESET


class Slow(Fault):
    """Each answer takes a while, and all of them come."""

    def answer(self, body: bytes) -> Answer:
        self.around.healed.wait(self.dice.uniform(0.1, 0.8))
        return super().answer(body)


class Silent(Fault):
    """Longer without a word than any client waits."""

    def answer(self, body: bytes) -> Answer:
        self.around.healed.wait(20)
        return RESET


class RateLimited(Fault):
    def answer(self, body: bytes) -> Answer:
        seconds = self.dice.choice(["1", "2"])
        return Answer(b'{"error": "Too Many Requests"}', 429, (("Retry-After", seconds),))


class RateLimitedInside(Fault):
    """The same said as providers do who answer HTTP 200."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return refusal(-32005, "project ID request rate exceeded") if self.chance(0.5) else reply


class Broken(Fault):
    def answer(self, body: bytes) -> Answer:
        return Answer(b"<html>Bad Gateway</html>", self.dice.choice([500, 502, 503, 504]))


class Cut(Fault):
    """JSON that ends in the middle, with or without a Content-Length that promises more."""

    def answer(self, body: bytes) -> Answer:
        whole = super().answer(body).body
        at = self.dice.randrange(1, max(2, len(whole)))
        return Answer(whole[:at]) if self.chance(0.5) else Answer(whole, cut_to=at)


class WrongChain(Fault):
    """Behind the same address stands a node of another chain: it is seen when the client asks who it is."""

    def answer(self, body: bytes) -> Answer:
        if b"eth_chainId" in body:
            return super().answer(body)
        return Answer(b"moved", 502)

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return {"result": "0x2105"}


# --- nodes that know less than others -------------------------------------------------------------------------------


class HeadBack(Fault):
    """A node that lags: what the newest blocks hold is not known to it."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._behind = self.dice.randrange(1, 7)

    def question(self, method: str, params: list[Any]) -> list[Any]:
        return [hex(self._head()) if param in ("latest", "pending") else param for param in params]

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        if method == "eth_blockNumber":
            return {"result": hex(self._head())}
        if method == "eth_getLogs" and self._is_unknown(params[0].get("blockHash")):
            return refusal(-32000, "unknown block")
        result = reply.get("result")
        if isinstance(result, list) and method == "eth_getBlockReceipts":
            result = next(iter(result), {})
        number = result.get("blockNumber", result.get("number")) if isinstance(result, dict) else None
        return {"result": None} if number is not None and int(number, 16) > self._head() else reply

    def _head(self) -> int:
        return max(0, int(self.upstream.call("eth_blockNumber"), 16) - self._behind)

    def _is_unknown(self, block_hash: str | None) -> bool:
        if block_hash is None:
            return False
        block = self.upstream.call("eth_getBlockByHash", block_hash, False)
        return block is None or int(block["number"], 16) > self._head()


class NullBlocks(Fault):
    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return {"result": None} if method.startswith("eth_getBlockBy") and self.chance(0.4) else reply


RANGE_WORDINGS = (
    "query returned more than 10000 results. Try with this block range [0x1, 0x{limit:x}].",
    "eth_getLogs is limited to a {limit} range",
    "Under the Free tier plan, you can make eth_getLogs requests with up to a {limit} block range.",
    "block range is too wide",
    "exceed maximum block range: {limit}",
    "ranges over {limit} blocks are not supported on freetier",
)


class RangeLimited(Fault):
    """Few blocks at once, said in the words of one provider or another."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._limit = self.dice.choice([1, 5, 10])
        self._words = self.dice.choice(RANGE_WORDINGS).format(limit=self._limit)

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        asked = params[0] if method == "eth_getLogs" else {}
        if not all(str(asked.get(edge, "")).startswith("0x") for edge in ("fromBlock", "toBlock")):
            return reply
        span = int(asked["toBlock"], 16) - int(asked["fromBlock"], 16) + 1
        return refusal(-32602, self._words) if span > self._limit else reply


class BatchLimited(Fault):
    def answer(self, body: bytes) -> Answer:
        asked = json.loads(body)
        if isinstance(asked, list) and len(asked) > 3:
            words = (
                "Batch of more than 3 requests are not allowed on free tier, to use this feature register paid account"
            )
            return Answer(json.dumps({"id": None, "jsonrpc": "2.0", **refusal(31, words)}).encode())
        return super().answer(body)


class CallsLimited(Fault):
    """So many calls in a second, those of a batch counted one by one, and not one more."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._most = self.dice.choice([5, 15])
        self._taken: deque[float] = deque()
        self._counting = threading.Lock()

    def answer(self, body: bytes) -> Answer:
        asked = json.loads(body)
        count, now = len(asked) if isinstance(asked, list) else 1, time.monotonic()
        with self._counting:
            while self._taken and now - self._taken[0] > 1:
                self._taken.popleft()
            is_allowed = len(self._taken) + count <= self._most
            self._taken.extend([now] * (count if is_allowed else 0))
        if is_allowed:
            return super().answer(body)
        words = f"{self._most}/second request limit reached - reduce calls per second or upgrade your account"
        return Answer(json.dumps({"id": None, "jsonrpc": "2.0", **refusal(-32007, words)}).encode(), 429)


class OneByOne(Fault):
    """A node that knows no batches, and has no good word for it."""

    def answer(self, body: bytes) -> Answer:
        if body.lstrip()[:1] == b"[" and len(json.loads(body)) > 1:
            return Answer(json.dumps({"id": None, "jsonrpc": "2.0", **refusal(-32600, "Invalid Request")}).encode())
        return super().answer(body)


class Refusing(Fault):
    """A node that refuses what others answer: its plan, or its build, lacks a method."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._method = self.dice.choice(["eth_getLogs", "eth_getTransactionReceipt", "eth_getBalance", "eth_call"])

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        is_refused = method == self._method
        return refusal(-32601, f"the method {method} does not exist/is not available") if is_refused else reply


class Pruned(Fault):
    """A node that has no old blocks and says so by null, or no old logs in Erigon's words."""

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._first = int(self.upstream.call("eth_blockNumber"), 16) - 2
        self._lacks_blocks = self.chance(0.5)

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        if self._lacks_blocks:
            is_old = method == "eth_getBlockByNumber" and params[0] != "latest" and int(params[0], 16) < self._first
            return {"result": None} if is_old else reply
        logs = reply.get("result") if method == "eth_getLogs" else None
        is_old = any(int(log["blockNumber"], 16) < self._first for log in logs or [])
        return refusal(4444, "pruned history unavailable") if is_old else reply


class HeadAhead(Fault):
    """A node that tells of a head which there is not, later than all others."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        if method != "eth_getBlockByNumber" or params[0] != "latest" or not reply.get("result"):
            return reply
        head = reply["result"]
        number, moment = int(head["number"], 16) + 1_000_000, int(head["timestamp"], 16) + 1_000_000
        return {"result": {**head, "number": hex(number), "timestamp": hex(moment), "hash": fake_hash(number)}}


# --- nodes that contradict themselves -------------------------------------------------------------------------------


class TwiceTold(Fault):
    """Every log twice."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        return {"result": reply["result"] * 2} if method == "eth_getLogs" and reply.get("result") else reply


class Removed(Fault):
    """Logs that were taken by a reorg, as a subscription would tell them."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        if method != "eth_getLogs" or not reply.get("result"):
            return reply
        return {"result": [{**log, "removed": True} for log in reply["result"]]}


class ForeignReceipts(Fault):
    """Receipts as they were on another fork, or none."""

    def reply(self, method: str, params: list[Any], reply: Json) -> Json:
        result = reply.get("result")
        if method == "eth_getBlockReceipts" and result:
            return {"result": [self._foreign(receipt) for receipt in result]}
        if method == "eth_getTransactionReceipt" and result:
            return {"result": None if self.chance(0.3) else self._foreign(result)}
        return reply

    def _foreign(self, receipt: Json) -> Json:
        return {**receipt, "blockHash": fake_hash(receipt["blockHash"])}


def fake_hash(*of: object) -> str:
    return "0x" + sha256(repr(of).encode()).hexdigest()
