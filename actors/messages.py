"""What a message in Redis says, read with a limit."""

import re

from dramatiq.errors import DecodeError
from dramatiq.message import Message

MOST_LEVELS = 100
"""Of objects and lists. Python's own limit is one that any library moves, and beyond the stack's the process dies."""
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def read_message(content: bytes) -> Message[object]:
    """Read a message. Raises DecodeError."""
    if _levels(content) > MOST_LEVELS:
        raise DecodeError(f"It is nested deeper than {MOST_LEVELS} levels.", content, None)  # type: ignore[no-untyped-call]
    message: Message[object] = Message.decode(content)
    return message


def _levels(content: bytes) -> int:
    """Count how deep brackets are nested: an upper bound where there are few of them."""
    brackets = content.count(b"[") + content.count(b"{")
    if brackets <= MOST_LEVELS:
        return brackets
    level = deepest = 0
    for byte in _STRINGS.sub(b"", content):
        if byte in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif byte in b"]}":
            level -= 1
    return deepest
