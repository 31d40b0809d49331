"""What blocks that are read again are compared with, and whether they are those that the listener has read."""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import cursors
from ctrip.database.batches import is_among
from ctrip.database.models import chain_cursors, coverage, payments, transfers
from ctrip.database.superseding import supersede
from ctrip.database.transfers import of_sightings, store, transfer_of
from ctrip.domain.addresses import hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.ids import Prefix
from ctrip.domain.rereading import difference
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import Sighting, Source, Transfer, TransferStatus
from ctrip.errors import BlockVanished


def first_issued_at(session: Connection) -> datetime | None:
    """Return when the first address was issued, for whatever chain: it is watched on all of them. None: none was."""
    # Ids are in the order of time.
    return session.scalar(sa.select(payments.c.created_at).order_by(payments.c.id).limit(1))


def issued_addresses(session: Connection, *, most: int) -> list[bytes] | None:
    """Return every address that was issued; None where they are more than `most`."""
    found = list(session.scalars(sa.select(payments.c.address).limit(most + 1)))
    return None if len(found) > most else found


def readable(session: Connection, chain: Chain, *, numbers: Collection[int]) -> list[Transfer]:
    """Return the canonical transfers in these blocks that reading them shows: of what is listed now, by transaction."""
    of = transfers.c
    query = sa.select(transfers).where(
        of.chain_id == chain.chain_id,
        of.block_number.in_(numbers),
        of.status != TransferStatus.ORPHANED,
        of.source != Source.INTERNAL,
        of.token.in_(chain.assets),
    )
    return [transfer_of(row) for row in session.execute(query)]


def store_missing(
    session: Connection,
    chain: Chain,
    there: Iterable[tuple[str, Sequence[Sighting]]],
    *,
    instead_of: Sequence[Transfer],
    new_id: Callable[[Prefix], str],
) -> list[Transfer]:
    """Store what the rows lack of what is `there`, by the endpoint that shows it, where nothing stands in its place.

    `instead_of` was orphaned just now, and is no transfer. Returns what was stored.
    """
    came: list[Transfer] = []
    for endpoint, told in there:
        numbers = {each.block_number for each in told}
        missing = difference(readable(session, chain, numbers=numbers), told, blocks=numbers).missing
        elsewhere = {row.tx_hash for row in _elsewhere(session, chain, missing)}
        free = [each for each in missing if each.tx_hash not in elsewhere]
        came += store(session, of_sightings(session, chain, free, endpoint=endpoint, new_id=new_id))
    supersede(session, came, instead_of=instead_of, new_id=new_id)
    return came


def check_canonical(session: Connection, chain: Chain, headers: Sequence[Header]) -> list[Header]:
    """Raise BlockVanished unless the listener has read these very blocks, or they are older than all that it keeps.

    Returns those of the older ones that are others by what is stored: by the edges of what was read, or a transfer.
    """
    kept = {header.number: header.hash for header in cursors.headers(session, chain.chain_id)}
    for header in headers:
        known = kept.get(header.number)
        if known != header.hash and (known is not None or header.number > min(kept, default=0)):
            raise BlockVanished(f"block {header.number} of {chain.name} is not the one that the listener read")
    older = [header for header in headers if header.number not in kept]
    hashes = _known_hashes(session, chain.chain_id, [header.number for header in older])
    return [header for header in older if hashes.get(header.number, {header.hash}) != {header.hash}]


def check_not_elsewhere(session: Connection, chain: Chain, missing: Sequence[Sighting]) -> None:
    """Raise BlockVanished where a transaction was borne out in another block already: it can be in one alone."""
    for row in _elsewhere(session, chain, missing):
        raise BlockVanished(f"{hex_text(row.tx_hash)} of {chain.name} was read in block {row.block_number} before")


def begin_earlier(session: Connection, chain_id: int, *, start_block: int) -> None:
    """Note that the blocks after `start_block` were read too, all of them."""
    earlier = sa.update(chain_cursors).where(
        chain_cursors.c.chain_id == chain_id, chain_cursors.c.start_block > start_block
    )
    session.execute(earlier.values(start_block=start_block))


def _elsewhere(session: Connection, chain: Chain, told: Sequence[Sighting]) -> list[sa.Row[Any]]:
    """Return the transfers of the same transactions that stand in other blocks and were borne out there."""
    of, blocks = transfers.c, {each.tx_hash: each.block_hash for each in told}
    standing: sa.Select[Any] = sa.select(of.tx_hash, of.block_hash, of.block_number).where(
        of.chain_id == chain.chain_id,
        is_among(of.tx_hash, blocks),
        of.status != TransferStatus.ORPHANED,
        of.is_verified,
    )
    return [row for row in session.execute(standing) if row.block_hash != blocks[row.tx_hash]] if blocks else []


def _known_hashes(session: Connection, chain_id: int, numbers: Collection[int]) -> dict[int, set[bytes]]:
    """Return what is stored of the hashes of blocks that are older than all headers kept."""
    read, of = coverage.c, transfers.c
    query = sa.union(
        sa.select(read.last_block, read.last_hash).where(read.chain_id == chain_id, read.last_block.in_(numbers)),
        sa.select(read.first_block - 1, read.parent_hash).where(
            read.chain_id == chain_id, (read.first_block - 1).in_(numbers)
        ),
        sa.select(of.block_number, of.block_hash).where(
            of.chain_id == chain_id, of.block_number.in_(numbers), of.status != TransferStatus.ORPHANED
        ),
    )
    found: dict[int, set[bytes]] = {}
    for number, block_hash in session.execute(query) if numbers else ():
        found.setdefault(number, set()).add(block_hash)
    return found
