"""Nodes that answer as a test says, over real HTTP, and a clock that the test turns."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.erc20 import TRANSFER_TOPIC, address_word
from ctrip.blockchain.rpc import RpcPool
from ctrip.blockchain.transport import Call
from ctrip.domain.addresses import hex_text
from ctrip.domain.chains import Chain
from tests.factories import ADDRESS, CHAIN_ID, PAYER, TOKEN, block_time, header, make_chain, tx_hash

KEY = "s3cret-key"
"""Stands in every URL, and nowhere else."""

Request = list[dict[str, Any]]
_PORTS: set[int] = set()


class Error(Exception):
    """A JSON-RPC error instead of a result."""

    def __init__(self, code: int, message: str, **more: object) -> None:
        super().__init__(message)
        self.member = {"code": code, "message": message, **more}


class Http(Exception):
    """An answer that is no result; `body` None closes the connection without one."""

    def __init__(self, status: int, body: object = b"", **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Node:
    """A node at block `head`, all of whose blocks are those of the factories. `requests` are what it was asked."""

    def __init__(self, head: int = 100) -> None:
        self.head = head
        self.chain_id = CHAIN_ID
        self.requests: list[Request] = []
        self.paths: list[str] = []
        """Where each request was sent to."""
        self.before: Callable[[Request], None] = lambda _: None
        """Called first with each request; raises Http where the answer is another one."""
        self.methods: dict[str, Callable[[list[Any]], Any]] = {
            "eth_chainId": lambda _: hex(self.chain_id),
            "eth_blockNumber": lambda _: hex(self.head),
            "eth_getBlockByNumber": lambda params: self.block(params[0]),
            "echo": lambda params: params[0],
        }
        self.port = 0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}/v2/{KEY}"

    @property
    def label(self) -> str:
        """What is shown of that."""
        return f"127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[str]:
        """The methods it was asked for, without the chain id, a batch as `method*count`."""
        methods = [(request[0]["method"], len(request)) for request in self.requests]
        return [name if count == 1 else f"{name}*{count}" for name, count in methods if name != "eth_chainId"]

    def block(self, number: str) -> dict[str, Any] | None:
        """A block without transactions, or none beyond the head."""
        wanted = self.head if number == "latest" else int(number, 16)
        if wanted > self.head:
            return None
        found = header(wanted)
        return {
            "number": hex(wanted),
            "hash": hex_text(found.hash),
            "parentHash": hex_text(found.parent_hash),
            "timestamp": hex(int(block_time(wanted).timestamp())),
            "transactions": [],
        }

    def answer(self, body: bytes) -> tuple[int, bytes | None, dict[str, str]]:
        """Answer a request's body with status, body and headers."""
        asked = json.loads(body)
        request = asked if isinstance(asked, list) else [asked]
        self.requests.append(request)
        try:
            self.before(request)
        except Http as other:
            return other.status, other.body, other.headers
        replies = [self._reply(call) for call in request]
        return 200, json.dumps(replies if isinstance(asked, list) else replies[0]).encode(), {}

    def _reply(self, call: dict[str, Any]) -> dict[str, Any]:
        reply = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            return reply | {"result": self.methods[call["method"]](call["params"])}
        except Error as error:
            return reply | {"error": error.member}


class ForkedNode(Node):
    """A node with blocks of its own after block `shared`, where that is given, and perhaps a word on what is final."""

    def __init__(self, head: int = 100, *, shared: int | None = None, finalized: int | None = None) -> None:
        super().__init__(head)
        self.shared = head if shared is None else shared
        self.finalized = finalized

    def block(self, number: str) -> dict[str, Any] | None:
        if number in ("safe", "finalized"):
            if self.finalized is None:
                raise Error(-39001, "unknown block")
            # Its own word is not kept from a block beyond its head.
            at, self.head = self.head, max(self.head, self.finalized)
            told = self.block(hex(self.finalized))
            self.head = at
            return told
        told = super().block(number)
        if told is not None and int(told["number"], 16) > self.shared:
            told["hash"] = hex_text(header(int(told["number"], 16), "fork").hash)
        return told


class LogNode(Node):
    """A node with one Transfer of TOKEN to each of `recipients` in every block, and a provider's limits."""

    def __init__(self, head: int, *, recipients: Sequence[bytes] = (ADDRESS,)) -> None:
        super().__init__(head)
        self.recipients = recipients
        self.span = self.results = self.topics = 10**9
        self.words = "eth_getLogs is limited to a {span:,} range"
        self.ranges: list[tuple[int, int]] = []
        self.methods["eth_getLogs"] = self.logs

    def logs(self, params: list[Any]) -> list[dict[str, Any]]:
        wanted = params[0]
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        self.ranges.append((first, last))
        topics = wanted["topics"][2] if len(wanted["topics"]) > 2 else None
        if last - first + 1 > self.span:
            raise Error(-32614, self.words.format(span=self.span))
        if topics is not None and len(topics) > self.topics:
            raise Error(-32602, f"query exceeds the maximum of {self.topics} addresses or topics per search position")
        found = [
            self.log(number, recipient)
            for number in range(first, min(last, self.head) + 1)
            for recipient in self.recipients
            if topics is None or hex_text(address_word(recipient)) in topics
        ]
        if len(found) > self.results:
            raise Error(-32005, f"query returned more than {self.results} results")
        return found

    def log(self, number: int, recipient: bytes) -> dict[str, Any]:
        return {
            "address": hex_text(TOKEN),
            "topics": [hex_text(word) for word in (TRANSFER_TOPIC, address_word(PAYER), address_word(recipient))],
            "data": hex_text((1).to_bytes(32)),
            "blockNumber": hex(number),
            "blockHash": hex_text(header(number).hash),
            "transactionHash": hex_text(tx_hash(number)),
            "logIndex": "0x0",
        }


@contextmanager
def serving(*nodes: Node) -> Iterator[Chain]:
    """Run nodes, and yield the chain whose endpoints they are."""
    servers = [_serve(node) for node in nodes]
    try:
        yield replace(make_chain(), rpc_urls=tuple(node.url for node in nodes))
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _serve(node: Node) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body go out as two packets

        def do_POST(self) -> None:
            node.paths.append(self.path)
            status, body, headers = node.answer(self.rfile.read(int(self.headers["Content-Length"])))
            if body is None:
                self.close_connection = True
                return
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep requests out of the output."""

    server = _server(Handler)
    server.daemon_threads = True
    node.port = server.server_port
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


def _server(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """A server on a port that none had before: counters tell endpoints apart by theirs."""
    taken: list[ThreadingHTTPServer] = []
    while not taken or taken[-1].server_port in _PORTS:
        taken.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
    *known, fresh = taken
    for each in known:
        each.server_close()
    _PORTS.add(fresh.server_port)
    return fresh


class Clock:
    """Seconds that pass where the test, or somebody who waits, lets them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waited: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        """Let time pass for somebody who waits."""
        self.waited.append(seconds)
        self.now += seconds


def said(pool: RpcPool, calls: list[Call]) -> list[Any]:
    """What the calls were answered with."""
    return [json.loads(bytes(result)) for result in pool.results(calls)]


def pool_of(chain: Chain, clock: Clock) -> RpcPool:
    """A pool by the test's clock."""
    return RpcPool(chain, clock=clock, pause=clock.wait)


def client_of(chain: Chain, clock: Clock) -> ChainClient:
    """A client by the test's clock."""
    return ChainClient(chain, pool=pool_of(chain, clock))
