"""Who asks, and whether they may: an API key in `Authorization: Bearer`, and the scope that a route needs."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, g, request

from ctrip.domain.merchants import Identity, Scope
from ctrip.errors import AddressRefused, Forbidden, Unauthorized
from ctrip.services import merchants
from ctrip.web import queries, quotas
from ctrip.web.current import context

View = TypeVar("View", bound=Callable[..., Any])

_BEARER = re.compile(r"Bearer +(sk_[A-Za-z0-9]+_[A-Za-z0-9_-]+)", re.ASCII | re.IGNORECASE)
_LONGEST_HEADER = 300


def needs(scope: Scope) -> Callable[[View], View]:
    """Mark a route with the scope that its callers' keys must have."""

    def mark(view: View) -> View:
        view.scope = scope  # type: ignore[attr-defined]
        return view

    return mark


def scope_of(endpoint: str | None) -> Scope | None:
    """Return the scope that a route was marked with; None for a public one."""
    view = current_app.view_functions.get(endpoint or "")
    return getattr(view, "scope", None)


def authorize() -> None:
    """Let a request pass, before anything else of it is read.

    Hooked to every blueprint but the public ones: a route there that names no scope lets nobody pass. Raises
    Unauthorized, Forbidden, AddressRefused, RateLimited, and InvalidValue for a query that the route cannot heed.
    """
    try:
        g.identity = _identify()
    except (Unauthorized, AddressRefused):
        quotas.spend_of_address()
        raise
    quotas.spend_of_key()
    scope = scope_of(request.endpoint)
    if scope is None or scope not in g.identity.scopes:
        raise Forbidden(f"this key lacks the scope {scope}")
    queries.refuse_strays()


def _identify() -> Identity:
    header = request.headers.get("Authorization", "")
    match = _BEARER.fullmatch(header) if len(header) <= _LONGEST_HEADER else None
    if match is None:
        raise Unauthorized("send an API key: Authorization: Bearer sk_…")
    return merchants.authenticate(context(), match[1], address=request.remote_addr)
