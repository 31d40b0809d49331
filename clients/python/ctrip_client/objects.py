"""What the server tells of, as values. Fields that this version does not know are left out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_type_hints

from ctrip_client.errors import CtripError, NotThisOrder

T = TypeVar("T")
_Read = Callable[[Any], Any]
_READS: dict[Any, _Read] = {Decimal: Decimal, int: int, datetime: datetime.fromisoformat}
"""What makes a value of JSON one of these kinds; the others are left as they are."""


@dataclass(frozen=True)
class Payment:
    """An amount of one asset, asked for at an address of its own.

    Statuses are text, so that one that is added later breaks nothing: pending, detected, confirmed, settled, expired,
    canceled. Those that end in `_atomic` are whole numbers of the asset's smallest unit.
    """

    id: str
    status: str
    amount_status: str
    timing: str | None
    settlement: str
    version: int
    chain: str
    chain_id: int
    token: str | None
    token_address: str | None
    decimals: int
    amount: Decimal
    amount_atomic: int
    received: Decimal
    received_atomic: int
    confirmed: Decimal
    confirmed_atomic: int
    address: str
    payment_uri: str | None
    checkout_url: str | None
    confirmations: int
    confirmations_required: int
    order_id: str | None
    customer_email: str | None
    metadata: Mapping[str, Any]
    webhook_url: str | None
    created_at: datetime
    expires_at: datetime
    detected_at: datetime | None
    confirmed_at: datetime | None
    settled_at: datetime | None

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
        told = {name: getattr(self, name) for name in wanted}
        asset = {each.lower() for each in (self.token, self.token_address) if each is not None}
        if token is None or token.lower() not in asset:
            wanted["token"], told["token"] = token, self.token
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


def payment_of(content: Mapping[str, Any]) -> Payment:
    """Read a payment. Raises CtripError where it is none."""
    return _read(Payment, content)


def transfer_of(content: Mapping[str, Any]) -> Transfer:
    """Read a transfer. Raises CtripError where it is none."""
    return _read(Transfer, {**content, "sender": content.get("from")})


def event_of(content: Mapping[str, Any]) -> Event:
    """Read an event, as a webhook's body or the API writes it. Raises CtripError where it is none."""
    try:
        told = content["data"]
        at = datetime.fromisoformat(content["timestamp"] if "timestamp" in content else content["created_at"])
        return Event(
            id=content["id"],
            type=content["type"],
            at=at,
            payment=payment_of(told["payment"]) if "payment" in told else None,
            transfer=transfer_of(told["transfer"]) if "transfer" in told else None,
            previous_status=told.get("previous_status"),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CtripError(f"this is no event: {error!r}") from error


def _read(kind: type[T], content: Mapping[str, Any]) -> T:
    try:
        return kind(**{name: read(content[name]) for name, read in _readers(cast("Any", kind))})
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise CtripError(f"this is no {kind.__name__.lower()}: {error!r}") from error


@cache
def _readers(kind: Any) -> list[tuple[str, _Read]]:
    hints = get_type_hints(kind)
    return [(field.name, _reader(hints[field.name])) for field in fields(kind)]


def _reader(hint: Any) -> _Read:
    kinds = [each for each in get_args(hint) if each is not type(None)] or [hint]
    read = _READS.get(kinds[0], _as_it_is)
    if type(None) in get_args(hint) or hint is Any:
        return lambda value: None if value is None else read(value)
    return lambda value: read(_there(value))


def _as_it_is(value: Any) -> Any:
    return value


def _there(value: Any) -> Any:
    if value is None:
        raise ValueError("something is null that cannot be")
    return value
