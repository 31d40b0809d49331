"""The state that all processes share, read at one moment: what gauges show."""

from dataclasses import dataclass
from datetime import datetime

from ctrip.context import Context
from ctrip.database import cursors, loops, overview, signers


@dataclass(frozen=True)
class ChainProgress:
    """How far a chain was read. Heights are block numbers; `live_sweeps` counts intents that are not over.

    `gas_balance` is what the gas wallet held when the sweeper last looked, in units of `10 ** -coin_decimals` coins;
    None where it never did.
    """

    chain: str
    head_block: int
    read_block: int
    final_block: int
    live_sweeps: int
    gas_balance: int | None
    coin_decimals: int
    is_stopped: bool

    @property
    def lag_blocks(self) -> int:
        """The blocks that the node has and we did not read."""
        return max(0, self.head_block - self.read_block)


@dataclass(frozen=True)
class Overview:
    """All of it, as one transaction saw it at `taken_at`."""

    taken_at: datetime
    loops: list[loops.Loop]
    chains: list[ChainProgress]
    payments: list[overview.PaymentCount]
    outbox: overview.Outbox
    dead_letters: list[overview.DeadLetters]


def take(ctx: Context) -> Overview:
    """Read the overview. Raises Unavailable."""
    with ctx.sessions.begin() as session:
        read = cursors.find_all(session)
        live_sweeps = overview.count_live_sweeps(session)
        gas_balances = signers.gas_balances(session)
        return Overview(
            taken_at=ctx.now(),
            loops=loops.find_all(session),
            chains=[
                ChainProgress(
                    chain=chain.name,
                    head_block=read[chain.chain_id].head_block,
                    read_block=read[chain.chain_id].read_block,
                    final_block=chain.final_block(read[chain.chain_id].read_block),
                    live_sweeps=live_sweeps.get(chain.chain_id, 0),
                    gas_balance=gas_balances.get(chain.chain_id),
                    coin_decimals=chain.native.decimals,
                    is_stopped=read[chain.chain_id].stopped_reason is not None,
                )
                for chain in ctx.settings.chains
                if chain.chain_id in read
            ],
            payments=overview.count_payments(session),
            outbox=overview.outbox(session),
            dead_letters=overview.open_dead_letters(session),
        )
