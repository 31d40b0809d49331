"""What addresses must hold by the rows: all that came, less what sweeps took and spent."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.batches import is_among
from ctrip.database.intents import OVER
from ctrip.database.models import sweep_intents, transfers
from ctrip.domain.addresses import NATIVE
from ctrip.domain.inflows import Place
from ctrip.domain.sweeps import IntentKind, IntentState
from ctrip.domain.transfers import TransferStatus

_of = sweep_intents.c
_IS_SIGNED = _of.nonce.is_not(None)


@dataclass(frozen=True)
class Holding:
    """The base units that an address must hold by the rows."""

    address: bytes
    token: bytes
    amount: int


def holdings(session: Connection, chain_id: int, places: Collection[Place]) -> list[Holding]:
    """Return what addresses must hold after a block, by token. Nothing is said where the rows know of nothing.

    A sweep that is mined, and not yet judged, counts as one that moved its amount.
    """
    at, t = _places(places), transfers.c
    arrived = sa.and_(
        t.chain_id == chain_id,
        t.recipient == at.c.address,
        t.block_number <= at.c.block,
        t.status != TransferStatus.ORPHANED,
    )
    came = sa.select(t.recipient.label("address"), t.token, t.amount).join_from(at, transfers, arrived)
    mined = sa.and_(
        _of.chain_id == chain_id,
        _of.kind == IntentKind.SWEEP,
        _of.address == at.c.address,
        _of.mined_block <= at.c.block,
    )
    swept = sa.select(_of.address, _of.token, -_of.amount).join_from(at, sweep_intents, mined)
    gas = sa.select(_of.address, sa.literal(NATIVE, sa.LargeBinary), -_of.gas_cost).join_from(at, sweep_intents, mined)
    moved = sa.union_all(came, swept.where(_of.state != IntentState.FAILED), gas).subquery()
    query = sa.select(moved.c.address, moved.c.token, sa.func.sum(moved.c.amount))
    rows = session.execute(query.group_by(moved.c.address, moved.c.token))
    return [Holding(row[0], row[1], int(row[2])) for row in rows]


def coin_at(session: Connection, chain_id: int, places: Collection[Place]) -> dict[bytes, int]:
    """Return the wei that each address must hold. One whose money is in motion is left out: it cannot be said."""
    known = {each.address: each.amount for each in holdings(session, chain_id, places) if each.token == NATIVE}
    moving = in_motion(session, chain_id, [place.address for place in places])
    return {address: known.get(address, 0) for address, _ in places if address not in moving}


def in_motion(session: Connection, chain_id: int, addresses: Sequence[bytes]) -> set[bytes]:
    """Return the addresses with a transaction of ours, from them or to them, that is signed and not yet judged."""
    here = is_among(_of.address, addresses)
    query = sa.select(_of.address).where(_of.chain_id == chain_id, here, _IS_SIGNED, _of.state.not_in(OVER))
    return set(session.scalars(query))


def untouched(session: Connection, chain_id: int, addresses: Sequence[bytes]) -> set[bytes]:
    """Return the addresses that no transaction of ours was ever signed for."""
    here = is_among(_of.address, addresses)
    touched = session.scalars(sa.select(_of.address).where(_of.chain_id == chain_id, here, _IS_SIGNED))
    return set(addresses) - set(touched)


def _places(places: Collection[Place]) -> Any:
    addresses = sa.bindparam("at", [place.address for place in places], type_=pg.ARRAY(sa.LargeBinary))
    blocks = sa.bindparam("blocks", [place.block for place in places], type_=pg.ARRAY(sa.BigInteger))
    columns = (sa.column("address", sa.LargeBinary), sa.column("block", sa.BigInteger))
    return sa.func.unnest(addresses, blocks).table_valued(*columns).render_derived(name="places")
