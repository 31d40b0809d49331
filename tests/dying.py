"""A process that is killed at a moment that a test chooses, without a signal."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ctrip.context import Context
from ctrip.database.engine import Sessions


class Killed(BaseException):
    """The process is gone."""


def dying(ctx: Context, *, when: Callable[[], bool]) -> Context:
    """A process that is killed before the first transaction that it would begin when something has come to be so."""

    class Mortal(Sessions):
        def begin(self) -> Any:
            if when():
                raise Killed
            return super().begin()

    return replace(ctx, sessions=Mortal(ctx.sessions.engine))
