"""Which blocks were read, for which asset: ranges of blocks with the hashes at their edges, and what they leave out."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ctrip.domain.addresses import NATIVE, checksum_address, hex_text
from ctrip.domain.scanning import BlockRange
from ctrip.domain.times import timestamp

SKEW = timedelta(minutes=15)
"""How far the clocks of chain and database may be apart: what began at a moment is looked for so long before it."""
SEPARATOR = ", "
"""Stands between the labels of several endpoints."""


@dataclass(frozen=True)
class Covered:
    """Blocks that were read, whole or for one asset, each linked to the next.

    `parent_hash` is that of the first block, `last_hash` is the last block's own: where one range follows another, the
    two are equal. `endpoint` is the label of the node that told of them, several with commas between them.
    """

    blocks: BlockRange
    parent_hash: bytes
    last_hash: bytes
    endpoint: str
    first_read_at: datetime
    last_read_at: datetime


def joined(earlier: Covered, later: Covered) -> Covered:
    """Return one range of two of which the later goes on where the earlier ends."""
    labels = {*earlier.endpoint.split(SEPARATOR), *later.endpoint.split(SEPARATOR)}
    return Covered(
        blocks=BlockRange(earlier.blocks.first, later.blocks.last),
        parent_hash=earlier.parent_hash,
        last_hash=later.last_hash,
        endpoint=SEPARATOR.join(sorted(labels)),
        first_read_at=min(earlier.first_read_at, later.first_read_at),
        last_read_at=max(earlier.last_read_at, later.last_read_at),
    )


def gaps(covered: Iterable[BlockRange], within: BlockRange) -> list[BlockRange]:
    """Return the blocks of `within` that no range covers, oldest first. The ranges may overlap, in any order."""
    found: list[BlockRange] = []
    following = within.first
    for blocks in sorted(covered, key=lambda each: each.first):
        if blocks.first > within.last:
            break
        if blocks.first > following:
            found.append(BlockRange(following, blocks.first - 1))
        following = max(following, blocks.last + 1)
    if following <= within.last:
        found.append(BlockRange(following, within.last))
    return found


def union(ranges: Iterable[BlockRange]) -> list[BlockRange]:
    """Return the same blocks in as few ranges as can be, oldest first."""
    found: list[BlockRange] = []
    for blocks in sorted(ranges, key=lambda each: each.first):
        if found and blocks.first <= found[-1].last + 1:
            found[-1] = BlockRange(found[-1].first, max(found[-1].last, blocks.last))
        else:
            found.append(blocks)
    return found


@dataclass(frozen=True)
class AssetCoverage:
    """What was read of one asset, and which blocks since the first one that matters were not."""

    symbol: str
    token: bytes
    covered: tuple[Covered, ...]
    unread: tuple[BlockRange, ...]


@dataclass(frozen=True)
class ChainCoverage:
    """What was read of a chain from `first_block`, before which no address was issued, to `read_block`.

    Reading began after `start_block`; of what lies before, only what an operator asks for is read. Where not
    `is_first_known`, nobody knows when the first block was, and it is the first one that was read. Where it
    `has_witness`, the chain has more endpoints than one.
    """

    chain: str
    first_block: int
    is_first_known: bool
    start_block: int
    read_block: int
    assets: tuple[AssetCoverage, ...]
    has_witness: bool = True

    @property
    def is_whole(self) -> bool:
        """True where it is known that no block lacks for any asset."""
        return self.is_first_known and not any(asset.unread for asset in self.assets)


def in_words(of: ChainCoverage) -> list[str]:
    """Say which blocks were not read, and what to do about it; or that there are none."""
    said = [
        f"{asset.symbol} lacks {unread_in_words(of.chain, gap, is_filled=gap.first > of.start_block)}"
        for asset in of.assets
        for gap in asset.unread
    ]
    every = f"every block of {of.chain} from {of.first_block} to {of.read_block} was read for every asset"
    if not said:
        said.append(f"no gap: {every}" if of.is_first_known else every)
    if not of.is_first_known:
        unknown = f"whether a payment may be in a block before {of.first_block} is not known"
        said.append(f"{unknown}: no node of {of.chain} told when that block was, or several do not agree")
    if not of.has_witness:
        said.append("one endpoint alone told of it: what that left out nobody else can say; list a second in rpc_urls")
    return said


def unread_in_words(chain: str, gap: BlockRange, *, is_filled: bool = True) -> str:
    """Name blocks that were not read, and what reads them now; by itself, where the gap `is_filled` so."""
    blocks = f"block {gap.first}" if len(gap) == 1 else f"blocks {gap.first} to {gap.last}"
    by_itself = (
        "a backfill reads them, or at once" if is_filled else "the chain began after that, so this alone reads them"
    )
    return f"{blocks}; {by_itself}: ctrip rescan {chain} --from {gap.first} --to {gap.last}"


def covered_object(of: Covered) -> dict[str, object]:
    """Render a range as operators see it."""
    return {
        "first_block": of.blocks.first,
        "last_block": of.blocks.last,
        "endpoint": of.endpoint,
        "first_read_at": timestamp(of.first_read_at),
        "last_read_at": timestamp(of.last_read_at),
        "parent_hash": hex_text(of.parent_hash),
        "last_hash": hex_text(of.last_hash),
    }


def coverage_object(of: ChainCoverage) -> dict[str, object]:
    """Render what was read of a chain as operators see it."""
    return {
        "chain": of.chain,
        "first_block": of.first_block,
        "first_block_is_known": of.is_first_known,
        "read_block": of.read_block,
        "assets": [
            {
                "symbol": asset.symbol,
                "token_address": None if asset.token == NATIVE else checksum_address(asset.token),
                "covered": [covered_object(each) for each in asset.covered],
                "unread": [[gap.first, gap.last] for gap in asset.unread],
            }
            for asset in of.assets
        ],
        "in_words": in_words(of),
    }
