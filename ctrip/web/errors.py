"""Every refusal as RFC 9457 `application/problem+json`; what nobody expected as a 500 that tells nothing."""

import json
from collections.abc import Iterator
from typing import NoReturn
from urllib.parse import quote

from flask import Flask, Response, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException, InternalServerError

from ctrip.errors import (
    ChainNotReady,
    CtripError,
    IdempotencyInFlight,
    InvalidAmount,
    InvalidValue,
    NotFound,
    RateLimited,
    RateUnavailableError,
    TooManyOpen,
    Unauthorized,
    Unavailable,
)
from ctrip.log import get_logger
from ctrip.web.current import request_id, route
from ctrip.web.limits import MAX_BODY_BYTES
from ctrip.web.refusals import PROBLEM_TYPE

log = get_logger()

_RETRY_AFTER_S = {
    Unavailable: 5,
    ChainNotReady: 5,
    IdempotencyInFlight: 1,
    RateUnavailableError: 10,
    RateLimited: 1,
    TooManyOpen: 60,
}

_HTTP_PROBLEMS = {
    400: ("malformed_request", "the request could not be read"),
    404: ("not_found", "there is nothing at this path"),
    405: ("method_not_allowed", "this path does not answer that method"),
    413: ("payload_too_large", f"a body has at most {MAX_BODY_BYTES} bytes"),
    415: ("unsupported_media_type", "send the body as application/json, in UTF-8 and not compressed"),
    500: ("internal_error", "something went wrong here; our logs know it by the request_id"),
}


def install(app: Flask) -> None:
    """Make the application answer every error as a problem."""
    app.register_error_handler(CtripError, _answer_error)
    app.register_error_handler(HTTPException, _answer_http_error)
    # Flask would tell of the same exception a second time, by its path instead of its route.
    app.log_exception = lambda _: None  # type: ignore[method-assign,assignment]


def refuse_values(error: ValidationError) -> NoReturn:
    """Turn what a model refused into ours: an id in the path is not found, anything else is a value at fault."""
    first = error.errors(include_url=False, include_input=False)[0]
    field, *inside = map(str, first["loc"] or ("",))
    param = field[:100] or None
    if param in (request.view_args or {}):
        raise NotFound("no object has this id")
    detail = _in_words(first["type"], first["msg"])
    if inside and field != "metadata":
        detail = f"at {'.'.join(inside)[:100]}: {detail}"
    if "amount" in (field, *inside[-1:]):
        raise InvalidAmount(f'{detail}; write the amount as a string such as "12.50"', param=param)
    raise InvalidValue(detail, param=param)


def problem(status: int, code: str, detail: str, *, param: str | None = None) -> Response:
    """Build the answer of a refusal."""
    body = {
        "type": f"/docs#{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": quote(request.path),
        "code": code,
        "param": param,
        "request_id": request_id(),
    }
    return Response(json.dumps(body), status=status, content_type=PROBLEM_TYPE)


def codes() -> Iterator[tuple[str, int, str]]:
    """Tell every code that a client can meet, with its status and what it means."""
    told = set()
    classes = [CtripError]
    for kind in classes:
        classes += kind.__subclasses__()
        if kind.status != CtripError.status:
            told.add(kind.code)
            yield kind.code, kind.status, (kind.__doc__ or "").splitlines()[0]
    for status, (code, meaning) in _HTTP_PROBLEMS.items():
        if code not in told:
            yield code, status, f"{meaning[0].upper()}{meaning[1:]}."


def _answer_error(error: CtripError) -> Response:
    if error.status == CtripError.status:
        return _answer_unexpected(error)
    answer = problem(error.status, error.code, error.detail, param=error.param)
    if isinstance(error, Unavailable):
        log.error("database_unavailable", cause=type(error.__cause__).__name__, detail=str(error.__cause__))
    if type(error) in _RETRY_AFTER_S:
        answer.headers["Retry-After"] = str(_RETRY_AFTER_S[type(error)])
    if isinstance(error, Unauthorized):
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _answer_http_error(error: HTTPException) -> Response:
    if isinstance(error, InternalServerError):
        # Flask has no word of its own for an exception that nobody caught: it hands it over inside of this one.
        return _answer_unexpected(error.original_exception or error)
    status = error.code or 500
    code, detail = _HTTP_PROBLEMS.get(status, ("malformed_request", error.description or "the request was refused"))
    answer = problem(status, code, detail)
    for name, value in error.get_headers():
        if name.lower() == "allow":
            answer.headers[name] = value
    return answer


def _answer_unexpected(error: BaseException) -> Response:
    log.error("http_request_failed", route=route(), exc_info=error)
    code, detail = _HTTP_PROBLEMS[500]
    return problem(500, code, detail)


def _in_words(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such field"
    if kind == "missing":
        return "it is missing"
    return message.removeprefix("Value error, ")
