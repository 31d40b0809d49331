"""A real HTTP server before an application, on which requests and answers are lost, or refused in between."""

import json
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server


class Fault(StrEnum):
    """What happens to one request."""

    NONE = "none"
    LOST = "lost before it arrives"
    UNANSWERED = "carried out, and its answer lost"
    GATEWAY = "answered by a gateway, with a page"
    BUSY = "the server says 503"
    LIMITED = "the server says 429"
    IN_FLIGHT = "the first request with the key is still under way"
    SILENT = "never answered, while the connection stands"


_PROBLEMS = {
    Fault.BUSY: (503, "unavailable"),
    Fault.LIMITED: (429, "rate_limited"),
    Fault.IN_FLIGHT: (409, "idempotency_in_flight"),
}


@dataclass
class Line:
    """`faults` befall the next requests, in this order; `asked` are the methods and paths that came."""

    application: Any
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    retry_after: str = "0"
    is_over: threading.Event = field(default_factory=threading.Event)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        self.keys.append(environ.get("HTTP_IDEMPOTENCY_KEY"))
        fault = self.faults.pop(0) if self.faults else Fault.NONE
        if fault in _PROBLEMS:
            status, code = _PROBLEMS[fault]
            headers = [("Content-Type", "application/problem+json"), ("Retry-After", self.retry_after)]
            start_response(f"{status} No", headers)
            return [json.dumps({"code": code, "detail": str(fault)}).encode()]
        if fault is Fault.GATEWAY:
            start_response("502 Bad Gateway", [("Content-Type", "text/html")])
            return [b"<html>Bad gateway</html>"]
        if fault is Fault.SILENT:
            self.is_over.wait(60)
        elif fault is not Fault.LOST:
            answer = list(self.application(environ, start_response))
            if fault is Fault.NONE:
                return answer
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@contextmanager
def served(application: Any) -> Iterator[Line]:
    """Serve an application on a line, on a port of its own."""
    line = Line(application)
    server = make_server("127.0.0.1", 0, line, threaded=True, request_handler=_Quiet)
    line.url = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield line
    finally:
        line.is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()
