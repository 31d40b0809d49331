"""What blocks that are read again are compared with, and whether they are those that the listener has read."""

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ctrip.database import cursors
from ctrip.database.models import chain_cursors, payments, transfers
from ctrip.database.transfers import transfer_of
from ctrip.domain.chains import Chain
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import Source, Transfer, TransferStatus
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


def check_canonical(session: Session, chain: Chain, headers: Sequence[Header]) -> None:
    """Raise BlockVanished unless the listener has read these very blocks, or they are older than all that it keeps."""
    kept = {header.number: header.hash for header in cursors.headers(session, chain.chain_id)}
    for header in headers:
        known = kept.get(header.number)
        if known != header.hash and (known is not None or header.number > min(kept, default=0)):
            raise BlockVanished(f"block {header.number} of {chain.name} is not the one that the listener read")


def begin_earlier(session: Session, chain_id: int, *, start_block: int) -> None:
    """Note that the blocks after `start_block` were read too, all of them."""
    earlier = sa.update(chain_cursors).where(
        chain_cursors.c.chain_id == chain_id, chain_cursors.c.start_block > start_block
    )
    session.execute(earlier.values(start_block=start_block))
