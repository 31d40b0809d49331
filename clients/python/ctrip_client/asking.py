"""How the API is asked: one object, or a list page by page."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import requests

from ctrip_client.errors import CtripError
from ctrip_client.sending import Asked, Sender

T = TypeVar("T")
API = "/api/v1"
_ID = re.compile(r"[A-Za-z0-9_]+")
_PAGE = 100


class Asking:
    """One server, asked with one API key over a connection that is kept. It is closed at the end of a `with` block."""

    def __init__(
        self, base_url: str, *, api_key: str, timeout_s: float = 20.0, attempts: int = 5, allow_http: bool = False
    ) -> None:
        """`timeout_s` is how long the server may be silent, and `attempts` how often a request is sent at the most.

        Raises CtripError for a URL over which the key would go in clear text to another machine, unless `allow_http`
        says that the network is your own; then no proxy is asked.
        """
        self._sender = Sender(base_url, api_key=api_key, timeout_s=timeout_s, attempts=attempts, allow_http=allow_http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._sender.close()

    def _ask(self, asked: Asked) -> dict[str, Any]:
        return object_of(self._sender.answer(asked))

    def _pages(self, path: str, read: Callable[[Mapping[str, Any]], T], filters: Mapping[str, Any]) -> Iterator[T]:
        wanted = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in filters.items()}
        after: dict[str, str] = {}
        while True:
            page = self._ask(Asked("GET", path, params={**wanted, **after, "limit": _PAGE}))
            yield from map(read, page["data"])
            if not page["has_more"]:
                return
            after = {"starting_after": page["next_cursor"]}


def path_of(kind: str, object_id: str, *below: str) -> str:
    """Return the path of an object of a kind, such as `payments`, or of what is below it. Raises CtripError."""
    # Whatever else it holds, it is no id, and the path would lead elsewhere.
    if not _ID.fullmatch(object_id):
        raise CtripError(f"{object_id[:60]!r} is no id of {kind}")
    return "/".join((API, kind, object_id, *below))


def json_of(body: Mapping[str, Any]) -> bytes:
    """Write a body. Raises CtripError for what JSON cannot hold."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise CtripError(f"that cannot be written as JSON: {error}") from error


def object_of(answer: requests.Response) -> dict[str, Any]:
    """Read the object that was answered. Raises CtripError where it is none."""
    try:
        told = answer.json()
    except requests.JSONDecodeError as error:
        raise CtripError(f"the answer {answer.status_code} is no JSON: is this the URL of cTrip's API?") from error
    if not isinstance(told, dict):
        raise CtripError("the answer is no JSON object: is this the URL of cTrip's API?")
    return told
