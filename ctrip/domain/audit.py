"""Violations of the invariants: what an audit finds, and nothing should."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold. `invariant` is its number and name, `ids` the rows or blocks concerned."""

    invariant: str
    ids: tuple[str, ...]
    sentence: str


def secret_found(place: str, of_id: str) -> Violation:
    """Tell of a secret without repeating it."""
    return Violation("7 no_secret_is_kept", (of_id,), f"{place} holds what looks like a secret")
