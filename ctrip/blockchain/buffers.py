"""Memory that answers are received into."""

from collections import deque

_FIRST_BYTES = 2**16
_MAX_KEPT_BYTES = 2**22


class Buffers:
    """Memory for answers, used again and again: to get megabytes from the system each time costs more than to read.

    What was decoded may still look into a buffer, as every msgspec.Raw does; such a one cannot be resized, and is left
    alone until nothing does.
    """

    def __init__(self, *, most: int) -> None:
        self._kept: deque[bytearray] = deque(maxlen=most)

    def take(self) -> bytearray:
        """Return a buffer that nothing looks into."""
        for _ in range(len(self._kept)):
            try:
                buffer = self._kept.popleft()
            except IndexError:  # another thread took the last one
                break
            try:
                buffer.append(0)
                buffer.pop()
            except BufferError:
                self._kept.append(buffer)
            else:
                return buffer
        return bytearray(_FIRST_BYTES)

    def give(self, buffer: bytearray) -> None:
        """Keep a buffer for later, unless one answer has made it larger than most are."""
        if len(buffer) <= _MAX_KEPT_BYTES:
            self._kept.append(buffer)
