"""Coin that no transaction explains, as transfers: inferred from a balance, or told by a trace of its block."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import cursors
from ctrip.database import transfers as stored
from ctrip.database.models import transfers
from ctrip.domain.addresses import NATIVE
from ctrip.domain.chains import Chain
from ctrip.domain.ids import Prefix
from ctrip.domain.inflows import Hop
from ctrip.domain.scanning import Header
from ctrip.domain.transfers import INTERNAL_LOG_INDEX, Sighting, Source, Transfer, TransferStatus

_of = transfers.c
_IS_INFERRED = sa.and_(_of.source == Source.INTERNAL, _of.tx_hash.is_(None), _of.status != TransferStatus.ORPHANED)


@dataclass(frozen=True)
class Inflow:
    """Coin that came to an address by `block` and that no row explains: `hops` told by a trace, the rest inferred.

    `endpoint` told of it. It is final when it was looked at again, deep enough.
    """

    address: bytes
    block: Header
    amount: int
    hops: tuple[Hop, ...]
    endpoint: str


def store(
    session: Connection, chain: Chain, inflows: Sequence[Inflow], *, new_id: Callable[[Prefix], str]
) -> list[Transfer]:
    """Store inflows of canonical blocks as transfers. Returns these."""
    owned = stored.owners(session, [inflow.address for inflow in inflows])
    made: list[Transfer] = []
    for inflow in inflows:
        for sighting in _sightings(inflow):
            transfer = stored.sighted(
                chain,
                sighting,
                owner=owned[inflow.address],
                is_own=False,
                endpoint=inflow.endpoint,
                transfer_id=new_id(Prefix.TRANSFER),
            )
            made.append(transfer if sighting.tx_hash else replace(transfer, tx_hash=None, sender=None))
    stored.store(session, made)
    return made


def newest_inferred(session: Connection, chain_id: int, addresses: Sequence[bytes]) -> dict[bytes, int]:
    """Return the block of the newest inferred transfer of each address that has one."""
    query = sa.select(_of.recipient, sa.func.max(_of.block_number)).where(
        _of.chain_id == chain_id, _of.recipient.in_(addresses), _of.token == NATIVE, _IS_INFERRED
    )
    return {address: block for address, block in session.execute(query.group_by(_of.recipient))}


def unverified(session: Connection, chain_id: int, *, head: int, limit: int) -> list[Transfer]:
    """Return internal transfers that are deep at block `head`, and nobody has borne out as yet, oldest first."""
    query = sa.select(transfers).where(
        _of.chain_id == chain_id,
        _of.status == TransferStatus.SEEN,
        _of.source == Source.INTERNAL,
        ~_of.is_verified,
        _of.block_number <= head - _of.required + 1,
    )
    return [stored.transfer_of(row) for row in session.execute(query.order_by(_of.block_number, _of.id).limit(limit))]


def correct_time(session: Connection, chain_id: int, block: Header) -> set[str]:
    """Give a block, and the transfers in it that nobody has borne out, the time that was. Returns their payments."""
    cursors.correct_time(session, chain_id, block)
    in_it = (_of.chain_id == chain_id, _of.block_number == block.number, _of.block_hash == block.hash)
    change = sa.update(transfers).where(*in_it, ~_of.is_verified).values(block_time=block.time)
    return set(session.scalars(change.returning(_of.payment_id)))


def _sightings(inflow: Inflow) -> Iterator[Sighting]:
    """Return what a trace told, and what it left to be inferred: without a transaction."""
    rest = Hop(b"", 0, b"", inflow.address, inflow.amount - sum(hop.amount for hop in inflow.hops))
    for hop in (*inflow.hops, *([rest] if rest.amount else [])):
        yield Sighting(
            block_number=inflow.block.number,
            block_hash=inflow.block.hash,
            block_time=inflow.block.time,
            tx_hash=hop.tx_hash,
            log_index=INTERNAL_LOG_INDEX - hop.position,
            token=NATIVE,
            sender=hop.sender,
            recipient=hop.recipient,
            amount=hop.amount,
        )
