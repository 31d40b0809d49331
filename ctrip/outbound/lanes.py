"""The slow lane: how many threads of this process may wait for destinations that were slow before."""

import threading
from types import TracebackType
from typing import Self


class Lane:
    """A number of places, none of which is worth waiting for: whoever finds no place comes back later.

    `is_wanted` says that whoever asked last found none.
    """

    def __init__(self, places: int) -> None:
        self.is_wanted = False
        self._places = threading.BoundedSemaphore(places)

    def seat(self) -> "Seat":
        """Return what one thread takes its place by."""
        return Seat(self)

    def take(self) -> bool:
        """Take a place. Returns False where all are taken."""
        is_taken = self._places.acquire(blocking=False)
        self.is_wanted = not is_taken
        return is_taken

    def leave(self) -> None:
        """Leave a place that was taken."""
        self._places.release()


class Seat:
    """One thread's place in a lane, or none. Use it as a context manager, which leaves the place in any case."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._is_taken = False

    def take(self) -> bool:
        """Take a place, once. Returns False where all are taken."""
        self._is_taken = self._is_taken or self._lane.take()
        return self._is_taken

    def leave(self) -> None:
        """Leave the place, where there is one."""
        if self._is_taken:
            self._is_taken = False
            self._lane.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()
