"""Streams from strangers, with an end."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_ANSWER_BYTES = 65_536


class Capped(io.RawIOBase):
    """A stream that ends after its first 64 KiB.

    http.client reads all there is where a chunk's size is negative, and smtplib all lines of a reply that never ends.
    """

    def __init__(self, stream: io.RawIOBase) -> None:
        super().__init__()
        self._stream = stream
        self._left = MAX_ANSWER_BYTES

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read what there is, up to the end of the 64 KiB."""
        if not self._left:
            return 0
        count = self._stream.readinto(memoryview(buffer)[: self._left]) or 0
        self._left -= count
        return count

    def close(self) -> None:
        """Close the stream below, too."""
        self._stream.close()
        super().close()
