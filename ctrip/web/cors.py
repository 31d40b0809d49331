"""Cross-origin requests (the Fetch standard): a browser's page may read our answers where its origin is configured."""

from flask import Flask, Response, request

from ctrip.web.current import context

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key",
    "Access-Control-Max-Age": "600",
}
_EXPOSED = "Idempotency-Replayed, RateLimit, RateLimit-Policy, Retry-After, Server-Timing, X-Request-Id"
_PLACE = "/api/"
"""An operator's keys belong in no browser."""


def install(app: Flask) -> None:
    """Make the application answer preflights, and name the origins that may read its answers."""
    app.before_request(_answer_preflight)
    app.after_request(_name_origin)


def _origins() -> tuple[str, ...]:
    return context().settings.cors_origins if request.path.startswith(_PLACE) else ()


def _answer_preflight() -> Response | None:
    is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if not is_preflight or request.headers.get("Origin") not in _origins():
        return None
    return Response(status=204, headers=_PREFLIGHT)


def _name_origin(response: Response) -> Response:
    origins = _origins()
    if origins:
        response.vary.add("Origin")
    if request.headers.get("Origin") in origins:
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
    return response
