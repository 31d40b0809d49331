"""Rows become objects by the place of their values: by name it takes thrice as long, and a block may pay thousands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import StrEnum
from operator import itemgetter
from typing import Any, TypeVar, get_args, get_type_hints

import sqlalchemy as sa

T = TypeVar("T")


def reader(table: sa.Table, kind: type[T]) -> Callable[[Sequence[Any]], T]:
    """Return what makes an object of `kind` of a row that was selected of the whole table.

    A field is the column of its name. One that is an object itself is made of the same row; where it may be None, it
    is None if its first column is null.
    """
    hints = _hints(kind)
    names = list(hints)
    inner = {
        place: _optional(table, of) if of is not hints[name] else reader(table, of)
        for place, name in enumerate(names)
        if (of := _inner(hints[name])) is not None
    }
    plain = [name for place, name in enumerate(names) if place not in inner]
    pick = itemgetter(*(table.c.keys().index(name) for name in plain))
    known = {place: members for place, name in enumerate(plain) if (members := _members(hints[name]))}

    def read(row: Sequence[Any]) -> T:
        values = list(pick(row))
        for place, members in known.items():
            values[place] = members[values[place]]
        for place, read_inner in inner.items():
            values.insert(place, read_inner(row))
        return kind(*values)

    return read


def writer(kind: type[T]) -> Callable[[T], dict[str, Any]]:
    """Return what tells of an object what `reader` makes it of, by column. An inner object that is None is all null."""
    hints = _hints(kind)
    inner = {name: (writer(of), tuple(_hints(of))) for name in hints if (of := _inner(hints[name])) is not None}
    plain = [name for name in hints if name not in inner]

    def write(told: T) -> dict[str, Any]:
        found = {name: getattr(told, name) for name in plain}
        for name, (write_inner, columns) in inner.items():
            value = getattr(told, name)
            found |= dict.fromkeys(columns) if value is None else write_inner(value)
        return found

    return write


def _optional(table: sa.Table, kind: type[T]) -> Callable[[Sequence[Any]], T | None]:
    read, place = reader(table, kind), table.c.keys().index(next(iter(_hints(kind))))
    return lambda row: None if row[place] is None else read(row)


def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name, in their order."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _inner(hint: Any) -> Any:
    """Return the dataclass that a hint is of, or may be of beside None; None where it is of neither."""
    return next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)


def _members(hint: Any) -> Mapping[str | None, StrEnum | None]:
    """Return the members of an enumeration by what is stored of them; none where the hint is of something else."""
    kinds = [each for each in (get_args(hint) or (hint,)) if isinstance(each, type) and issubclass(each, StrEnum)]
    members: dict[str | None, StrEnum | None] = {str(member): member for each in kinds for member in each}
    return members | {None: None} if members else {}
