"""Prices in fiat, the assets that may be chosen for one, and rates, as clients write and read them."""

from typing import Annotated, Literal

from pydantic import Field

from ctrip.services.creating import AssetRequest
from ctrip.web.schemas import Incoming, ListOf, Outgoing, Text

ChainName = Annotated[Text, Field(min_length=1, max_length=32)]
TokenName = Annotated[Text, Field(min_length=1, max_length=64)]
CHAIN_FIELD = "A chain by its name."
ASSET_FIELD = "A listed token by its symbol or contract address; null or absent: the chain's own coin."


class AssetChoice(Incoming):
    """An asset of a chain."""

    chain: ChainName = Field(description=CHAIN_FIELD, examples=["anvil"])
    token: TokenName | None = Field(default=None, description=ASSET_FIELD, examples=["USDC"])

    def request(self) -> AssetRequest:
        """Return it as the service takes it."""
        return AssetRequest(self.chain, self.token)


class AskedPrice(Incoming):
    """A price in money of a state."""

    amount: str = Field(
        min_length=1,
        max_length=200,
        description="A plain decimal in units of the currency, as a string, with no more digits than it has.",
        examples=["49.90"],
    )
    currency: str = Field(
        pattern="^[A-Z]{3}$", description="A currency of ISO 4217 that has rates here.", examples=["EUR"]
    )


class ShownPrice(Outgoing):
    """A price in money of a state."""

    amount: str = Field(description="In units of the currency.")
    currency: str = Field(description="The currency's code (ISO 4217).")


class Asset(Outgoing):
    """An asset of a chain."""

    chain: str = Field(description="The chain's name.")
    chain_id: int = Field(description="The chain's EIP-155 id.")
    token: str | None = Field(description="The token's symbol; null for the chain's own coin.")
    token_address: str | None = Field(description="The token's contract; null for the chain's own coin.")
    decimals: int = Field(description="How many decimals the asset has.")


class RateSource(Outgoing):
    """What one source told."""

    source: str = Field(description="Its name.")
    rate: str = Field(description="Units of the currency for one whole coin or token.")
    as_of: str = Field(description="When it was so, as the source says (RFC 3339, UTC).")


class LockedQuote(Outgoing):
    """The rate at which a price became an amount; it holds until `expires_at` of the payment."""

    rate: str = Field(description="Units of the currency for one whole coin or token: the median of the sources.")
    as_of: str = Field(description="The time of the oldest word that it was taken from.")
    sources: list[RateSource] = Field(description="Who told it.")
    age_seconds: int = Field(description="How old it was when it was locked.")
    locked_at: str = Field(description="When the asset was chosen.")


class Quote(Asset):
    """What an accepted asset would cost just now. Nothing is locked by it."""

    object: Literal["quote"] = Field(description="Always `quote`.")
    amount: str | None = Field(description="In the asset's units, rounded up to the smallest; null without a rate.")
    amount_atomic: str | None = Field(description="The same in base units.")
    rate: str | None = Field(description="Units of the currency for one whole coin or token.")
    as_of: str | None = Field(description="The time of the oldest word that the rate was taken from.")
    unavailable: str | None = Field(description="Why it cannot be chosen just now; null where it can.")


class QuoteList(ListOf[Quote]):
    """The accepted assets, in the merchant's order."""
