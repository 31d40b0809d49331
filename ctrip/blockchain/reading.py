"""Reading a chain: the next blocks after what was read, or after the common ancestor where a reorg took some of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ctrip.blockchain.client import ChainClient
from ctrip.blockchain.decoding import Block
from ctrip.domain.scanning import Header, common_ancestor, is_linked, next_range
from ctrip.domain.transfers import Sighting
from ctrip.errors import BlockVanished, ReorgTooDeep

BLOCKS_PER_STEP = 20

Issued = Callable[[set[bytes]], set[bytes]]
"""Says which of these addresses were issued."""


@dataclass(frozen=True)
class Reading:
    """What one step read. `base` is the block it continues: the newest stored one, or the common ancestor."""

    base: Header
    is_reorg: bool
    head_block: int
    headers: tuple[Header, ...] = ()
    sightings: tuple[Sighting, ...] = ()

    @property
    def tip(self) -> Header:
        """The newest block that was read."""
        return self.headers[-1] if self.headers else self.base


def read_step(
    client: ChainClient, stored: Sequence[Header], *, issued: Issued, keep_lease: Callable[[], None]
) -> Reading:
    """Read the blocks after `stored`, the headers of the reorg window oldest first; BLOCKS_PER_STEP at the most.

    `keep_lease` is called between requests, and may raise.
    Raises ReorgTooDeep, and BlockVanished where the chain moved while it was read.
    """
    head, base = client.head(), stored[-1]
    keep_lease()
    blocks = _blocks_after(client, base, head=head)
    keep_lease()
    if not _continues(blocks, base) or _contradicts(head, stored):
        base = _ancestor(client, stored, head=head)
        blocks = _blocks_after(client, base, head=head)
        keep_lease()
        if not _continues(blocks, base):
            raise BlockVanished(f"{client.chain.name} moved while the blocks after {base.number} were read")
    sightings = _sightings(client, blocks, issued=issued, keep_lease=keep_lease) if blocks else []
    return Reading(
        base=base,
        is_reorg=base != stored[-1],
        head_block=max(head.number, base.number),
        headers=tuple(block.header for block in blocks),
        sightings=tuple(sightings),
    )


def read_blocks(
    client: ChainClient, numbers: Iterable[int], *, issued: Issued, keep_lease: Callable[[], None]
) -> tuple[list[Header], list[Sighting]]:
    """Read single blocks whole, wherever they stand, and return their headers and what they hold for issued addresses.

    Raises BlockVanished where the chain moved while they were read.
    """
    headers: list[Header] = []
    sightings: list[Sighting] = []
    rest = sorted(numbers)
    while rest:
        now, rest = rest[:BLOCKS_PER_STEP], rest[BLOCKS_PER_STEP:]
        blocks = client.blocks(now)
        keep_lease()
        headers += [block.header for block in blocks]
        sightings += _sightings(client, blocks, issued=issued, keep_lease=keep_lease)
    return headers, sightings


def _blocks_after(client: ChainClient, base: Header, *, head: Header) -> list[Block]:
    wanted = next_range(base.number, head.number, most=BLOCKS_PER_STEP)
    return [] if wanted is None else client.blocks(wanted)


def _continues(blocks: Sequence[Block], base: Header) -> bool:
    return is_linked([block.header for block in blocks], parent_hash=base.hash)


def _contradicts(head: Header, stored: Sequence[Header]) -> bool:
    """True where the node's head stands at a height that was read, and is another block.

    A head below ours on our own chain is a node that lags; nothing follows from it.
    """
    return any(header.number == head.number and header.hash != head.hash for header in stored)


def _ancestor(client: ChainClient, stored: Sequence[Header], *, head: Header) -> Header:
    canonical = client.headers(header.number for header in stored)
    ancestor = common_ancestor(stored, {number: header.hash for number, header in canonical.items()})
    if ancestor is None:
        raise ReorgTooDeep(
            f"none of the stored blocks {stored[0].number} to {stored[-1].number} of {client.chain.name} "
            f"is canonical any more; its head is block {head.number}"
        )
    return ancestor


def _sightings(
    client: ChainClient, blocks: Sequence[Block], *, issued: Issued, keep_lease: Callable[[], None]
) -> list[Sighting]:
    """Return every transfer in `blocks` to an issued address: tokens by log, coin by transaction and receipt."""
    tokens = client.token_transfers([block.header for block in blocks])
    keep_lease()
    candidates = {recipient for block in blocks for recipient in block.recipients()}
    ours = issued(candidates | {sighting.recipient for sighting in tokens})
    coin = [sighting for block in blocks for sighting in block.coin_to(ours)]
    receipts = client.receipts([sighting.tx_hash for sighting in coin])
    keep_lease()
    for sighting in coin:
        receipt = receipts.get(sighting.tx_hash)
        if receipt is None or receipt.block_hash != sighting.block_hash:
            raise BlockVanished(f"{client.chain.name} has no receipt in block {sighting.block_number} any more")
    succeeded = [sighting for sighting in coin if receipts[sighting.tx_hash].succeeded]
    return succeeded + [sighting for sighting in tokens if sighting.recipient in ours]
