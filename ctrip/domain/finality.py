"""When money is final: so many confirmations, or a block that the chain itself calls safe or finalized."""

from dataclasses import dataclass
from enum import StrEnum


class Finality(StrEnum):
    """What makes a block final. Each asks for the confirmations; `safe` and `finalized` for the chain's word as well.

    The words are those of the execution API's block tags.
    """

    CONFIRMATIONS = "confirmations"
    SAFE = "safe"
    FINALIZED = "finalized"

    @property
    def strength(self) -> int:
        """How much it asks for: what is finalized is safe too."""
        return list(Finality).index(self)


@dataclass(frozen=True)
class FinalityRule:
    """What a transfer waits for: both the confirmations (a count of blocks) and the chain's word."""

    finality: Finality
    confirmations: int

    def covers(self, other: "FinalityRule") -> bool:
        """True where whatever is final by this rule is final by the other one too."""
        return self.finality.strength >= other.finality.strength and self.confirmations >= other.confirmations

    def joined(self, other: "FinalityRule") -> "FinalityRule":
        """Return the rule that asks for all that either of two asks for."""
        word = max(self.finality, other.finality, key=lambda finality: finality.strength)
        return FinalityRule(word, max(self.confirmations, other.confirmations))


@dataclass(frozen=True)
class Tier:
    """The rule for amounts of more than `above` base units."""

    above: int
    rule: FinalityRule
