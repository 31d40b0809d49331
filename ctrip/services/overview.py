"""The state that all processes share, read at one moment: what gauges show."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ctrip.context import Context
from ctrip.database import coverage, cursors, finality, loops, overview, rates, signers
from ctrip.domain.chains import Chain
from ctrip.domain.coverage import union
from ctrip.domain.rates import survey
from ctrip.settings import Settings


@dataclass(frozen=True)
class ChainProgress:
    """How far a chain was read. Heights are block numbers; `live_sweeps` are the intents that are not over.

    `gas_balance` is what the gas wallet held when the sweeper last looked, in units of `10 ** -coin_decimals` coins;
    None where it never did. `unread_blocks` are those from the chain's start up to what was read that some listed asset
    lacks: it was listed later, and they are still to be read for it. `unverified_transfers` have their confirmations
    and wait for another endpoint to bear them out.
    """

    chain: str
    head_block: int
    read_block: int
    final_block: int
    live_sweeps: overview.LiveSweeps | None
    gas_balance: int | None
    coin_decimals: int
    is_stopped: bool
    unread_blocks: int
    unverified_transfers: int

    @property
    def lag_blocks(self) -> int:
        """The blocks that the node has and we did not read."""
        return max(0, self.head_block - self.read_block)


@dataclass(frozen=True)
class RateHealth:
    """`oldest` is, by source, of when its oldest rate is; where it never told one, since when it fails.

    `unavailable` counts the assets, each in each currency, that have no rate: too few sources agree.
    """

    oldest: dict[str, datetime | None]
    unavailable: int


@dataclass(frozen=True)
class Overview:
    """All of it, as one transaction saw it at `taken_at`.

    `loops` and `chains` are those of the chains that are enabled: the rows of a chain that rests, or is no longer in
    the file, stand still for good.
    """

    taken_at: datetime
    loops: list[loops.Loop]
    chains: list[ChainProgress]
    deliveries: overview.Outbox
    emails: overview.Outbox
    jobs: overview.Outbox
    destinations: overview.Destinations
    dead_letters: list[overview.DeadLetters]
    rates: RateHealth


def take(ctx: Context) -> Overview:
    """Read the overview. Raises Unavailable."""
    enabled = [chain for chain in ctx.settings.chains if chain.enabled]
    now = ctx.now()
    chain_ids = {chain.chain_id for chain in enabled}
    with ctx.sessions.begin() as session:
        read = cursors.find_all(session)
        live_sweeps = overview.live_sweeps(session)
        gas_balances = signers.gas_balances(session)
        unverified = finality.count_unverified(session)
        return Overview(
            taken_at=now,
            loops=[loop for loop in loops.find_all(session) if loop.chain_id in chain_ids],
            chains=[
                ChainProgress(
                    chain=chain.name,
                    head_block=read[chain.chain_id].head_block,
                    read_block=read[chain.chain_id].read_block,
                    final_block=max(0, read[chain.chain_id].final_block(chain.rule)),
                    live_sweeps=live_sweeps.get(chain.chain_id),
                    gas_balance=gas_balances.get(chain.chain_id),
                    coin_decimals=chain.native.decimals,
                    is_stopped=read[chain.chain_id].stopped_reason is not None,
                    unread_blocks=_unread_blocks(session, chain),
                    unverified_transfers=unverified.get(chain.chain_id, 0),
                )
                for chain in enabled
                if chain.chain_id in read
            ],
            deliveries=overview.deliveries(session),
            emails=overview.mails(session),
            jobs=overview.open_jobs(session),
            destinations=overview.destinations(session),
            dead_letters=overview.open_dead_letters(session),
            rates=_rate_health(session, ctx.settings, now),
        )


def _rate_health(session: Connection, settings: Settings, now: datetime) -> RateHealth:
    asked = settings.rate_pairs
    if not asked:
        return RateHealth({}, 0)
    words, states = rates.find_all(session), rates.find_sources(session)
    oldest: dict[str, datetime | None] = {}
    for source, pairs in asked.items():
        told = [words[source, pair].as_of for pair in pairs if (source, pair) in words]
        oldest[source] = min(told, default=states[source].failing_since if source in states else None)
    of = settings.rates
    quoted = survey(words, settings.chains, currencies=of.currencies, policy=of.policy, now=now)
    return RateHealth(oldest, sum(each.rate is None for each in quoted))


def _unread_blocks(session: Connection, chain: Chain) -> int:
    lacking = coverage.unread(session, chain.chain_id, tokens=chain.assets)
    return sum(map(len, union(gap for gaps in lacking.values() for gap in gaps)))


def count_payments(ctx: Context) -> list[overview.PaymentCount]:
    """Count the payments by chain, asset and status. Raises Unavailable. Reads them all: ask seldom."""
    with ctx.sessions.begin() as session:
        return overview.count_payments(session)
