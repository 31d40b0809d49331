"""What blocks that are read again are compared with, and whether they are those that the listener has read."""

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ctrip.database import cursors
from ctrip.database.models import chain_cursors, coverage, payments, transfers
from ctrip.database.transfers import transfer_of
from ctrip.domain.addresses import hex_text
from ctrip.domain.chains import Chain
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import Sighting, Source, Transfer, TransferStatus
from ctrip.errors import BlockVanished


def first_issued_at(session: Session) -> datetime | None:
    """Return when the first address was issued, for whatever chain: it is watched on all of them. None: none was."""
    # Ids are in the order of time.
    return session.scalar(sa.select(payments.c.created_at).order_by(payments.c.id).limit(1))


def issued_addresses(session: Session, *, most: int) -> list[bytes] | None:
    """Return every address that was issued; None where they are more than `most`."""
    found = list(session.scalars(sa.select(payments.c.address).limit(most + 1)))
    return None if len(found) > most else found


def readable(session: Session, chain: Chain, *, numbers: Collection[int]) -> list[Transfer]:
    """Return the canonical transfers in these blocks that reading them shows: of what is listed now, by transaction."""
    of = transfers.c
    query = sa.select(transfers).where(
        of.chain_id == chain.chain_id,
        of.block_number.in_(numbers),
        of.status != TransferStatus.ORPHANED,
        of.source != Source.INTERNAL,
        of.token.in_([token.address for token in chain.tokens]),
    )
    return [transfer_of(row) for row in session.execute(query)]


def check_canonical(session: Session, chain: Chain, headers: Sequence[Header]) -> list[Header]:
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


def check_not_elsewhere(session: Session, chain: Chain, missing: Sequence[Sighting]) -> None:
    """Raise BlockVanished where a transaction stands in another block already: it can be in one alone."""
    of, blocks = transfers.c, {each.tx_hash: each.block_hash for each in missing}
    standing = sa.select(of.tx_hash, of.block_hash, of.block_number).where(
        of.chain_id == chain.chain_id, of.tx_hash.in_(blocks), of.status != TransferStatus.ORPHANED
    )
    for row in session.execute(standing):
        if row.block_hash != blocks[row.tx_hash]:
            raise BlockVanished(f"{hex_text(row.tx_hash)} of {chain.name} was read in block {row.block_number} before")


def begin_earlier(session: Session, chain_id: int, *, start_block: int) -> None:
    """Note that the blocks after `start_block` were read too, all of them."""
    earlier = sa.update(chain_cursors).where(
        chain_cursors.c.chain_id == chain_id, chain_cursors.c.start_block > start_block
    )
    session.execute(earlier.values(start_block=start_block))


def _known_hashes(session: Session, chain_id: int, numbers: Collection[int]) -> dict[int, set[bytes]]:
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
