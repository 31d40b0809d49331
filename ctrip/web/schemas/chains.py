"""Chains and what can be asked for on them, as clients read them."""

from typing import Literal

from pydantic import Field

from ctrip.web.schemas import ListOf, Outgoing

_CURRENCIES = "The currencies (ISO 4217) in which a price may be asked that it pays; none where it has no rates."


class Coin(Outgoing):
    """A chain's own coin."""

    symbol: str = Field(description="Its symbol.")
    decimals: int = Field(description="How many decimals it has.")
    currencies: list[str] = Field(description=_CURRENCIES)


class Token(Outgoing):
    """A listed ERC-20."""

    symbol: str = Field(description="Its symbol.")
    address: str = Field(description="Its contract.")
    decimals: int = Field(description="How many decimals it has.")
    payable: bool = Field(description="Whether a payment may ask for it. What is not payable is watched all the same.")
    currencies: list[str] = Field(description=_CURRENCIES)


class Chain(Outgoing):
    """A configured chain, and how far it was read."""

    object: Literal["chain"] = Field(description="Always `chain`.")
    name: str = Field(description="The name that payments use.")
    chain_id: int = Field(description="The EIP-155 id.")
    enabled: bool = Field(description="Whether payments can be created on it.")
    status: Literal["ready", "not_ready", "stopped"] = Field(
        description="`not_ready`: never read yet, creation answers 503; `stopped`: an operator has to look."
    )
    native: Coin = Field(description="The chain's own coin.")
    tokens: list[Token] = Field(description="The listed tokens.")
    confirmations: int = Field(description="How many make a transfer final, unless a payment asks for more.")
    reorg_window: int = Field(description="How deep a reorganisation is followed, in blocks.")
    head_block: int | None = Field(description="The newest block that the node told of.")
    read_block: int | None = Field(description="The newest block that was read.")
    final_block: int | None = Field(description="The newest block that is final.")
    lag_blocks: int | None = Field(description="How many blocks are known but not read.")


class ChainList(ListOf[Chain]):
    """All chains."""
