"""A client of cTrip, a self-hosted payment processor for EVM chains.

`Client` asks for payments, looks at them, and keeps webhook endpoints; `Webhooks` reads what is posted to you. Amounts
are Decimal, times are aware datetimes, and what fails is a CtripError.
"""

from ctrip_client.client import Client
from ctrip_client.errors import (
    ApiError,
    CtripError,
    InvalidSignature,
    NoAnswer,
    NotThisOrder,
    PaymentEnded,
    TakesTooLong,
)
from ctrip_client.objects import (
    Asset,
    Attempt,
    Chain,
    Coin,
    Delivery,
    Event,
    LockedQuote,
    Payment,
    Price,
    Quote,
    RateSource,
    Token,
    Transfer,
    WebhookEndpoint,
)
from ctrip_client.webhooks import Webhooks

__all__ = [
    "ApiError",
    "Asset",
    "Attempt",
    "Chain",
    "Client",
    "Coin",
    "CtripError",
    "Delivery",
    "Event",
    "InvalidSignature",
    "LockedQuote",
    "NoAnswer",
    "NotThisOrder",
    "Payment",
    "PaymentEnded",
    "Price",
    "Quote",
    "RateSource",
    "TakesTooLong",
    "Token",
    "Transfer",
    "WebhookEndpoint",
    "Webhooks",
]
