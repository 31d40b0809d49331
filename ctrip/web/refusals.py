"""Which refusals an operation may answer with, and with which codes: what its form brings, and what its view names."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ctrip.errors import (
    AddressRefused,
    CtripError,
    Forbidden,
    InvalidValue,
    MalformedRequest,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
)

PROBLEM_TYPE = "application/problem+json"
View = TypeVar("View", bound=Callable[..., Any])
_PROBLEM = {"$ref": "#/components/schemas/Problem"}

_MEANINGS = {
    "400": "The body is no JSON object.",
    "401": "No API key, or one that is unknown, revoked or expired.",
    "403": "The key lacks the scope that this needs, or may not be used from this address.",
    "404": "No such object, or one of another merchant.",
    "409": "The object's state does not allow this, or the first request with the idempotency key is still running.",
    "413": "The body has more than 64 KiB.",
    "415": "The body is not sent as application/json.",
    "422": "A value is at fault; `param` names it.",
    "429": "More requests, or more open payments, than there may be. Go on after `Retry-After` seconds.",
    "500": "Something went wrong here. Our logs know it by the `request_id`.",
    "503": "The database or the chain is not there just now. What was asked for may have been done all the same: send "
    "it again after `Retry-After` seconds, a create with the same Idempotency-Key.",
}
_EVERYWHERE = {"413": "payload_too_large", "500": "internal_error"}
_OF_KEYS = (Unauthorized, Forbidden, AddressRefused, InvalidValue, RateLimited, Unavailable)
"""A query parameter that there is not is an InvalidValue on every route that a key opens."""
_HEADERS = {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}


def refuses(*errors: type[CtripError]) -> Callable[[View], View]:
    """Mark a route with what it raises besides what any route of its form does."""

    def mark(view: View) -> View:
        view.refusals = errors  # type: ignore[attr-defined]
        return view

    return mark


def describe(operation: dict[str, Any], view: Any) -> dict[str, Any]:
    """Return the Response Objects of all refusals of an operation, by status. Each names the codes it may have."""
    codes: dict[str, set[str]] = defaultdict(set)
    for status, code in (*_EVERYWHERE.items(), *_by_form(operation)):
        codes[status].add(code)
    for error in getattr(view, "refusals", ()):
        codes[str(error.status)].add(error.code)
    return {status: _response(status, sorted(found)) for status, found in sorted(codes.items())}


def _by_form(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Tell status and code of what any operation with such parameters, body and security may refuse."""
    errors: list[type[CtripError]] = list(_OF_KEYS) if operation["security"] else []
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", [])):
        errors.append(NotFound)
    if "requestBody" in operation:
        errors += [MalformedRequest, InvalidValue]
        yield "415", "unsupported_media_type"
    for error in errors:
        yield str(error.status), error.code


def _response(status: str, codes: list[str]) -> dict[str, Any]:
    narrowed = {"properties": {"status": {"const": int(status)}, "code": {"enum": codes}}}
    answer: dict[str, Any] = {"description": _MEANINGS[status]}
    if status in _HEADERS:
        answer["headers"] = {_HEADERS[status]: {"$ref": f"#/components/headers/{_HEADERS[status].replace('-', '')}"}}
    return answer | {"content": {PROBLEM_TYPE: {"schema": {"allOf": [_PROBLEM, narrowed]}}}}
