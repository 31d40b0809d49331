"""One answer over HTTP/1.1, read from its connection into a buffer. What llhttp does not take for one is refused."""

import zlib
from collections.abc import Callable, Iterable, Iterator

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

_MAX_HEAD_BYTES = 2**16
"""Of a status line with all headers, those of answers for the time being included."""
_RECEIVE_BYTES = 2**16
"""How much is taken from a connection at once."""
_LEAST_STATUS, _LEAST_FINAL_STATUS = 100, 200
_VERSIONS = ("1.0", "1.1")
_GZIP_WBITS = 31
"""How zlib says that data has gzip's header."""
_GZIP_CHUNK_BYTES = 2**12
"""How much is unpacked at once: a byte becomes 1032 at the most, so this 4 MiB."""

Receive = Callable[[int], bytes]
"""Returns what comes next, so many bytes at the most, and nothing at the end. It may raise OSError."""


class NoAnswer(Exception):
    """What came is no answer over HTTP/1.1, or is packed in a way that nobody asked for."""


class CutShort(NoAnswer):
    """The connection ended before the answer did."""


class Answer:
    """An answer whose head was read: `headers` have lower-case names. The body is read once.

    Raises NoAnswer, and what `receive` raises.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._parsed = _ParsedResponse()
        left = _MAX_HEAD_BYTES
        while not self._parsed.has_head:
            if left == 0:
                raise NoAnswer
            # What comes of the body with the head counts nowhere: the head has ended then.
            left -= self._hear(min(left, _RECEIVE_BYTES))
        self.status, self.headers = self._parsed.status, self._parsed.headers

    @property
    def is_over(self) -> bool:
        """True where it was read whole, and its connection may carry another one."""
        return self._parsed.is_whole and self._parsed.goes_on

    def body(self, buffer: bytearray, *, most: int) -> memoryview | None:
        """Return the body, unpacked, which is in `buffer`; None where it is larger than `most`."""
        packing = self.headers.get("content-encoding", "identity").lower()
        if packing not in ("identity", "gzip", "x-gzip"):
            raise NoAnswer
        if int(self.headers.get("content-length", "0")) > most:
            return None
        end = 0
        for piece in self._pieces() if packing == "identity" else _unpacked(self._pieces()):
            begin, end = end, end + len(piece)
            if end > most:
                return None
            if end > len(buffer):
                buffer.extend(bytes(end - len(buffer)))
            buffer[begin:end] = piece
        return memoryview(buffer)[:end]

    def _pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes."""
        parsed = self._parsed
        while True:
            yield from parsed.pieces
            parsed.pieces.clear()
            if parsed.is_whole:
                return
            try:
                self._hear(_RECEIVE_BYTES)
            except CutShort:
                if parsed.has_end:
                    raise
                return

    def _hear(self, most: int) -> int:
        came = self._receive(most)
        if not came:
            raise CutShort
        self._parsed.feed(came)
        return len(came)


class _ParsedResponse:
    """What llhttp makes of the bytes that come; it calls the methods that begin with `on_`."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.has_head = self.has_end = self.is_whole = self.goes_on = False
        self._parser = HttpResponseParser(self)

    def feed(self, came: bytes) -> None:
        """Take the next bytes. Raises NoAnswer."""
        try:
            self._parser.feed_data(came)
        except (HttpParserError, HttpParserUpgrade) as error:
            # What comes behind an answer is none of ours: its connection is not used again.
            if not self.is_whole:
                raise NoAnswer from error

    def on_message_begin(self) -> None:
        """Something begins; where it is another answer, nobody asked for it."""
        self.goes_on = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header. What comes behind the body as one is left."""
        if not self.has_head:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Note what the head says, unless it is one for the time being (RFC 9110, 15.2)."""
        if self.is_whole:
            return
        self.status = self._parser.get_status_code()
        coding = self.headers.get("transfer-encoding", "chunked").lower()
        if self.status < _LEAST_STATUS or self._parser.get_http_version() not in _VERSIONS or coding != "chunked":
            raise NoAnswer
        if self.status < _LEAST_FINAL_STATUS:
            self.headers.clear()
            return
        self.has_end = not self.headers.keys().isdisjoint(("content-length", "transfer-encoding"))
        self.has_head = True

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        if not self.is_whole:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        """Note the end."""
        if self.has_head and not self.is_whole:
            self.is_whole, self.goes_on = True, self._parser.should_keep_alive()


def _unpacked(packed: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what is in one or several members of gzip (RFC 1952), in pieces that are never large."""
    stream = zlib.decompressobj(_GZIP_WBITS)
    try:
        for piece in packed:
            for at in range(0, len(piece), _GZIP_CHUNK_BYTES):
                left = piece[at : at + _GZIP_CHUNK_BYTES]
                while left:
                    if stream.eof:
                        stream = zlib.decompressobj(_GZIP_WBITS)
                    yield stream.decompress(left)
                    left = stream.unused_data
    except zlib.error as error:
        raise NoAnswer from error
    if not stream.eof:
        raise CutShort
