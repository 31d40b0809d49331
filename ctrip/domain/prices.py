"""What a payment asks for: an amount of one asset, or a price in money of a state until somebody chooses an asset.

    price, accepted assets ──choose──> asset, rate ──> amount, rounded up to base units; locked until `expires_at`

All accepted assets share the payment's address. What came before the choice does not count, whatever is chosen then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from ctrip.domain.addresses import NATIVE, checksum_address
from ctrip.domain.chains import Chain, Token
from ctrip.domain.finality import Finality, FinalityRule
from ctrip.domain.rates import Rate, plain
from ctrip.domain.times import timestamp

SLOT = timedelta(seconds=15)
"""A block has the time at which its making began: what was sent after that may still be in it."""


@dataclass(frozen=True)
class Asked:
    """An amount, in base units of `token`, on one chain: final by `required` confirmations and the word `finality`."""

    chain_id: int
    chain: str
    token: bytes
    symbol: str
    decimals: int
    amount: int
    required: int
    finality: Finality

    @property
    def rule(self) -> FinalityRule:
        """What makes its money final."""
        return FinalityRule(self.finality, self.required)


@dataclass(frozen=True)
class Accepted:
    """An asset that may be chosen. `required` and `finality` are what makes a block of its chain final here."""

    chain_id: int
    chain: str
    token: bytes
    symbol: str
    decimals: int
    required: int
    finality: Finality

    def asking(self, amount: int) -> Asked:
        """Return what asks for an amount of it, in base units."""
        return Asked(amount=amount, **vars(self))

    def stored(self) -> dict[str, Any]:
        """Return it as JSON that `accepted` reads."""
        return vars(self) | {"token": self.token.hex()}


def asset_of(chain: Chain, token: Token, rule: FinalityRule) -> Accepted:
    """Return an asset as it is configured, to be final by a rule."""
    return Accepted(
        chain_id=chain.chain_id,
        chain=chain.name,
        token=token.address,
        symbol=token.symbol,
        decimals=token.decimals,
        required=rule.confirmations,
        finality=rule.finality,
    )


@dataclass(frozen=True)
class Price:
    """`price` units of `currency` (ISO 4217), and the accepted assets as they are stored."""

    price: Decimal
    currency: str
    assets: Sequence[Mapping[str, Any]]

    @property
    def accepted(self) -> tuple[Accepted, ...]:
        """The assets that may be chosen, in the merchant's order."""
        return tuple(
            Accepted(**{**each, "token": bytes.fromhex(each["token"]), "finality": Finality(each["finality"])})
            for each in self.assets
        )


@dataclass(frozen=True)
class Choice:
    """When an asset was chosen, after which block time money counts since, and at which rate.

    `quote` is JSON as clients see it: `rate` (units of the currency for one whole coin or token), the `sources` that it
    was taken from with their own rates and times, and `as_of`, the time of the oldest of these.
    """

    chosen_at: datetime
    counts_after: datetime
    quote: Mapping[str, Any]


def counts_after(chosen_at: datetime, *, stored: datetime | None) -> datetime:
    """Return the block time after which money counts: what was stored by then, the newest of time `stored`, does not.

    Nor does what was in blocks that nobody had read yet.
    """
    return max(chosen_at - SLOT, stored or chosen_at - SLOT)


def quote_of(rate: Rate) -> dict[str, Any]:
    """Return a rate as a choice keeps it."""
    sources = [{"source": each.source, "rate": plain(each.rate), "as_of": timestamp(each.as_of)} for each in rate.told]
    return {"rate": plain(rate.rate), "as_of": timestamp(rate.as_of), "sources": sources}


def price_object(price: Price) -> dict[str, object]:
    """Render a price as clients see it."""
    return {"amount": format(price.price, "f"), "currency": price.currency}


def asset_object(asset: Accepted) -> dict[str, object]:
    """Render an accepted asset as clients see it."""
    native = asset.token == NATIVE
    return {
        "chain": asset.chain,
        "chain_id": asset.chain_id,
        "token": None if native else asset.symbol,
        "token_address": None if native else checksum_address(asset.token),
        "decimals": asset.decimals,
    }


def quote_object(choice: Choice) -> dict[str, object]:
    """Render the locked rate as clients see it. `age_seconds` is how old it was when it was locked."""
    age = choice.chosen_at - datetime.fromisoformat(choice.quote["as_of"])
    return {
        **choice.quote,
        "age_seconds": max(0, round(age.total_seconds())),
        "locked_at": timestamp(choice.chosen_at),
    }
