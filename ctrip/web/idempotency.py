"""Idempotency-Key: read from the request, said in the answer. What it means is decided in the database."""

import re
from typing import Any

from flask import Response, request

from ctrip.domain.idempotency import Answer, Once, hash_body
from ctrip.errors import InvalidValue
from ctrip.web.current import route

HEADER = "Idempotency-Key"
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,255}")

PARAMETER: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Any text of your own for what is to happen once, such as a UUID. For 72 hours the same key with "
    "the same body gets the first answer again, with `Idempotency-Replayed: true`; with another body it gets 422.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x20-\x7e]*$"},
}


def once() -> Once | None:
    """Return what the request wants to happen once; None where it has no key. Raises InvalidValue."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not _PRINTABLE.fullmatch(key):
        raise InvalidValue("an Idempotency-Key has 1 to 255 printable ASCII characters", param=HEADER)
    return Once(route=route(), key=key, body_hash=hash_body(request.get_json()))


def respond(answer: Answer) -> Response:
    """Send an answer of a service, and say where it is a replay."""
    response = Response(answer.body, status=answer.status, content_type="application/json")
    if answer.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return response
