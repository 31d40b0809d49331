"""The slow lane: how many threads of this process may wait for destinations that were slow before."""

import threading
from types import TracebackType
from typing import Self


class Lane:
    """A number of places, none of which is worth waiting for: whoever finds no place comes back later."""

    def __init__(self, places: int) -> None:
        self._places = threading.BoundedSemaphore(places)

    def seat(self) -> "Seat":
        """Return what one thread takes its place by."""
        return Seat(self._places)


class Seat:
    """One thread's place in a lane, or none. Use it as a context manager, which leaves the place in any case."""

    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self._places = places
        self._is_taken = False

    def take(self) -> bool:
        """Take a place, once. Returns False where all are taken."""
        self._is_taken = self._is_taken or self._places.acquire(blocking=False)
        return self._is_taken

    def leave(self) -> None:
        """Leave the place, where there is one."""
        if self._is_taken:
            self._is_taken = False
            self._places.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()
