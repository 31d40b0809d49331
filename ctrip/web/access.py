"""Around every request: an id, one log line, two metrics, and the headers that browsers obey."""

import time
from typing import cast

import structlog
from flask import Flask, Response, g, request

from ctrip import metrics
from ctrip.domain.ids import Prefix
from ctrip.log import get_logger
from ctrip.web import quotas
from ctrip.web.current import context, request_id, route
from ctrip.web.limits import BoundedRequest

log = get_logger()

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_PROBES = ("/health", "/livez", "/readyz")


def install(app: Flask) -> None:
    """Make the application name, count and log its requests."""
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(_forget)


def show_zeros(app: Flask) -> None:
    """Show each route's latency and failures from the start: rate() sees a first one only after a zero."""
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            template = f"{method} {rule.rule}"
            metrics.HTTP_REQUEST_DURATION.labels(route=template)
            for status in ("500", "503"):
                metrics.HTTP_REQUESTS.labels(route=template, status=status)


def _begin() -> None:
    g.began = time.perf_counter()
    g.request_id = context().new_id(Prefix.REQUEST)
    structlog.contextvars.bind_contextvars(request_id=g.request_id)
    cast(BoundedRequest, request).refuse_excess()


def _end(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    response.headers["X-Request-Id"] = request_id()
    quotas.describe(response)
    took_s = time.perf_counter() - g.began
    response.headers["Server-Timing"] = f"total;dur={took_s * 1000:.1f}"
    metrics.HTTP_REQUESTS.labels(route=route(), status=str(response.status_code)).inc()
    metrics.HTTP_REQUEST_DURATION.labels(route=route()).observe(took_s)
    # Probes come every few seconds from every balancer: their lines would drown the rest.
    tell = log.debug if request.path in _PROBES else log.info
    tell("http_request", route=route(), status=response.status_code, duration_ms=round(took_s * 1000, 1), **_caller())
    return response


def _caller() -> dict[str, str | None]:
    identity = g.get("identity")
    return {} if identity is None else {"key_id": identity.key_id, "merchant_id": identity.merchant_id}


def _forget(_: BaseException | None) -> None:
    structlog.contextvars.unbind_contextvars("request_id")
