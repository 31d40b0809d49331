"""A transfer that was refused: a transaction that names an issued address and an amount, and moved nothing."""

from dataclasses import dataclass
from enum import StrEnum

from ctrip.domain.addresses import hex_text


class Refusal(StrEnum):
    """Why nothing moved. failed: the receipt says that the transaction, which is in its block, had no effect."""

    FAILED = "failed"


@dataclass(frozen=True)
class RefusedTransfer:
    """What a canonical block holds, and is no transfer. `amount` is the base units of coin that were to move."""

    chain_id: int
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    recipient: bytes
    amount: int
    reason: Refusal
    endpoint: str


def refused_object(refused: RefusedTransfer, *, chain: str) -> dict[str, object]:
    """Render a refused transfer as operators see it."""
    return {
        "chain": chain,
        "block_number": refused.block_number,
        "block_hash": hex_text(refused.block_hash),
        "tx_hash": hex_text(refused.tx_hash),
        "amount_atomic": str(refused.amount),
        "reason": str(refused.reason),
        "endpoint": refused.endpoint,
    }
