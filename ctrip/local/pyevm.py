"""`python -m ctrip.local.pyevm --port N --block-time S`: the chain of pyevm_chain over HTTP, mined by the clock."""

import argparse
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ctrip.local.pyevm_chain import PyEvmChain

_BODY_LIMIT = 5 << 20


def serve(chain: PyEvmChain, port: int) -> ThreadingHTTPServer:
    """Return a server of the chain on the loopback address: single requests and batches."""

    class _Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers.get("content-length", 0)), _BODY_LIMIT))
            asked = json.loads(body)
            answer = [chain.answer(each) for each in asked] if isinstance(asked, list) else chain.answer(asked)
            written = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        def log_message(self, *_: object) -> None:
            """Stay silent, as anvil does."""

    return ThreadingHTTPServer(("127.0.0.1", port), _Door)


def main() -> int:
    """Run the chain until a signal ends it."""
    parser = argparse.ArgumentParser(description="A dev chain in memory.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--block-time", type=float, required=True, help="seconds between two blocks")
    arguments = parser.parse_args()
    chain = PyEvmChain()
    server = serve(chain, arguments.port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    clock = threading.Event()
    while not clock.wait(arguments.block_time):
        chain.mine()
    return 0


if __name__ == "__main__":
    sys.exit(main())
