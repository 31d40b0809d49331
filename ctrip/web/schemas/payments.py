"""Payments and their transfers, as clients write and read them."""

import json
import math
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict, JsonValue

from ctrip.domain.mailboxes import EMAIL_CHARACTERS, EMAIL_PATTERN
from ctrip.domain.money import PLAIN_DECIMAL
from ctrip.domain.payments import AmountStatus, Settlement, Status, Timing
from ctrip.domain.transfers import Reason, Source, TransferStatus
from ctrip.errors import InvalidAmount, InvalidValue
from ctrip.services.creating import AmountRequest, AssetRequest, PaymentRequest, PriceRequest
from ctrip.web.schemas import ULID, Incoming, ListOf, Moment, Outgoing, Page, Path, Text, storable
from ctrip.web.schemas.prices import (
    ASSET_FIELD,
    CHAIN_FIELD,
    AskedPrice,
    Asset,
    AssetChoice,
    ChainName,
    LockedQuote,
    ShownPrice,
    TokenName,
)

_METADATA_BYTES = 8_192
Email = Annotated[str, Field(max_length=EMAIL_CHARACTERS, pattern=EMAIL_PATTERN), AfterValidator(storable)]
_PAYMENT_ID = f"^pay_{ULID}$"


def _metadata(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("it is an object of your own keys and values")  # noqa: TRY004 (pydantic reads ValueError)
    for key, item in value.items():
        storable(key)
        if isinstance(item, str):
            storable(item)
        elif not isinstance(item, (bool, int, float)) or not math.isfinite(item):
            raise ValueError("its values are strings, numbers, true or false")
    if len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) > _METADATA_BYTES:
        raise ValueError("it takes more than 8 KiB of JSON")
    return value


def _shape(*, there: dict[str, str], absent: tuple[str, ...]) -> JsonDict:
    """Return what a schema adds for a body that has the fields `there`, by their type, and not those `absent`."""
    types = there | dict.fromkeys(absent, "null")
    return {"required": [*there], "properties": {name: {"type": kind} for name, kind in types.items()}}


_EITHER: list[JsonValue] = [
    _shape(there={"chain": "string", "amount": "string"}, absent=("price", "assets")),
    _shape(there={"price": "object", "assets": "array"}, absent=("chain", "token", "amount")),
]

_WITH_A_PRICE: JsonDict = {
    "price": {"amount": "49.90", "currency": "EUR"},
    "assets": [{"chain": "anvil", "token": "USDC"}, {"chain": "anvil"}],
    "order_id": "1002",
}


class CreatePayment(Incoming):
    """What to ask a payer for: an `amount` on a `chain`, or a `price` and the `assets` in which it may be paid."""

    model_config = ConfigDict(json_schema_extra={"oneOf": _EITHER, "examples": [_WITH_A_PRICE]})

    chain: ChainName | None = Field(default=None, description=CHAIN_FIELD, examples=["anvil"])
    token: TokenName | None = Field(default=None, description=ASSET_FIELD, examples=["USDC"])
    amount: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="A plain decimal in the asset's units, as a string. Any JSON number is refused.",
        examples=["12.50"],
        json_schema_extra={"pattern": f"^{PLAIN_DECIMAL}$"},
    )
    price: AskedPrice | None = Field(
        default=None,
        description="Instead of an amount: what it costs. Somebody chooses one of `assets` then (`…/choose`), and the "
        "amount follows from the rate, rounded up to the asset's smallest unit.",
    )
    assets: list[AssetChoice] | None = Field(
        default=None, min_length=1, max_length=20, description="With a price: the assets that are accepted, each once."
    )
    order_id: Text | None = Field(
        default=None, min_length=1, max_length=255, description="Your own name for it.", examples=["1001"]
    )
    expires_in: int = Field(
        default=1_800, ge=60, le=604_800, description="Seconds in which the amount is to be complete."
    )
    confirmations: int | None = Field(
        default=None,
        ge=1,
        le=4_096,
        description="How many make a transfer final: the chain's own number, or more, up to its `reorg_window`.",
        examples=[3],
    )
    customer_email: Email | None = Field(default=None, description="The buyer.", examples=["buyer@example.com"])
    metadata: Annotated[dict[str, str | int | float | bool], BeforeValidator(_metadata)] = Field(
        default_factory=dict,
        max_length=50,
        description="Up to 50 keys of your own, 8 KiB as JSON. It comes back with the payment and its events.",
        examples=[{"plan": "pro"}],
    )
    webhook_url: Text | None = Field(
        default=None,
        min_length=1,
        max_length=2_048,
        description="Where this payment's events are posted, signed with the merchant's secret.",
        examples=["https://shop.example/hooks"],
    )
    underpayment_tolerance: int | None = Field(
        default=None,
        ge=0,
        le=9_999,
        description="Basis points of the amount that may be missing; null or absent: the merchant's own setting.",
        examples=[50],
    )

    def _of(self) -> AmountRequest | PriceRequest:
        """Raises InvalidValue where it is neither an amount nor a price, or both."""
        if self.price is None:
            if self.assets is not None:
                raise InvalidValue("assets come with a price", param="price")
            if self.chain is None:
                raise InvalidValue("it has a chain and an amount, or a price and assets", param="chain")
            if self.amount is None:
                raise InvalidAmount("it has an amount, or a price and assets", param="amount")
            return AmountRequest(AssetRequest(self.chain, self.token), self.amount)
        for name in ("chain", "token", "amount"):
            if getattr(self, name) is not None:
                raise InvalidValue("a price stands instead of this: it follows from the choice of an asset", param=name)
        if self.assets is None:
            raise InvalidValue("a price comes with the assets in which it may be paid", param="assets")
        assets = tuple(asset.request() for asset in self.assets)
        return PriceRequest(self.price.amount, self.price.currency, assets)

    def request(self) -> PaymentRequest:
        """Return it as the service takes it."""
        return PaymentRequest(
            of=self._of(),
            expires_in=timedelta(seconds=self.expires_in),
            confirmations=self.confirmations,
            tolerance_bps=self.underpayment_tolerance,
            order_id=self.order_id,
            customer_email=self.customer_email,
            metadata=self.metadata,
            webhook_url=self.webhook_url,
        )


class PaymentPath(Path):
    """Which payment."""

    payment_id: str = Field(pattern=_PAYMENT_ID, description="The payment's id.")


class PaymentQuery(Page):
    """Which payments, newest first."""

    starting_after: str | None = Field(
        default=None, pattern=_PAYMENT_ID, description="The `next_cursor` of the page before."
    )
    status: Literal["pending", "detected", "confirmed", "settled", "expired", "canceled"] | None = Field(
        default=None, description="Only payments that have this status."
    )
    chain: Text | None = Field(default=None, max_length=32, description="Only payments on the chain of this name.")
    order_id: Text | None = Field(default=None, max_length=255, description="Only payments with this `order_id`.")
    created_after: Moment | None = Field(default=None, description="Only payments created later than this.")
    created_before: Moment | None = Field(default=None, description="Only payments created earlier than this.")


class TransferQuery(Page):
    """Which transfers, oldest block first."""

    starting_after: str | None = Field(
        default=None, pattern=f"^trf_{ULID}$", description="The `next_cursor` of the page before."
    )


class Payment(Outgoing):
    """An amount of one asset, asked for at an address of its own."""

    id: str = Field(description="Its id.", pattern=_PAYMENT_ID)
    object: Literal["payment"] = Field(description="Always `payment`.")
    status: Status = Field(
        description="`detected`: the full amount is in blocks; `confirmed`: it is final, ship the goods; `settled`: it "
        "reached the treasury. A chain reorganisation can lead back to an earlier one, with `payment.reverted`."
    )
    amount_status: AmountStatus = Field(description="What arrived in the asset asked for, against the amount.")
    timing: Timing | None = Field(
        description="Whether the amount was complete by `expires_at`, by the time of the completing block; null before."
    )
    settlement: Settlement = Field(description="How far its money is on the way to the treasury.")
    version: int = Field(description="Counts the stored changes; each has one event with the same number.")
    chain: str | None = Field(description="The chain's name; null until an asset was chosen for a price.")
    chain_id: int | None = Field(description="The chain's EIP-155 id; null until an asset was chosen.")
    token: str | None = Field(description="The token's symbol; null for the chain's own coin, and until one is chosen.")
    token_address: str | None = Field(description="The token's contract; null for the chain's own coin.")
    decimals: int | None = Field(description="How many decimals the asset has; null until one was chosen.")
    amount: str | None = Field(description="What is asked for, in the asset's units; null until one was chosen.")
    amount_atomic: str | None = Field(description="The same in base units.")
    received: str = Field(description="What is in canonical blocks, in the asset's units.")
    received_atomic: str = Field(description="The same in base units.")
    confirmed: str = Field(description="The part of it that is final.")
    confirmed_atomic: str = Field(description="The same in base units.")
    address: str = Field(description="Where to pay. It belongs to this payment alone and is watched for ever.")
    payment_uri: str | None = Field(description="An EIP-681 link for the chain's own coin; null for tokens.")
    checkout_url: str | None = Field(description="A page for the payer, where there is one.")
    confirmations: int = Field(description="Those of the transfer that completes the amount.")
    confirmations_required: int | None = Field(description="How many make it final; null until an asset was chosen.")
    price: ShownPrice | None = Field(description="What it costs, where a price was asked for.")
    assets: list[Asset] | None = Field(description="Those that may be chosen for the price; they share the address.")
    quote: LockedQuote | None = Field(description="The rate of the choice; null until an asset was chosen for a price.")
    order_id: str | None = Field(description="Your own name for it.")
    customer_email: str | None = Field(description="The buyer.")
    metadata: dict[str, str | int | float | bool] = Field(description="Your own keys and values.")
    webhook_url: str | None = Field(description="Where this payment's events are posted.")
    created_at: str = Field(description="When it was created (RFC 3339, UTC).")
    expires_at: str = Field(
        description="By when the amount is to be complete. The choice of an asset moves it to the end of its quote."
    )
    detected_at: str | None = Field(description="When the full amount was first seen in blocks.")
    confirmed_at: str | None = Field(description="When the full amount became final.")
    settled_at: str | None = Field(description="When its money had reached the treasury for good.")


class PaymentList(ListOf[Payment]):
    """A page of payments."""


class Transfer(Outgoing):
    """Coin or tokens that reached a payment's address in a block."""

    id: str = Field(description="Its id.", pattern=f"^trf_{ULID}$")
    object: Literal["transfer"] = Field(description="Always `transfer`.")
    payment_id: str = Field(description="The payment whose address it reached.", pattern=_PAYMENT_ID)
    chain: str = Field(description="The chain that it happened on.")
    chain_id: int = Field(description="The chain's EIP-155 id.")
    token: str | None = Field(description="The token's symbol; null for the chain's own coin.")
    token_address: str | None = Field(description="The token's contract; null for the chain's own coin.")
    amount: str = Field(description="In the asset's units.")
    amount_atomic: str = Field(description="In base units.")
    sender: str | None = Field(
        alias="from", description="Who sent it; null of coin that a contract sent, where no node tells."
    )
    to: str = Field(description="The payment's address.")
    tx_hash: str | None = Field(description="The transaction; null of coin that a contract sent, where no node tells.")
    log_index: int = Field(description="Its log's index in the block; -1 for a transfer of coin, which has no log.")
    block_number: int = Field(description="The block.")
    block_hash: str = Field(description="The block's hash.")
    block_time: str = Field(description="The block's time (RFC 3339, UTC).")
    source: Source = Field(description="What told us of it.")
    counts: bool = Field(description="Whether it counts towards the payment.")
    reason: Reason | None = Field(description="Why it does not count.")
    status: TransferStatus = Field(description="`final`: deep enough; `orphaned`: a reorganisation took its block.")
    confirmations: int = Field(description="How many blocks hold it or follow it.")


class TransferList(ListOf[Transfer]):
    """A page of transfers."""
