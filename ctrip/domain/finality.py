"""When money is final: so many confirmations, or a block that the chain itself calls safe or finalized."""

from enum import StrEnum


class Finality(StrEnum):
    """What makes a block final. Each asks for the confirmations; `safe` and `finalized` for the chain's word as well.

    The words are those of the execution API's block tags.
    """

    CONFIRMATIONS = "confirmations"
    SAFE = "safe"
    FINALIZED = "finalized"
