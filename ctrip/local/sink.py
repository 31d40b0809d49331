"""A webhook receiver on the loopback address that answers 204 and remembers: what a shop's own endpoint would get."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

_BODY_LIMIT = 1 << 20


@dataclass(frozen=True)
class Received:
    """One webhook. `verified`: its signature is the merchant's (Standard Webhooks 1.0). `body` is the parsed JSON."""

    webhook_id: str
    verified: bool
    body: dict[str, Any]


@dataclass(frozen=True)
class Sink:
    """Where to send webhooks, and those that came, in order of arrival."""

    url: str
    arrivals: "queue.Queue[Received]"


@contextmanager
def listening(secret: str) -> Iterator[Sink]:
    """Receive webhooks that are signed with `secret` until the block ends."""
    arrivals: queue.Queue[Received] = queue.Queue()
    verifier = Webhook(secret)

    class _Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers.get("content-length", 0)), _BODY_LIMIT))
            try:
                verifier.verify(body, dict(self.headers.items()))
                verified = True
            except WebhookVerificationError:
                verified = False
            arrivals.put(Received(self.headers.get("webhook-id", ""), verified, json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent: the demo shows each arrival itself."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    threading.Thread(target=server.serve_forever, name="sink", daemon=True).start()
    try:
        yield Sink(f"http://127.0.0.1:{server.server_port}/webhooks", arrivals)
    finally:
        server.shutdown()
        server.server_close()
