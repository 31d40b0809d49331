"""Violations of the invariants: what an audit finds, and nothing should."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_SECRETS = (
    r"whsec_[A-Za-z0-9+/=_-]{16,}",
    r"sk_[A-Za-z0-9]+_[A-Za-z0-9_-]{16,}",
    r"xprv[1-9A-HJ-NP-Za-km-z]{20,}",
    r"(?<![0-9A-Za-z])[0-9a-fA-F]{64}(?![0-9A-Za-z])",  # a private key; hashes are written with 0x
    r"(?<![a-z])(?:[a-z]{3,8} ){11}[a-z]{3,8}(?![a-z])",  # a mnemonic (BIP-39: words of 3 to 8 letters)
)
SECRET_PATTERN = "|".join(_SECRETS)
"""What looks like a key of ours. Python and Postgres read it alike."""


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold. `invariant` is its number and name, `ids` the rows or blocks concerned."""

    invariant: str
    ids: tuple[str, ...]
    sentence: str


def find_secrets(texts: Iterable[tuple[str, str]]) -> Iterator[Violation]:
    """Look for secrets in texts that each have a name, such as a log's lines or what Redis holds. None is repeated."""
    pattern = re.compile(SECRET_PATTERN)
    for name, text in texts:
        if pattern.search(text):
            yield Violation("7 no_secret_is_kept", (name,), f"{name} holds what looks like a secret")
