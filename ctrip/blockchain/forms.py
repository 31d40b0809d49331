"""From what a node wrote to values of a form: here alone, for here alone is known what JSON may do to its reader."""

from typing import TypeVar

import msgspec

from ctrip.errors import NodeUnavailable

T = TypeVar("T")


class WrongForm(NodeUnavailable):
    """No JSON, or of another form than was asked for."""


def decoded(decoder: msgspec.json.Decoder[T], text: bytes | memoryview | str | msgspec.Raw) -> T:
    """Decode what a node wrote. Raises WrongForm."""
    try:
        return decoder.decode(text)
    # msgspec's errors and that of undecodable text; and brackets in brackets, which go as deep as Python's stack.
    except (ValueError, RecursionError) as error:
        raise WrongForm(f"an answer of the wrong form: {error}") from error
