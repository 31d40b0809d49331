"""Merchants and keys as operators write and read them."""

from typing import Literal

from pydantic import Field

from ctrip.domain.merchants import LONGEST_OVERLAP, MOST_NETWORKS, OVERLAP, Scope
from ctrip.web.schemas import AFTER, ULID, Incoming, ListOf, Moment, Outgoing, Page, Path, Text

_MERCHANT_ID = f"^mer_{ULID}$"
_KEY_ID = f"^key_{ULID}$"


class CreateMerchant(Incoming):
    """A merchant to be."""

    name: Text = Field(min_length=1, max_length=200, description="What people call it.", examples=["A shop"])
    email: Text | None = Field(
        default=None, max_length=254, description="Where its mail goes.", examples=["owner@shop.example"]
    )
    underpayment_tolerance: int = Field(
        default=0,
        ge=0,
        le=9_999,
        description="Basis points of an amount that may be missing, unless a payment says so.",
    )


class CreatedMerchant(Outgoing):
    """A new merchant, with what is shown this once."""

    id: str = Field(description="Its id.", pattern=_MERCHANT_ID)
    webhook_secret: str = Field(description="Verifies its webhooks (Standard Webhooks). It is not shown again.")


class CreateKey(Incoming):
    """A key to be."""

    merchant_id: str | None = Field(
        default=None, pattern=_MERCHANT_ID, description="Whose key it is; null or absent: an operator's."
    )
    scopes: list[Literal["payments:read", "payments:write", "webhooks:read", "webhooks:write", "admin"]] = Field(
        min_length=1,
        max_length=8,
        description="What it may do. `admin` is an operator's alone, and an operator's only one.",
        examples=[["admin"]],
    )
    expires_at: Moment | None = Field(default=None, description="When it stops working; null or absent: never.")
    allowed_ips: list[Text] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_NETWORKS,
        description="Addresses, or networks in CIDR notation, that it may be used from; null or absent: anywhere.",
        examples=[["203.0.113.0/24", "2001:db8::7"]],
    )


class RotateKey(Incoming):
    """A key to take the place of another one."""

    expires_at: Moment | None = Field(
        default=None, description="When it stops working; null or absent: it lives as long as the other was made for."
    )
    allowed_ips: list[Text] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_NETWORKS,
        description="Addresses, or networks in CIDR notation, that it may be used from; null or absent: those of the "
        "other. From anywhere again: `0.0.0.0/0` and `::/0`.",
        examples=[["203.0.113.0/24"]],
    )
    overlap_seconds: int = Field(
        default=int(OVERLAP.total_seconds()),
        ge=0,
        le=int(LONGEST_OVERLAP.total_seconds()),
        description="For how long the other one works on, if it does not end before; 0: it ends at once.",
    )


class CreatedKey(Outgoing):
    """A new key, with what is shown this once."""

    id: str = Field(description="Its id.", pattern=_KEY_ID)
    key: str = Field(description="Send it as `Authorization: Bearer sk_…`. It is not shown again.")


class ApiKey(Outgoing):
    """A key without its secret."""

    id: str = Field(description="Its id.", pattern=_KEY_ID)
    object: Literal["api_key"] = Field(description="Always `api_key`.")
    merchant_id: str | None = Field(description="Whose key it is; null: an operator's.")
    scopes: list[Scope] = Field(description="What it may do.")
    created_at: str = Field(description="When it was made (RFC 3339, UTC).")
    expires_at: str | None = Field(description="When it stops working.")
    revoked_at: str | None = Field(description="When it was revoked.")
    last_used_at: str | None = Field(description="When it was last used, within five minutes.")
    allowed_ips: list[str] | None = Field(description="The networks that it may be used from; null: anywhere.")
    replaced_by: str | None = Field(description="The key that took its place; both work until this one expires.")


class ApiKeyList(ListOf[ApiKey]):
    """A page of keys."""


class KeyPath(Path):
    """Which key."""

    key_id: str = Field(pattern=_KEY_ID, description="The key's id.")


class KeyQuery(Page):
    """Which keys, newest first."""

    starting_after: str | None = Field(default=None, pattern=_KEY_ID, description=AFTER)
    merchant_id: str | None = Field(default=None, pattern=_MERCHANT_ID, description="Only keys of this merchant.")
