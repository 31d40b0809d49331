"""What the server tells of, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from ctrip_client.errors import CtripError, NotThisOrder
from ctrip_client.reading import read


@dataclass(frozen=True)
class Price:
    """An amount of money of a state: `currency` is its code of ISO 4217."""

    amount: Decimal
    currency: str


@dataclass(frozen=True)
class Asset:
    """A token of a chain, or with None its own coin."""

    chain: str
    chain_id: int
    token: str | None
    token_address: str | None
    decimals: int


@dataclass(frozen=True)
class Quote(Asset):
    """What an asset would cost just now; `unavailable` says why it cannot be chosen. Nothing is locked by it."""

    amount: Decimal | None
    amount_atomic: int | None
    rate: Decimal | None
    as_of: datetime | None
    unavailable: str | None


@dataclass(frozen=True)
class RateSource:
    """What one source told: units of the currency for one whole coin or token."""

    source: str
    rate: Decimal
    as_of: datetime


@dataclass(frozen=True)
class LockedQuote:
    """The rate at which a price became an amount, and how old it was when it was locked."""

    rate: Decimal
    as_of: datetime
    sources: tuple[RateSource, ...]
    age_seconds: int
    locked_at: datetime


@dataclass(frozen=True)
class Payment:
    """An amount of one asset, asked for at an address of its own.

    Statuses are text, so that one that is added later breaks nothing: pending, detected, confirmed, settled, expired,
    canceled. Those that end in `_atomic` are whole numbers of the asset's smallest unit. None is what
    is not known of it yet, or does not apply.
    """

    id: str
    status: str
    amount_status: str
    timing: str | None
    settlement: str
    version: int
    chain: str | None
    chain_id: int | None
    token: str | None
    token_address: str | None
    decimals: int | None
    amount: Decimal | None
    amount_atomic: int | None
    received: Decimal
    received_atomic: int
    confirmed: Decimal
    confirmed_atomic: int
    address: str | None
    payment_uri: str | None
    checkout_url: str | None
    confirmations: int
    confirmations_required: int | None
    order_id: str | None
    customer_email: str | None
    metadata: Mapping[str, Any]
    webhook_url: str | None
    created_at: datetime
    expires_at: datetime
    detected_at: datetime | None
    confirmed_at: datetime | None
    settled_at: datetime | None
    price: Price | None
    assets: tuple[Asset, ...] | None
    quote: LockedQuote | None

    @property
    def is_paid(self) -> bool:
        """True where the whole amount is final: ship the goods. A deep reorganisation may take it back."""
        return self.status in ("confirmed", "settled")

    @property
    def is_ended(self) -> bool:
        """True where nothing more is expected: it expired or was canceled, and may only be accepted."""
        return self.status in ("expired", "canceled")

    def check(self, *, order_id: str, amount: Decimal | str, chain: str, token: str | None) -> None:
        """Raise NotThisOrder unless it is what you asked for, by your own records; whether it is paid is not looked at.

        `token` is a symbol or a contract as you asked for it, or None for the chain's own coin. A buyer may know of
        other payments of yours, and their webhooks are as well signed as this one's.
        """
        wanted: dict[str, object] = {"order_id": order_id, "amount": Decimal(amount), "chain": chain}
        told: dict[str, object] = {name: getattr(self, name) for name in wanted}
        asset = {each.lower() for each in (self.token, self.token_address) if each is not None}
        if token is None or token.lower() not in asset:
            wanted["token"], told["token"] = token, self.token
        self._compare(wanted, told)

    def check_price(self, *, order_id: str, price: Decimal | str, currency: str) -> None:
        """Raise NotThisOrder unless it asks for this price, as `check` does of an amount.

        In whichever of the accepted assets it is paid: what they are worth was said by the rate of the choice.
        """
        told = (None, None) if self.price is None else (self.price.amount, self.price.currency)
        wanted = {"order_id": order_id, "price": Decimal(price), "currency": currency}
        self._compare(wanted, {"order_id": self.order_id, "price": told[0], "currency": told[1]})

    def _compare(self, wanted: Mapping[str, object], told: Mapping[str, object]) -> None:
        wrong = [f"{name} is {told[name]}, not {value}" for name, value in wanted.items() if told[name] != value]
        if wrong:
            raise NotThisOrder(f"payment {self.id}: {'; '.join(wrong)}")


@dataclass(frozen=True)
class Transfer:
    """Coin or tokens that reached a payment's address in a block. Where it does not count, `reason` says why.

    Of coin that a contract sent (`source` is internal) nobody may know the sender and the transaction.
    """

    id: str
    payment_id: str
    chain: str
    chain_id: int
    token: str | None
    token_address: str | None
    amount: Decimal
    amount_atomic: int
    sender: str | None
    to: str
    tx_hash: str | None
    log_index: int
    block_number: int
    block_hash: str
    block_time: datetime
    source: str
    counts: bool
    reason: str | None
    status: str
    confirmations: int


@dataclass(frozen=True)
class Event:
    """One change of a payment, as a webhook or a list of events tells of it.

    Webhooks come at least once, in any order: keep `id` to tell a repetition, and the highest `payment.version`.
    """

    id: str
    type: str
    at: datetime
    payment: Payment | None
    transfer: Transfer | None
    previous_status: str | None


@dataclass(frozen=True)
class Coin:
    """A chain's own coin. `currencies` are those of prices that it may pay."""

    symbol: str
    decimals: int
    currencies: tuple[str, ...]


@dataclass(frozen=True)
class Token:
    """A listed token. One that is not `payable` cannot be asked for, and is watched all the same.

    `currencies` are those of prices that it may pay.
    """

    symbol: str
    address: str
    decimals: int
    payable: bool
    currencies: tuple[str, ...]


@dataclass(frozen=True)
class Chain:
    """A configured chain, and how far it was read: heights are block numbers, None where they are not known.

    `status` is ready, not_ready (no payment can be made there yet) or stopped.
    """

    name: str
    chain_id: int
    enabled: bool
    status: str
    native: Coin
    tokens: tuple[Token, ...]
    confirmations: int
    reorg_window: int
    head_block: int | None
    read_block: int | None
    final_block: int | None
    lag_blocks: int | None


@dataclass(frozen=True)
class WebhookEndpoint:
    """A URL that events are posted to. Its `secret` is there when it was just made or rotated, and never again."""

    id: str
    url: str
    events: tuple[str, ...]
    status: str
    disabled_reason: str | None
    created_at: datetime
    secret: str | None


@dataclass(frozen=True)
class Attempt:
    """One try to deliver. Where no status came, `error` says what stood in the way."""

    at: datetime
    status_code: int | None
    duration_ms: int
    error: str | None
    response: str | None


@dataclass(frozen=True)
class Delivery:
    """What became of an event on its way to one URL: pending, delivered or dead. The oldest attempt comes first."""

    id: str
    event_id: str | None
    endpoint_id: str | None
    url: str
    status: str
    attempts: int
    next_attempt_at: datetime | None
    last_status_code: int | None
    history: tuple[Attempt, ...]


def transfer_of(content: Mapping[str, Any]) -> Transfer:
    """Read a transfer. Raises CtripError where it is none."""
    return read(Transfer, {**content, "sender": content.get("from")})


def event_of(content: Mapping[str, Any]) -> Event:
    """Read an event, as a webhook's body or the API writes it. Raises CtripError where it is none."""
    try:
        told = content["data"]
        at = datetime.fromisoformat(content["timestamp"] if "timestamp" in content else content["created_at"])
        return Event(
            id=content["id"],
            type=content["type"],
            at=at,
            payment=read(Payment, told["payment"]) if "payment" in told else None,
            transfer=transfer_of(told["transfer"]) if "transfer" in told else None,
            previous_status=told.get("previous_status"),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CtripError(f"this is no event: {error!r}") from error
