"""A merchant's webhook receiver on loopback that keeps what it gets, and answers as it is told."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

from tests.waiting import wait_until


@dataclass(frozen=True)
class Received:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The event in the body."""
        return json.loads(self.body)

    def verify(self, secret: str) -> None:
        """Check the signature as an integrator would; raises WebhookVerificationError."""
        Webhook(secret).verify(self.body, self.headers)


@dataclass
class Sink:
    """Use it as a context manager. `answer` decides the status code of each request."""

    answer: Callable[[Received], int] = lambda _: 200
    received: list[Received] = field(default_factory=list)
    url: str = ""

    def types(self, payment_id: str) -> list[str]:
        """The event types received for a payment, each webhook-id once, in the order of their versions."""
        events = {r.event["id"]: r.event for r in list(self.received) if _payment_id(r.event) == payment_id}
        return [event["type"] for event in sorted(events.values(), key=lambda e: e["data"]["payment"]["version"])]

    def wait_for(
        self,
        payment_id: str,
        types: list[str],
        *,
        within_s: float,
        beside: str = "",
        evidence: Callable[[], str] = lambda: "",
    ) -> None:
        """Wait until exactly these event types came for a payment, and any of `beside`; what fails shows `evidence`."""
        wait_until(
            lambda: [each for each in self.types(payment_id) if each != beside] == types,
            within_s=within_s,
            what=lambda: f"{payment_id} is told {types}, but came {self.types(payment_id)}\n{evidence()}",
        )

    def __enter__(self) -> "Sink":
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received = Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                sink.received.append(received)
                self.send_response(sink.answer(received))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _payment_id(event: dict[str, Any]) -> str | None:
    payment = event["data"].get("payment")
    return payment and payment["id"]
