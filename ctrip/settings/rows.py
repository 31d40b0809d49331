"""The rows of chains.yaml as they are written. A field's description is what whoever wrote it wrong is told."""

import re
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ctrip.domain.addresses import NATIVE, parse_address
from ctrip.domain.finality import Finality, FinalityRule, Tier
from ctrip.domain.money import parse_amount
from ctrip.errors import InvalidValue

FINALITY = "confirmations, safe or finalized: what makes a block final, besides its confirmations"
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_ZERO = re.compile(r"0(\.0+)?", re.ASCII)


def _address(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("is not in quotes")  # noqa: TRY004 (pydantic reads ValueError alone)
    try:
        return parse_address(value)
    except InvalidValue as error:
        raise ValueError(error.detail) from error


def _plain_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not in quotes, so YAML reads it as a float")  # noqa: TRY004 (pydantic reads ValueError)
    return value


def _url(*schemes: str) -> BeforeValidator:
    def check(value: object) -> str:
        # The value is never shown: providers put their customer's key into it.
        parts = urlsplit(value) if isinstance(value, str) and value.isprintable() and " " not in value else None
        if parts is None or parts.scheme not in schemes or not parts.hostname or (parts.port or 1) < 1:
            raise ValueError(f"is no {' or '.join(schemes)} address")
        return str(value)

    return BeforeValidator(check)


def _place(url: str) -> tuple[object, ...]:
    """Return where a URL leads, however it is written."""
    parts = urlsplit(url)
    port = parts.port or _PORTS[parts.scheme]
    return parts.scheme, parts.username, parts.password, parts.hostname, port, parts.path or "/", parts.query


Address = Annotated[bytes, BeforeValidator(_address)]
AmountText = Annotated[str, BeforeValidator(_plain_text)]
Positive = Annotated[int, Field(strict=True, ge=1)]
NodeUrl = Annotated[str, _url("http", "https")]
SocketUrl = Annotated[str, _url("ws", "wss")]
Symbol = Annotated[str, Field(pattern=r"^\S{1,16}$", description="a symbol of 1 to 16 characters without spaces")]
Decimals = Annotated[int, Field(strict=True, ge=0, le=36, description="the digits after the point, 0 to 36")]
Threshold = Annotated[AmountText, Field(description='the least amount worth a sweep, in quotes, such as "0.001"')]
Switch = Annotated[bool, Field(strict=True, description="true or false")]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RatesRow(_Row):
    """The names by which sources of rates know an asset."""

    kraken: str | None = Field(
        default=None, pattern=r"^[A-Z0-9.]{1,16}$", description="Kraken's own code of the asset, such as ETH"
    )
    coingecko: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$",
        description="CoinGecko's id of the coin, such as ethereum (never its symbol, which many share)",
    )
    static: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9._-]{1,32}$", description="the name that it has in STATIC_RATES, such as ETH"
    )

    @property
    def names(self) -> dict[str, str]:
        """The names that there are, by source."""
        return self.model_dump(exclude_none=True)


Rates = Annotated[RatesRow, Field(description="how sources name it, such as {kraken: ETH, coingecko: ethereum}")]


class NativeRow(_Row):
    """The chain's own coin."""

    symbol: Symbol
    decimals: Decimals
    rates: Rates = RatesRow()


class TierRow(_Row):
    """What larger amounts wait for. What it leaves out is as the tier before it has it, or the chain."""

    above: AmountText = Field(description='the amount that the tier begins above, in quotes, such as "1000"')
    finality: Finality | None = Field(default=None, description=FINALITY)
    confirmations: Positive | None = Field(default=None, description="how many blocks make a payment final, 1 or more")

    @model_validator(mode="after")
    def _asks_for_something(self) -> "TierRow":
        if self.finality is None and self.confirmations is None:
            raise ValueError("needs finality or confirmations: what amounts above it wait for")
        return self


Tiers = Annotated[
    list[TierRow],
    Field(max_length=20, description='what larger amounts wait for, such as [{above: "1000", finality: finalized}]'),
]


class TokenRow(_Row):
    """A listed ERC-20. Its `tiers` stand in place of the chain's."""

    symbol: Symbol
    address: Address = Field(description='the token\'s contract, in quotes: "0x" and 40 hex digits')
    decimals: Decimals
    enabled: Switch = True
    threshold: Threshold = "0"
    fee_on_transfer: Switch = False
    rebasing: Switch = False
    tiers: Tiers | None = None
    rates: Rates = RatesRow()

    @model_validator(mode="after")
    def _hangs_together(self) -> "TokenRow":
        base_units(self.threshold, self.decimals)
        return self


class SweepRow(_Row):
    """What a sweep on this chain may cost."""

    max_fee_gwei: Decimal = Field(
        gt=0, le=1_000_000, decimal_places=9, description="the most that a unit of gas may cost, in gwei"
    )
    threshold: Threshold = "0"
    bump_after_seconds: Positive = Field(
        default=60, description="after how many seconds an unmined sweep is sent again with a higher fee"
    )


class ChainRow(_Row):
    """One chain."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$", description="1 to 32 of a-z, 0-9, - and _")
    chain_id: Annotated[int, Field(strict=True, ge=1, lt=2**63)] = Field(description="the EIP-155 id, 1 for Ethereum")
    enabled: Switch = True
    rpc_url: NodeUrl | None = Field(default=None, description="the node's http(s) address, where there is one alone")
    rpc_urls: list[NodeUrl] = Field(
        default_factory=list, max_length=16, description="the nodes' http(s) addresses in order of preference"
    )
    ws_urls: list[SocketUrl] = Field(
        default_factory=list, max_length=16, description="the nodes' ws(s) addresses, where they have some"
    )
    poa: Switch = False
    native: NativeRow = Field(description='the chain\'s own coin, such as {symbol: "ETH", decimals: 18}')
    confirmations: Positive = Field(description="how many blocks make a payment final, 1 or more")
    reorg_window: Annotated[int, Field(strict=True, ge=1, le=4096)] = Field(
        default=64, description="how many blocks a reorg may take, at least the confirmations and at most 4096"
    )
    finality: Finality = Field(default=Finality.CONFIRMATIONS, description=FINALITY)
    tiers: Tiers = []
    native_logs_from: Annotated[int, Field(strict=True, ge=0)] | None = Field(
        default=None, description="the first block whose coin transfers have logs (EIP-7708), where the chain has them"
    )
    poll_seconds: float = Field(default=1, ge=0.1, le=600, description="the time between two reads, 0.1 to 600")
    treasury: Address = Field(description='the address that sweeps pay to, in quotes: "0x" and 40 hex digits')
    sweep: SweepRow = Field(description='what a sweep may cost, such as {max_fee_gwei: 200, threshold: "0.001"}')
    tokens: list[TokenRow] = Field(default_factory=list, max_length=1000, description="the listed ERC-20 tokens")

    @model_validator(mode="after")
    def _hangs_together(self) -> "ChainRow":
        if bool(self.rpc_urls) == bool(self.rpc_url):
            raise ValueError("needs rpc_urls, the nodes' http(s) addresses in order of preference, or one rpc_url")
        for name, urls in (("rpc_urls", self.rpc_urls), ("ws_urls", self.ws_urls)):
            if len({_place(url) for url in urls}) < len(urls):
                raise ValueError(f"{name} has one address twice: an endpoint cannot bear out what it told itself")
        if self.reorg_window < self.confirmations:
            raise ValueError(f"reorg_window {self.reorg_window} is smaller than confirmations {self.confirmations}")
        base_units(self.sweep.threshold, self.native.decimals)
        self.tiers_of(self.native)
        for token in self.tokens:
            self.tiers_of(token)
        addresses = [NATIVE, *(token.address for token in self.tokens)]
        symbols = [self.native.symbol.lower(), *(token.symbol.lower() for token in self.tokens)]
        if len(set(addresses)) < len(addresses) or len(set(symbols)) < len(symbols):
            raise ValueError("two assets share an address or a symbol, or a token has the zero address")
        if self.treasury in addresses:
            raise ValueError("treasury is the zero address or a token's contract: money sent there is lost")
        return self

    def tiers_of(self, asset: NativeRow | TokenRow) -> tuple[Tier, ...]:
        """Return the tiers of an asset in its base units. Raises ValueError where they are not in order."""
        own = asset.tiers if isinstance(asset, TokenRow) else None
        rows, found = self.tiers if own is None else own, list[Tier]()
        above, rule = 0, FinalityRule(self.finality, self.confirmations)
        for row in rows:
            tier = Tier(
                base_units(row.above, asset.decimals, what=f"tiers of {asset.symbol}"),
                FinalityRule(row.finality or rule.finality, row.confirmations or rule.confirmations),
            )
            place = f"tiers of {asset.symbol}: the one above {row.above}"
            if tier.above <= above and found:
                raise ValueError(f"{place} comes after one that begins no lower: each begins above a larger amount")
            if not tier.rule.covers(rule):
                raise ValueError(f"{place} asks for less than the one before it, or the chain")
            if tier.rule.confirmations > self.reorg_window:
                raise ValueError(f"{place} asks for more confirmations than reorg_window {self.reorg_window}")
            found.append(tier)
            above, rule = tier.above, tier.rule
        return tuple(found)


class ChainsRow(_Row):
    """The whole file."""

    chains: list[ChainRow] = Field(min_length=1, max_length=100, description="the list of 1 to 100 chains")

    @model_validator(mode="after")
    def _rows_differ(self) -> "ChainsRow":
        names = {chain.name for chain in self.chains}
        ids = {chain.chain_id for chain in self.chains}
        if min(len(names), len(ids)) < len(self.chains):
            raise ValueError("two chains share a name or a chain_id")
        return self


def base_units(text: str, decimals: int, *, what: str = "threshold") -> int:
    """Read a threshold or a tier's amount, which unlike one that is asked for may be zero. Raises ValueError."""
    if _ZERO.fullmatch(text):
        return 0
    try:
        return parse_amount(text, decimals)
    except InvalidValue as error:
        raise ValueError(f"{what}: {error.detail}") from error


def sentence_for(field: str) -> str | None:
    """Return what would be right for a field of any row."""
    for row in (ChainRow, TokenRow, TierRow, SweepRow, NativeRow, RatesRow, ChainsRow):
        if field in row.model_fields and row.model_fields[field].description:
            return row.model_fields[field].description
    return None
