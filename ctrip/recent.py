"""What was read a moment ago, for whoever asks again at once: a request need not read anew who sends it."""

import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

KEPT_S = 1.0
"""For so long something may be believed that is not so any more: a key that was revoked by another process."""
_MOST = 10_000

V = TypeVar("V")


class Recent:
    """Values by name, each for KEPT_S unless told otherwise.

    Threads may share it; two that miss one at once both read it.
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[float, Any]] = {}

    def get(
        self, name: Hashable, read: Callable[[], V | None], *, kept_s: Callable[[V], float] = lambda _: KEPT_S
    ) -> V | None:
        """Return what was read under a name a moment ago, or else what is read now; None is not kept.

        `kept_s` says of a value for how long it may be believed.
        """
        # What is cleared meanwhile is another dictionary by then: an answer from before it is not kept.
        kept = self._kept
        at, value = kept.get(name, (0.0, None))
        now = time.monotonic()
        if value is not None and now - at < kept_s(cast(V, value)):
            return cast(V, value)
        value = read()
        if value is not None:
            if len(kept) >= _MOST:
                kept = self._kept = {}
            # As old as the question: what happened since is not in the answer.
            kept[name] = now, value
        return value

    def forget(self, name: Hashable) -> None:
        """Forget what was read under a name."""
        self._kept.pop(name, None)

    def clear(self) -> None:
        """Forget all, also what is being read: something was changed here."""
        self._kept = {}
