"""Spans of time as they are typed: 30m, 12h, 7d."""

import re
from datetime import timedelta
from typing import Any

import click

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Span(click.ParamType[timedelta]):
    """A number with its unit, of `most` at the most; `name` says what it is, such as an age."""

    def __init__(self, *, name: str, most: timedelta) -> None:
        self.name = name
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read a span; a default is one already."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,9})([smhd])", str(value), re.ASCII)
        span = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None
        if span is None or span > self._most:
            self.fail(
                f"{value!r} is no {self.name} such as 30m, 12h or 7d, of {self._most.days} days at most", param, ctx
            )
        return span
