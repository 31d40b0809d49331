"""JSON becomes values: by the types that a value's fields say. Fields that this version does not know are left out."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache, partial
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from ctrip_client.errors import CtripError

T = TypeVar("T")
_Read = Callable[[Any], Any]
_READS: dict[Any, _Read] = {Decimal: Decimal, int: int, datetime: datetime.fromisoformat}
"""What makes a value of JSON one of these kinds; the others are left as they are."""


def read(kind: type[T], content: Mapping[str, Any]) -> T:
    """Read an object. A field that may be None may be absent as well. Raises CtripError where it is no such object."""
    try:
        return kind(**{name: read_field(content.get(name)) for name, read_field in _readers(cast("Any", kind))})
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise CtripError(f"this is no {kind.__name__.lower()}: {error!r}") from error


@cache
def _readers(kind: Any) -> list[tuple[str, _Read]]:
    hints = get_type_hints(kind)
    return [(field.name, _reader(hints[field.name])) for field in fields(kind)]


def _reader(hint: Any) -> _Read:
    may_be_none = type(None) in get_args(hint) or hint is Any
    kind = next((kind for kind in get_args(hint) if kind is not type(None)), hint) if may_be_none else hint
    known = _known(kind)
    if may_be_none:
        return lambda value: None if value is None else known(value)
    return lambda value: known(_there(value))


def _known(kind: Any) -> _Read:
    if get_origin(kind) is tuple:
        each = _reader(get_args(kind)[0])
        return lambda values: tuple(map(each, values))
    return partial(read, cast("type[Any]", kind)) if is_dataclass(kind) else _READS.get(kind, _as_it_is)


def _as_it_is(value: Any) -> Any:
    return value


def _there(value: Any) -> Any:
    if value is None:
        raise ValueError("something is null that cannot be")
    return value
