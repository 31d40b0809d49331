"""A synthetic node in a process of its own: JSON-RPC for chains of mainnet's size, as fast as bytes can be handed out.

`with running_node() as node:` starts it. The path of a URL says which chain is meant and how many milliseconds each
request is held back. It keeps to geth's limits of a batch: 1,000 calls, 25 MB.
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import requests

from bench.scan_blocks import FIRST_BLOCK, Filter, SyntheticChain
from bench.scan_bodies import LISTED, make_bodies

BODIES = 64
SAFE_DEPTH, FINALIZED_DEPTH = 32, 64
_MAX_BATCH, _MAX_REPLY_BYTES = 1000, 25_000_000
_DECIMALS = "0x313ce567"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

Parts = tuple[bytes, ...]
"""A reply in pieces: they are put together once, for every copy costs."""


@dataclass(frozen=True)
class Asked:
    """What a chain was asked for: HTTP requests, and the JSON-RPC calls in them."""

    requests: int
    calls: int


class Node:
    """The node, as its starter sees it. Its chains have to be begun before they are asked for anything."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._base = f"http://127.0.0.1:{port}"

    def url(self, chain_id: int, *, latency_ms: int = 0) -> str:
        """Return where a chain answers."""
        return f"{self._base}/{chain_id}/{latency_ms}"

    def begin(self, chain_id: int, *, payees: int, pays_every: int = 1, head: int = FIRST_BLOCK) -> None:
        """Make a chain; one block in `pays_every` pays three of `payees` issued addresses, in turn."""
        self._tell("begin", chain_id=chain_id, payees=payees, pays_every=pays_every, head=head)

    def set_head(self, chain_id: int, head: int, *, every_s: float = 0) -> None:
        """Stand the head of a chain at a block; it grows by a block in `every_s` seconds, if that is given."""
        self._tell("head", chain_id=chain_id, head=head, every_s=every_s)

    def asked(self, chain_id: int) -> Asked:
        """Return what a chain was asked for since the last time that this was called."""
        return Asked(**self._tell("asked", chain_id=chain_id))

    def _tell(self, what: str, **values: Any) -> Any:
        answer = requests.post(f"{self._base}/tell", json={"what": what, **values}, timeout=30)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def running_node() -> Iterator[Node]:
    """Run a node until the block ends. It ends with this process, whatever ends that."""
    command = [sys.executable, "-m", "bench.scan_node"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Node(int(process.stdout.readline()))
        finally:
            process.stdin.close()


class Call(msgspec.Struct):
    """A call of JSON-RPC."""

    method: str
    params: list[Any] = []
    id: msgspec.Raw = msgspec.Raw(b"null")


_CALL, _CALLS = msgspec.json.Decoder(Call), msgspec.json.Decoder(list[Call])


class Served:
    """A chain with its head, and the count of what it was asked for."""

    def __init__(self, chain: SyntheticChain, *, head: int) -> None:
        self.chain = chain
        self._lock = threading.Lock()
        self._requests = self._calls = 0
        self.set_head(head, every_s=0)

    def set_head(self, head: int, *, every_s: float) -> None:
        self._base, self._every_s, self._since = head, every_s, time.monotonic()

    @property
    def head(self) -> int:
        """The number of the newest block."""
        return self._base + (int((time.monotonic() - self._since) / self._every_s) if self._every_s else 0)

    def take_asked(self) -> Asked:
        """Return what was counted, and begin anew."""
        with self._lock:
            asked = Asked(self._requests, self._calls)
            self._requests = self._calls = 0
        return asked

    def reply(self, body: bytes) -> Parts:
        """Answer the body of a request."""
        is_batch = body.lstrip()[:1] == b"["
        calls = _CALLS.decode(body) if is_batch else [_CALL.decode(body)]
        with self._lock:
            self._requests += 1
            self._calls += len(calls)
        if len(calls) > _MAX_BATCH:
            return _error(msgspec.Raw(b"null"), -32600, "batch too large")
        parts: list[bytes] = []
        size = 0
        for call in calls:
            answer = self._answer(call) if size < _MAX_REPLY_BYTES else _error(call.id, -32003, "response too large")
            parts += (b"," if parts else b"", *answer)
            size += sum(map(len, answer))
        return (b"[", *parts, b"]") if is_batch else tuple(parts)

    def _answer(self, call: Call) -> Parts:
        match call.method, call.params:
            case "eth_getLogs", [dict(wanted)]:
                return self._logs(call, wanted)
            case "eth_getBlockByNumber", [str(tag), bool(is_full)]:
                number = self._number(tag)
                result = self.chain.block(number, is_full=is_full) if 0 < number <= self.head else None
            case "eth_getBlockByHash", [str(block_hash), bool(is_full)]:
                known = self._known(block_hash)
                result = None if known is None else self.chain.block(known, is_full=is_full)
            case (("eth_getTransactionReceipt" | "eth_getTransactionByHash"), [str(tx_hash)]):
                result = self._of_payment(call.method, tx_hash)
            case "eth_call", [{"to": str(token), "data": str(payload)}, *_] if payload.startswith(_DECIMALS):
                result = b'"0x%064x"' % LISTED[token.lower()]
            case (("eth_blockNumber" | "eth_chainId"), _):
                result = b'"0x%x"' % (self.chain.chain_id if call.method == "eth_chainId" else self.head)
            case "eth_getBalance", _:
                result = b'"0x0"'
            case _:
                return _error(call.id, -32601, f"the method {call.method} does not exist/is not available")
        return _result(call, result or b"null")

    def _logs(self, call: Call, wanted: dict[str, Any]) -> Parts:
        if "blockHash" in wanted:
            number = self._known(wanted["blockHash"])
            if number is None:
                return _error(call.id, -32000, "unknown block")
            return _result(call, self.chain.logs([number], Filter.of(wanted)))
        first, last = (self._number(wanted.get(edge, "latest")) for edge in ("fromBlock", "toBlock"))
        return _result(call, self.chain.logs(range(first, min(last, self.head) + 1), Filter.of(wanted)))

    def _of_payment(self, method: str, tx_hash: str) -> bytes | None:
        return self.chain.receipt(tx_hash) if method == "eth_getTransactionReceipt" else self.chain.transaction(tx_hash)

    def _number(self, tag: str) -> int:
        if tag.startswith("0x"):
            return int(tag, 16)
        return self.head - {"safe": SAFE_DEPTH, "finalized": FINALIZED_DEPTH}.get(tag, 0)

    def _known(self, block_hash: str) -> int | None:
        number = self.chain.number_of(block_hash)
        return None if number is None or number > self.head else number


def _result(call: Call, result: bytes) -> Parts:
    return b'{"jsonrpc":"2.0","id":%b,"result":' % bytes(call.id), result, b"}"


def _error(call_id: msgspec.Raw, code: int, message: str) -> Parts:
    fault = msgspec.json.encode({"code": code, "message": message})
    return (b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (bytes(call_id), fault),)


class Server:
    """Answers HTTP on a free port of the loopback address, a thread for each connection."""

    def __init__(self) -> None:
        self._bodies = make_bodies(BODIES)
        self._served: dict[int, Served] = {}
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._socket.getsockname()[1]

    def run(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, connection.makefile("rb") as stream, suppress(ConnectionError):
            while request := stream.readline():
                path, length = request.split()[1].decode(), 0
                while line := stream.readline().strip():
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                parts = self._reply(path, stream.read(length))
                connection.sendall(b"".join((_HEAD % sum(map(len, parts)), *parts)))

    def _reply(self, path: str, body: bytes) -> Parts:
        if path == "/tell":
            return (msgspec.json.encode(self._told(**msgspec.json.decode(body))),)
        chain_id, latency_ms = map(int, path.strip("/").split("/"))
        parts = self._served[chain_id].reply(body)
        time.sleep(latency_ms / 1000)
        return parts

    def _told(self, what: str, chain_id: int, **values: Any) -> Any:
        match what:
            case "begin":
                chain = SyntheticChain(chain_id, self._bodies, payees=values["payees"], pays_every=values["pays_every"])
                self._served[chain_id] = Served(chain, head=values["head"])
            case "head":
                self._served[chain_id].set_head(**values)
            case "asked":
                return self._served[chain_id].take_asked()
        return None


def main() -> None:
    server = Server()
    print(server.port, flush=True)
    threading.Thread(target=server.run, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
