"""What a request body may be: JSON, in UTF-8, one object, and no more than 64 KiB of it."""

from typing import Any

from flask import Request, current_app, g
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from ctrip.errors import MalformedRequest
from ctrip.web.connections import Place
from ctrip.web.schemas import parse_object

MAX_BODY_BYTES = 65_536
READ_AT_MOST_BYTES = MAX_BODY_BYTES + 1
"""A body without a declared length is cut off here, unread beyond it; that one byte more tells that it is too long."""


class BoundedRequest(Request):
    """A request whose body is refused before it is read where its form or length is wrong."""

    _parsed: dict[str, Any] | None = None

    def get_json(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the body, strictly read: `silent` and `force` are not honoured.

        Raises UnsupportedMediaType (415), RequestEntityTooLarge (413, chunked bodies too), MalformedRequest (400, for a
        body too that ends before its declared length: it was cut off on its way), and RateLimited, as `Bodies` says.
        """
        if self._parsed is None:
            self._parsed = parse_object(self._body())
        return self._parsed

    def refuse_excess(self) -> None:
        """Raise RequestEntityTooLarge where the declared length is over the limit, whether or not a route reads it."""
        if self.content_length is not None and self.content_length > MAX_BODY_BYTES:
            raise RequestEntityTooLarge

    def _body(self) -> bytes:
        charset = self.mimetype_params.get("charset", "utf-8").lower()
        if self.mimetype != "application/json" or charset != "utf-8" or self.headers.get("Content-Encoding"):
            raise UnsupportedMediaType
        with current_app.extensions["bodies"].reading(key_id=g.identity.key_id, place=self._place()):
            body = self.get_data(cache=False)
        if len(body) > MAX_BODY_BYTES:
            raise RequestEntityTooLarge
        if len(body) < (self.content_length or 0):
            raise MalformedRequest("the body is shorter than its Content-Length")
        return body

    def _place(self) -> Place:
        # What a trusted proxy tells is whom it asks for; its connection has its own address.
        told = dict(self.environ)
        told |= told.get("werkzeug.proxy_fix.orig", {})
        port = told.get("SERVER_PORT") or ""
        return Place(told.get("REMOTE_ADDR") or "", int(port) if port.isdecimal() else 0)
