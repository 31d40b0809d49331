"""Which blocks of a chain were read, for which asset, when and from which endpoint; and which were not."""

from datetime import datetime, timedelta

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.history import first_block_since
from ctrip.context import Context
from ctrip.database import coverage, cursors, rereading
from ctrip.domain.coverage import AssetCoverage, ChainCoverage, gaps
from ctrip.domain.scanning import BlockRange, Cursor
from ctrip.errors import ChainError, Conflict, NotFound


def report(ctx: Context, name: str) -> ChainCoverage:
    """Tell what was read of a chain since the first address was issued. Raises NotFound, and Conflict: never read."""
    chain = ctx.settings.chain_named(name)
    if chain is None:
        raise NotFound(f"there is no chain {name[:60]!r}; there is {', '.join(c.name for c in ctx.settings.chains)}")
    with ctx.sessions.begin() as session:
        cursor = cursors.find(session, chain.chain_id)
        issued_at = rereading.first_issued_at(session)
        found = [(token, coverage.find(session, chain.chain_id, token.address)) for token in chain.tokens]
    if cursor is None:
        raise Conflict(f"no block of {name} was ever read")
    looked = _first_block(ctx.clients.get(chain.chain_id), cursor, issued_at)
    first = cursor.start_block + 1 if looked is None else looked
    # What lies before the chain's start is another gap than what lies behind it: nothing reads it by itself.
    within = [BlockRange(first, min(cursor.start_block, cursor.read_block))] if first <= cursor.start_block else []
    within.append(BlockRange(max(first, cursor.start_block + 1), cursor.read_block))
    return ChainCoverage(
        chain=name,
        first_block=first,
        is_first_known=looked is not None,
        has_witness=len(chain.rpc_urls) > 1,
        start_block=cursor.start_block,
        read_block=cursor.read_block,
        assets=tuple(
            AssetCoverage(
                token.symbol,
                token.address,
                tuple(covered),
                tuple(gap for part in within for gap in gaps((each.blocks for each in covered), part)),
            )
            for token, covered in found
        ),
    )


def _first_block(client: ChainClient | None, cursor: Cursor, issued_at: datetime | None) -> int | None:
    """Return the first block that can hold a payment: that of the chain's start, or an earlier one if it began late.

    Chains begin at the first address by themselves, those that were read before they did so may not have. None where
    nobody tells: the chain is switched off, its nodes do not answer, have not so old a block, or tell other times.
    """
    start = cursor.start_block
    if issued_at is None:
        return start + 1
    if client is None:
        return None
    try:
        # Nodes without old blocks may have that one.
        if first_block_since(client, issued_at + timedelta.resolution, low=start, high=start) > start:
            return start + 1
        return first_block_since(client, issued_at, low=0, high=start)
    except ChainError:
        return None
