"""A node between ours and the dev chain, which answers as a test wants it to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from ctrip.blockchain.client import ChainClient
from ctrip.context import Context

Answer = tuple[int, bytes] | None
"""Status and body; None closes the connection without a word."""


def forward(url: str, body: bytes) -> bytes:
    """Ask the dev chain itself."""
    return requests.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=9).content


@contextmanager
def between(ctx: Context, answer: Callable[[bytes], Answer]) -> Iterator[Context]:
    """Yield a context whose first chain is read through a node that answers each request's body like this."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found = answer(self.rfile.read(int(self.headers["Content-Length"])))
            if found is None:
                return
            status, body = found
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep requests out of the output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chain = replace(ctx.settings.chains[0], rpc_urls=(f"http://127.0.0.1:{server.server_port}",))
        try:
            yield replace(ctx, clients={chain.chain_id: ChainClient(chain)})
        finally:
            server.shutdown()
