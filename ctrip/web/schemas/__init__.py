"""What comes in and what goes out, as models. The only code that parses JSON from outside; OpenAPI is made of it."""

import json
import math
import re
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import WithJsonSchema

from ctrip.errors import MalformedRequest

Item = TypeVar("Item", bound=BaseModel)
ULID = "[0-7][0-9A-HJKMNP-TV-Z]{25}"
AFTER = "The `next_cursor` of the page before."
_LONGEST_NUMBER = 309
"""Digits. Whole numbers that a double cannot even come near are of no use to a client, and cost time to read."""

MAX_DEPTH = 32
"""Levels of objects and lists. Python's own limit is one that any library in the process may move."""
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Read a request body as one JSON object (RFC 8259, in UTF-8 without a byte order mark).

    Raises MalformedRequest, also for a key that occurs twice in an object, and for nesting deeper than MAX_DEPTH.
    """
    try:
        text = raw.decode("utf-8")
        if _depth(text) > MAX_DEPTH:
            raise MalformedRequest(f"the body is nested deeper than {MAX_DEPTH} levels")
        parsed = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=lambda digits: int(digits) if len(digits) <= _LONGEST_NUMBER else math.inf,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError as error:
        raise MalformedRequest("the body is not in UTF-8") from error
    except ValueError as error:
        raise MalformedRequest(f"the body is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise MalformedRequest("the body is no JSON object")
    return parsed


def _depth(text: str) -> int:
    """Return how deep the brackets of a JSON text are nested; an upper bound where there are few."""
    brackets = text.count("[") + text.count("{")
    if brackets <= MAX_DEPTH:
        return brackets
    level = deepest = 0
    for char in _STRINGS.sub("", text):
        if char in "[{":
            level += 1
            deepest = max(deepest, level)
        elif char in "]}":
            level -= 1
    return deepest


def storable(text: str) -> str:
    """Return the text. Raises ValueError for what Postgres cannot store: NUL, and half of a surrogate pair."""
    if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("it must not hold NUL characters or lone surrogates")
    return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in an object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _digits(value: Any) -> Any:
    """Read the digits of a query parameter; where there is anything else, let the strict check refuse it."""
    is_plain = isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value, re.ASCII)
    return int(value) if is_plain else value


def _moment(value: Any) -> datetime:
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError("it is no RFC 3339 time such as 2026-11-22T14:00:00Z (write + as %2B)")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("it lies outside the calendar") from error


Text = Annotated[str, AfterValidator(storable)]
QueryNumber = Annotated[int, BeforeValidator(_digits)]
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


class Incoming(BaseModel):
    """A body or a query: types as they are written, and no field that is not named here."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the schema, made once: the framework asks for a query's at each request, and it takes a while."""
        return _schema_of(cls, *args, **kwargs)


@cache
def _schema_of(model: type[Incoming], *args: Any, **kwargs: Any) -> dict[str, Any]:
    return super(Incoming, model).model_json_schema(*args, **kwargs)


class Path(BaseModel):
    """The ids in a path. One of another form is no object's, so it is answered as not found."""

    model_config = ConfigDict(strict=True, frozen=True)


class Outgoing(BaseModel):
    """An object as clients see it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Incoming):
    """Where a page begins and how long it is."""

    limit: QueryNumber = Field(default=20, ge=1, le=100, description="How many objects a page holds at most.")


class Problem(Outgoing):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="A link to what the `code` means.", examples=["/docs#invalid_amount"])
    title: str = Field(description="The kind of problem in a few words.", examples=["Invalid amount"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(description="What is wrong, and what would be right.")
    instance: str = Field(description="The path that was asked for.", examples=["/api/v1/payments"])
    code: str = Field(description="What is wrong, as a stable word to program against.", examples=["invalid_amount"])
    param: str | None = Field(description="The field, query parameter or header at fault.", examples=["amount"])
    request_id: str = Field(description="The request, as our logs know it.")


class ListOf(Outgoing, Generic[Item]):
    """A page of a list. Each kind has a class of its own, so that it has a name in the document."""

    object: Literal["list"] = Field(description="Always `list`.")
    data: list[Item] = Field(description="The objects of this page.")
    has_more: bool = Field(description="Whether the list goes on after this page.")
    next_cursor: str | None = Field(description="The `starting_after` of the next page; null on the last.")
