"""Compares a dashboard with Grafana's schema, as grafana-foundation-sdk has it.

Grafana Labs generates that package from Grafana's sources: a typed class for each object, those of panel options,
field options and Prometheus queries included. Its classes take whatever they are given, so the types are compared here.
"""

import enum
import json
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

register_default_plugins()


def faults_of(dashboard: dict[str, Any]) -> list[str]:
    """Tell what a dashboard has that Grafana's types do not know, or that is of another type than theirs."""
    parsed = Dashboard.from_json(dashboard)
    understood = json.loads(json.dumps(parsed, cls=JSONEncoder))
    return [*_faults(parsed, Dashboard, "dashboard"), *_unknown(dashboard, understood, "dashboard")]


def _faults(value: Any, declared: Any, at: str) -> Iterator[str]:
    origin, inner = get_origin(declared), get_args(declared)
    if isinstance(value, dict) and hasattr(declared, "from_json"):
        value = declared.from_json(value)  # the package leaves some lists unparsed
    if origin in (Union, types.UnionType):
        found = [list(_faults(value, each, at)) for each in inner]
        if all(found):
            # What is deepest down is at fault within the right one of them.
            yield from max(found, key=lambda each: len(each[0].partition(":")[0]))
    elif origin is list and isinstance(value, list):
        for place, item in enumerate(value):
            yield from _faults(item, inner[0], f"{at}[{place}]")
    elif not _is_of(value, origin or declared, inner):
        yield f"{at}: {value!r} is not of {declared}"
    else:
        yield from _faults_within(value, at)


def _is_of(value: Any, declared: Any, inner: tuple[Any, ...]) -> bool:
    if declared in (Any, object) or getattr(declared, "_is_protocol", False):
        return True
    if declared is Literal:
        return value in inner
    if issubclass(declared, enum.Enum):
        return value in [member.value for member in declared]
    if isinstance(value, bool) or declared is bool:
        return isinstance(value, bool) and declared is bool
    return isinstance(value, (int, float) if declared is float else declared)


def _faults_within(value: Any, at: str) -> Iterator[str]:
    if not hasattr(type(value), "from_json"):
        return
    for name, declared in get_type_hints(type(value)).items():
        yield from _faults(getattr(value, name), declared, f"{at}.{name}")
    # What a panel or query has of its own is parsed by its plugin's types, and declared loosely here.
    if isinstance(value, Panel):
        custom = value.field_config and value.field_config.defaults.custom
        for part in (value.options, custom, *(value.targets or ())):
            yield from _faults_within(part, f"{at}({value.title})")


def _unknown(given: Any, understood: Any, at: str) -> Iterator[str]:
    """Find what did not survive the way through the types: no one knows it there."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for key, value in given.items():
            yield from _unknown(value, understood[key], f"{at}.{key}") if key in understood else [f"{at}.{key}"]
    elif isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        for place, (theirs, ours) in enumerate(zip(given, understood, strict=True)):
            yield from _unknown(theirs, ours, f"{at}[{place}]")
    elif given != understood:
        yield f"{at}: {given!r} became {understood!r}"
