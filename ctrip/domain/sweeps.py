"""A sweep's life: money leaves a deposit address for the treasury, and a crash at any point moves it once.

    planned ──> signed ──> sent ──> mined ──> done          final, and the receipt says that the money moved
       │          │  ^      │ ^ │     │ └───> failed        final, but it moved nothing; its nonce is spent
       └─> held <─┴──┼──────┘ │ └──┐  │
             └───────┘        └────┼──┘                     a reorg took its block: the same bytes again
                                   └──> signed              a higher price on the same nonce

A nonce is used if and only if its signed transaction is stored: both happen in one transaction, before any broadcast.
A held intent goes on by itself when what held it is over, with the nonce that it has. Amounts are base units.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ctrip.domain.gas import Price, at_most

MAX_FAILURES = 3
"""Sweeps in a row that may fail on the chain before a human has to look: each one costs gas and moves nothing."""


class IntentKind(StrEnum):
    """sweep: to the treasury; topup: gas for a token sweep, from the gas wallet to the deposit address."""

    SWEEP = "sweep"
    TOPUP = "topup"


class IntentState(StrEnum):
    """done and failed are final unless a reorg takes the block that made them so."""

    PLANNED = "planned"
    SIGNED = "signed"
    SENT = "sent"
    MINED = "mined"
    HELD = "held"
    DONE = "done"
    FAILED = "failed"


class HeldReason(StrEnum):
    """Why an intent does not go on. All but the last end by themselves when their cause is gone."""

    FEE_CEILING = "fee_ceiling"
    GAS_WALLET_EMPTY = "gas_wallet_empty"
    DUST = "dust"
    UNCOVERED = "uncovered"
    FOREIGN_NONCE = "foreign_nonce"
    REVERTS = "reverts"
    NODE_REFUSES = "node_refuses"
    SIGNING_REFUSED = "signing_refused"
    REPEATED_FAILURE = "repeated_failure"


@dataclass(frozen=True)
class Intent:
    """A stored intent. `token` of a top-up is that of the sweep it is for.

    `gas_cost` is the wei that its transaction spent, `own_coin` the part of what it spent of the address' coin that
    top-ups had brought (less than nothing where it left some of the reserved gas behind).
    `sent_at` is when the newest attempt was first broadcast, `broadcast_block` the block that was read last when an
    attempt was last broadcast.
    """

    id: str
    kind: IntentKind
    chain_id: int
    address: bytes
    token: bytes
    payment_id: str
    for_intent_id: str | None
    state: IntentState
    sender: bytes
    nonce: int | None
    recipient: bytes
    amount: int | None
    gas_cost: int | None
    own_coin: int | None
    mined_tx_hash: bytes | None
    mined_block: int | None
    mined_block_hash: bytes | None
    held_reason: HeldReason | None
    failure: str | None
    sent_at: datetime | None
    broadcast_block: int | None
    created_at: datetime


@dataclass(frozen=True)
class Attempt:
    """A stored signed transaction of an intent. All attempts of an intent have one nonce: one of them lands at most."""

    intent_id: str
    number: int
    raw: bytes
    tx_hash: bytes
    amount: int
    gas_limit: int
    price: Price
    created_at: datetime

    @property
    def gas_reserved(self) -> int:
        """The most that it may spend on gas, in wei."""
        return self.gas_limit * self.price.max_fee


@dataclass(frozen=True)
class Order:
    """A transaction to sign. `token` is NATIVE for coin, `recipient` who gets the `amount` of it."""

    chain_id: int
    nonce: int
    token: bytes
    recipient: bytes
    amount: int
    gas_limit: int
    price: Price


# --- what to sign ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sign:
    """Sign a transaction that moves `amount`."""

    amount: int
    gas_limit: int
    price: Price


@dataclass(frozen=True)
class TopUp:
    """Bring `amount` wei to the address first."""

    amount: int


@dataclass(frozen=True)
class Hold:
    """Do nothing now, and say why; `detail` in the node's or the signer's words."""

    reason: HeldReason
    detail: str | None = None


Plan = Sign | TopUp | Hold


def plan_coin_sweep(*, owed: int, balance: int, gas_limit: int, price: Price | None, is_filler: bool) -> Plan:
    """Decide on a sweep of coin: `owed` is what the rows say lies there, `balance` what final and latest block have.

    Value and gas together are all of it, so nothing is left. A filler moves whatever there is, and be it nothing, to
    spend a nonce that others wait behind.
    """
    if price is None:
        return Hold(HeldReason.FEE_CEILING)
    there = min(owed, balance)
    amount = there - gas_limit * price.max_fee
    if is_filler:
        return Sign(amount, gas_limit, price) if amount >= 0 else TopUp(-amount)
    if there <= 0:
        return Hold(HeldReason.UNCOVERED)
    return Sign(amount, gas_limit, price) if amount > 0 else Hold(HeldReason.DUST)


def plan_token_sweep(
    *, amount: int, coin: int, gas_limit: int, price: Price | None, least_price: Price | None, is_filler: bool
) -> Plan:
    """Decide on a sweep of tokens: `amount` is what rows and balances agree on, `coin` what may be spent on gas.

    `least_price` is what would be good enough: where the fees rose since the top-up, the coin at hand may still do.
    """
    if price is None or least_price is None:
        return Hold(HeldReason.FEE_CEILING)
    if amount <= 0 and not is_filler:
        return Hold(HeldReason.UNCOVERED)
    affordable = at_most(price, coin // gas_limit)
    if affordable.max_fee >= least_price.max_fee:
        return Sign(amount, gas_limit, affordable)
    return TopUp(gas_limit * price.max_fee - coin)


def plan_topup(*, amount: int, free_coin: int, gas_limit: int, price: Price | None) -> Sign | Hold:
    """Decide on a top-up: `free_coin` is what the gas wallet has beyond what its transactions under way may take."""
    if price is None:
        return Hold(HeldReason.FEE_CEILING)
    if free_coin < amount + gas_limit * price.max_fee:
        return Hold(HeldReason.GAS_WALLET_EMPTY)
    return Sign(amount, gas_limit, price)


# --- what to do with what was signed --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sight:
    """What is known of a signed intent that no receipt was found for.

    `is_covered`: the sender holds what the newest attempt moves and may spend. `is_waiting`: it was broadcast since it
    was signed, held or reverted. `is_stale`: that is so many blocks ago that the node may have lost it. `is_overdue`:
    it waits for longer than a price is given time for. `can_raise`: a higher price is below the ceiling, and there is
    coin for it. `lacks_gas`: a top-up would make it so. `is_taken`: its price is good enough now.
    """

    is_covered: bool
    is_waiting: bool
    is_stale: bool
    is_overdue: bool
    can_raise: bool
    lacks_gas: bool
    is_taken: bool


class Move(StrEnum):
    """What to do with a signed intent."""

    WAIT = "wait"
    BROADCAST = "broadcast"
    RAISE = "raise"
    TOP_UP = "top_up"
    HOLD_UNCOVERED = "hold_uncovered"
    HOLD_FEE_CEILING = "hold_fee_ceiling"


def next_move(sight: Sight) -> Move:
    """Decide what to do with a signed intent that is not mined."""
    if not sight.is_covered:
        return Move.HOLD_UNCOVERED
    if sight.is_overdue and sight.can_raise:
        return Move.RAISE
    if sight.is_overdue and sight.lacks_gas:
        return Move.TOP_UP
    if sight.is_overdue and not sight.is_taken:
        return Move.HOLD_FEE_CEILING
    return Move.BROADCAST if sight.is_stale or not sight.is_waiting else Move.WAIT


class Answer(StrEnum):
    """What a node says to a broadcast."""

    ACCEPTED = "accepted"
    KNOWN = "known"
    NONCE_USED = "nonce_used"
    UNDERPRICED = "underpriced"
    UNFUNDED = "unfunded"
    LATER = "later"
    REFUSED = "refused"


_WORDINGS = (
    (Answer.KNOWN, "alreadyknown"),  # geth, Erigon, Nethermind
    (Answer.KNOWN, "knowntransaction"),  # Besu, older geth
    (Answer.KNOWN, "alreadyimported"),  # anvil, OpenEthereum
    (Answer.KNOWN, "existingtxwithsamehash"),  # Erigon
    (Answer.NONCE_USED, "noncetoolow"),  # geth, Erigon, Besu, anvil, Nethermind
    (Answer.NONCE_USED, "oldnonce"),  # older Nethermind
    (Answer.NONCE_USED, "nonceistoolow"),  # OpenEthereum
    (Answer.UNDERPRICED, "underpriced"),  # geth, Erigon, Besu, Nethermind: of a replacement, or altogether
    (Answer.UNDERPRICED, "lessthanblockbasefee"),  # geth, anvil
    (Answer.UNDERPRICED, "gaspricebelow"),  # Besu: the base fee, or the configured minimum
    (Answer.UNDERPRICED, "gaspricetoolow"),  # Arbitrum
    (Answer.UNDERPRICED, "feetoolow"),  # Nethermind, Erigon
    (Answer.UNDERPRICED, "replacementnotallowed"),  # older Nethermind
    (Answer.UNDERPRICED, "ownnoncealreadyused"),  # older Nethermind
    (Answer.UNFUNDED, "insufficientfunds"),  # geth, Erigon, anvil, Nethermind
    (Answer.UNFUNDED, "upfrontcostexceeds"),  # Besu
    (Answer.UNFUNDED, "notenoughfunds"),  # Arbitrum
    (Answer.LATER, "noncetoohigh"),  # Besu, Nethermind: an earlier nonce is not there yet
    (Answer.LATER, "noncegap"),  # older Nethermind
    (Answer.LATER, "poolisfull"),  # geth, Erigon
    (Answer.LATER, "transactionlimit"),  # geth: in-flight transactions of a delegated account
)


def classify(message: str) -> Answer:
    """Read a node's error message to a broadcast, whatever its case, spaces and underscores.

    The codes tell nothing: a client answers -32000 or -32003 to all of these.
    """
    said = "".join(filter(str.isalpha, message.lower()))
    return next((answer for answer, wording in _WORDINGS if wording in said), Answer.REFUSED)
