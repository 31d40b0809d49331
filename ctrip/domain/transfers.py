"""A transfer: coin or tokens that reached an issued address in a block, and whether it counts towards the payment."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ctrip.domain.addresses import NATIVE, checksum_address, hex_text
from ctrip.domain.finality import Finality, FinalityRule
from ctrip.domain.money import format_amount
from ctrip.domain.prices import Asked, Choice
from ctrip.domain.times import timestamp

NATIVE_LOG_INDEX = -1
"""The log index of a top-level native transfer, which has no log."""
INTERNAL_LOG_INDEX = -2
"""The log index of coin that a contract sent, or that was inferred; further hops of one transaction are below it."""


class TransferStatus(StrEnum):
    """seen: in a canonical block; final: deep enough; orphaned: its block was taken by a reorg."""

    SEEN = "seen"
    FINAL = "final"
    ORPHANED = "orphaned"


class Source(StrEnum):
    """What told us of the transfer."""

    NATIVE = "native"
    ERC20 = "erc20"
    INTERNAL = "internal"


class Reason(StrEnum):
    """Why a transfer does not count towards its payment."""

    ASSET = "asset"
    CHAIN = "chain"
    AFTER_COMPLETION = "after_completion"
    OWN_TRANSACTION = "own_transaction"
    SUPERSEDED = "superseded"
    NOT_PAYABLE = "not_payable"
    BEFORE_CHOICE = "before_choice"


@dataclass(frozen=True)
class Sighting:
    """A transfer as it was read from a block, before it is known whom it concerns. `amount` is base units.

    `log_index` is NATIVE_LOG_INDEX for a top-level transfer of coin.
    """

    block_number: int
    block_hash: bytes
    block_time: datetime
    tx_hash: bytes
    log_index: int
    token: bytes
    sender: bytes
    recipient: bytes
    amount: int


@dataclass(frozen=True)
class Transfer:
    """A stored transfer. `amount` is base units of `token`; `required` the confirmations that make it final.

    `endpoint` told of it; `is_verified` where another one has borne it out, or there is no other. Coin that was
    inferred from a balance has neither `sender` nor `tx_hash`.
    """

    id: str
    payment_id: str
    chain_id: int
    chain: str
    token: bytes
    symbol: str
    decimals: int
    amount: int
    sender: bytes | None
    recipient: bytes
    tx_hash: bytes | None
    log_index: int
    block_number: int
    block_hash: bytes
    block_time: datetime
    source: Source
    status: TransferStatus
    required: int
    finality: Finality
    endpoint: str | None
    is_verified: bool
    is_own: bool
    is_payable: bool
    counts: bool
    reason: Reason | None
    is_announced: bool


@dataclass(frozen=True)
class Verdict:
    """Whether one transfer counts towards its payment, and if not, why."""

    transfer: Transfer
    counts: bool
    reason: Reason | None


def source_of(*, token: bytes, log_index: int) -> Source:
    """Say what told of a transfer. Coin may have a log, too: of chains with EIP-7708."""
    if token != NATIVE:
        return Source.ERC20
    return Source.INTERNAL if log_index <= INTERNAL_LOG_INDEX else Source.NATIVE


def in_chain_order(transfers: Iterable[Transfer]) -> list[Transfer]:
    """Sort canonical transfers of one chain as the chain ordered them; orphaned ones are left out."""
    canonical = (transfer for transfer in transfers if transfer.status is not TransferStatus.ORPHANED)
    return sorted(canonical, key=lambda t: (t.block_number, t.log_index, t.tx_hash or b""))


def judge(transfers: Iterable[Transfer], *, asked: Asked, choice: Choice | None, target: int) -> Iterator[Verdict]:
    """Say of each canonical transfer to a payment's address whether it counts towards `target` base units.

    Transfers add up in the chain's order until the target is reached; the one that reaches it still counts whole. What
    is final waits for nothing that is not: it counts by what is final before it.
    """
    counted = counted_final = 0
    for transfer in in_chain_order(transfers):
        is_final = transfer.status is TransferStatus.FINAL
        reason = _why_not(transfer, asked=asked, choice=choice)
        if reason is None and (counted_final if is_final else counted) >= target:
            reason = Reason.AFTER_COMPLETION
        if reason is None:
            counted += transfer.amount
            counted_final += transfer.amount if is_final else 0
        yield Verdict(transfer, counts=reason is None, reason=reason)


def judge_unchosen(transfers: Iterable[Transfer]) -> Iterator[Verdict]:
    """Say of each canonical transfer to the address of a payment without an asset why it does not count."""
    for transfer in in_chain_order(transfers):
        reason = Reason.OWN_TRANSACTION if transfer.is_own else Reason.BEFORE_CHOICE
        yield Verdict(transfer, counts=False, reason=reason)


def transfer_object(transfer: Transfer, *, read_block: int) -> dict[str, object]:
    """Render a transfer as clients see it. `read_block` is the newest block read of its chain."""
    orphaned = transfer.status is TransferStatus.ORPHANED
    return {
        "id": transfer.id,
        "object": "transfer",
        "payment_id": transfer.payment_id,
        "chain": transfer.chain,
        "chain_id": transfer.chain_id,
        "token": None if transfer.token == NATIVE else transfer.symbol,
        "token_address": None if transfer.token == NATIVE else checksum_address(transfer.token),
        "amount": format_amount(transfer.amount, transfer.decimals),
        "amount_atomic": str(transfer.amount),
        "from": transfer.sender and checksum_address(transfer.sender),
        "to": checksum_address(transfer.recipient),
        "tx_hash": transfer.tx_hash and hex_text(transfer.tx_hash),
        "log_index": transfer.log_index,
        "block_number": transfer.block_number,
        "block_hash": hex_text(transfer.block_hash),
        "block_time": timestamp(transfer.block_time),
        "source": str(transfer.source),
        "counts": transfer.counts and not orphaned,
        "reason": transfer.reason and str(transfer.reason),
        "status": str(transfer.status),
        "confirmations": 0 if orphaned else max(0, read_block - transfer.block_number + 1),
    }


def _why_not(transfer: Transfer, *, asked: Asked, choice: Choice | None) -> Reason | None:
    if transfer.is_own:
        return Reason.OWN_TRANSACTION
    if choice is not None and _is_early(transfer, asked, choice):
        return Reason.BEFORE_CHOICE
    if transfer.chain_id != asked.chain_id:
        return Reason.CHAIN
    if transfer.token != asked.token:
        return Reason.ASSET
    if not transfer.is_payable:
        return Reason.NOT_PAYABLE
    return None


def _is_early(transfer: Transfer, asked: Asked, choice: Choice) -> bool:
    is_asked_for = (transfer.chain_id, transfer.token) == (asked.chain_id, asked.token)
    # What was read while no asset was chosen would be final by another rule than this one.
    has_no_rule = is_asked_for and FinalityRule(transfer.finality, transfer.required) != asked.rule
    return has_no_rule or transfer.block_time <= choice.counts_after
