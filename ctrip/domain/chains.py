"""Chains and tokens as they are configured: rows of chains.yaml, checked and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from ctrip.domain.addresses import NATIVE
from ctrip.domain.finality import Finality, FinalityRule, Tier


@dataclass(frozen=True)
class Token:
    """An asset of a chain; the native coin has the address NATIVE. `threshold` is in base units.

    `tiers` are in the order of their amounts, and none asks for less than the one before or the chain. `rate_names` are
    the names by which sources of rates know it, by source; without any it has no price in a currency.
    """

    symbol: str
    address: bytes
    decimals: int
    enabled: bool = True
    threshold: int = 0
    fee_on_transfer: bool = False
    rebasing: bool = False
    tiers: tuple[Tier, ...] = ()
    rate_names: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_native(self) -> bool:
        """True for the chain's own coin."""
        return self.address == NATIVE

    @property
    def is_payable(self) -> bool:
        """True where a payment may ask for it: what arrives is what was sent, and stays so."""
        return self.enabled and not self.fee_on_transfer and not self.rebasing


@dataclass(frozen=True)
class SweepRules:
    """How much a sweep on this chain may cost. `max_fee` is wei per gas."""

    max_fee: int
    bump_after: timedelta = timedelta(seconds=60)


@dataclass(frozen=True)
class Chain:
    """One EVM chain. `tokens` holds the native coin first, then every listed ERC-20.

    `reorg_window` and `confirmations` are counts of blocks; `poll` is the time between two reads at the head. From
    block `native_logs_from` on each transfer of coin has a log (EIP-7708).
    """

    name: str
    chain_id: int
    enabled: bool
    rpc_urls: tuple[str, ...]
    ws_urls: tuple[str, ...]
    confirmations: int
    reorg_window: int
    poll: timedelta
    treasury: bytes
    sweep: SweepRules
    tokens: tuple[Token, ...]
    finality: Finality = Finality.CONFIRMATIONS
    native_logs_from: int | None = None

    @property
    def rule(self) -> FinalityRule:
        """What is final on this chain, where no tier of an asset asks for more."""
        return FinalityRule(self.finality, self.confirmations)

    def rule_for(self, token: Token, amount: int) -> FinalityRule:
        """Return what makes `amount` base units of one of its assets final: the highest tier that they exceed."""
        exceeded = (tier.rule for tier in reversed(token.tiers) if amount > tier.above)
        return next(exceeded, self.rule)

    def asks_for(self, finality: Finality) -> bool:
        """True where something on this chain is only final by this word of the node."""
        rules = (self.rule, *(tier.rule for token in self.tokens for tier in token.tiers))
        return any(rule.finality is finality for rule in rules)

    def logs_coin(self, block: int) -> bool:
        """True where a block's logs tell of all coin that moved in it, and its transactions need not (EIP-7708)."""
        return self.native_logs_from is not None and block >= self.native_logs_from

    @property
    def assets(self) -> tuple[bytes, ...]:
        """The addresses of all that it lists, NATIVE for the coin."""
        return tuple(token.address for token in self.tokens)

    @property
    def contracts(self) -> tuple[bytes, ...]:
        """The addresses of its listed tokens."""
        return tuple(token.address for token in self.tokens if not token.is_native)

    @property
    def native(self) -> Token:
        """The chain's own coin."""
        return self.tokens[0]

    def token(self, name: str | None) -> Token | None:
        """Find a listed asset by symbol or contract address in any case; None as name is the native coin."""
        if name is None:
            return self.native
        wanted = name.lower()
        for token in self.tokens:
            spellings = {token.symbol.lower()}
            if not token.is_native:
                spellings.add("0x" + token.address.hex())
            if wanted in spellings:
                return token
        return None

    def token_at(self, address: bytes) -> Token | None:
        """Find a listed asset by its contract address, or the native coin by NATIVE."""
        return next((token for token in self.tokens if token.address == address), None)
