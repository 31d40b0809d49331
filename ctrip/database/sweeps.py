"""What sweeps mean for the money they move: how much lies where, what is owed a sweep, what payments are told.

Statements are built once and executed with parameters: building one takes longer than running it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.batches import array, is_in
from ctrip.database.intents import OVER, UNMINED, attempts_of, read_intent
from ctrip.database.models import payments, sweep_intents, transfers
from ctrip.database.prepared import Prepared, is_one_of
from ctrip.domain.addresses import ADDRESS_BYTES, NATIVE
from ctrip.domain.chains import Chain
from ctrip.domain.ids import Prefix
from ctrip.domain.sweeps import MAX_FAILURES, Attempt, HeldReason, Intent, IntentKind, IntentState
from ctrip.domain.transfers import TransferStatus

PLANNED_AT_ONCE = 200
SLICES = 256
"""All addresses of a chain are looked at once in so many ticks, by their first byte."""


class _Where(StrEnum):
    """Where to look for money that is owed a sweep."""

    LATELY = "lately"
    IN_SLICE = "in_slice"
    AT_ONE = "at_one"


_ZERO = sa.literal(0, sa.Numeric(78, 0))


@dataclass(frozen=True)
class SweepFacts:
    """What the sweeper made of a payment's asset at its address. `covered` is base units that final sweeps took."""

    covered: int = 0
    is_held: bool = False


@dataclass(frozen=True)
class Planned:
    """A sweep that was planned: held from the start where too many before it have failed."""

    intent_id: str
    payment_id: str
    owed: int
    is_held: bool


def facts_of(session: Connection, payment_ids: Sequence[str]) -> dict[str, SweepFacts]:
    """Return the sweep facts of payments, of those alone of which there is more to say than that there were none."""
    rows = _FACTS.rows(session, {"payment_ids": array(payment_ids)})
    return {payment_id: SweepFacts(covered=int(covered), is_held=is_held) for payment_id, covered, is_held in rows}


def revert_after(session: Connection, chain_id: int, number: int) -> set[str]:
    """Take back what the blocks above `number` did to sweeps: they are sent, not mined, until seen again.

    Returns the ids of the payments concerned. Called by the listener, in the transaction that stores the reorg.
    `sent_at` is cleared, so that the sweeper broadcasts the same bytes again at its next look.
    """
    of = sweep_intents.c
    # Locked in the order of their ids, as the sweeper does, so that the two never deadlock.
    taken = sa.select(of.id).where(of.chain_id == chain_id, of.mined_block > number).order_by(of.id).with_for_update()
    ids = session.scalars(taken).all()
    if not ids:
        return set()
    back = sa.update(sweep_intents).where(of.id.in_(ids)).values(**UNMINED)
    return set(session.scalars(back.returning(of.payment_id)))


def plan(
    session: Connection, chain: Chain, *, since_block: int, turn: int, new_id: Callable[[Prefix], str]
) -> list[Planned]:
    """Plan a sweep for every (address, token) where final transfers exceed what sweeps covered and none is under way.

    Looks at the transfers of blocks after `since_block`, which become final now, and at one of SLICES of all addresses,
    chosen by `turn`: whatever is missed by the first (a backfill, a long outage) is found by the second. What is below
    its threshold is left alone.
    """
    first = (turn % SLICES).to_bytes(1)
    places = {
        "after_block": since_block,
        "first_address": first,
        "last_address": first + b"\xff" * ADDRESS_BYTES,
    }
    made: list[Planned] = []
    for where in (_Where.LATELY, _Where.IN_SLICE):
        made += _plan(session, chain, session.execute(_owed_a_sweep(chain, where=where), places), new_id=new_id)
    return made


def plan_one(
    session: Connection, chain: Chain, *, address: bytes, token: bytes, new_id: Callable[[Prefix], str]
) -> list[Planned]:
    """Plan a sweep of one token at one address, also below its threshold: somebody asked for it."""
    place = {"address": address, "token": token}
    return _plan(session, chain, session.execute(_owed_a_sweep(chain, where=_Where.AT_ONE), place), new_id=new_id)


def under_way(session: Connection, chain_id: int, *, address: bytes, token: bytes, since: datetime) -> Intent | None:
    """Return the newest sweep of a token at an address that is not over, or was not `since` then."""
    of = sweep_intents.c
    query = (
        sa.select(sweep_intents)
        .where(
            of.chain_id == chain_id,
            of.address == address,
            of.token == token,
            of.kind == IntentKind.SWEEP,
            sa.or_(of.state.not_in(OVER), of.updated_at >= since),
        )
        .order_by(of.id.desc())
        .limit(1)
    )
    row = session.execute(query).one_or_none()
    return None if row is None else read_intent(row)


def owed(chain_id: Any, address: Any, token: Any) -> sa.ColumnElement[Any]:
    """Return, as SQL, the base units of final transfers to an address that no final sweep took."""
    t = transfers.alias()
    received = (
        sa.select(sa.func.coalesce(sa.func.sum(t.c.amount), _ZERO))
        .where(t.c.chain_id == chain_id, t.c.recipient == address, t.c.token == token, _is_final(t))
        .scalar_subquery()
    )
    return received - _covered(chain_id, address, token)


def pot(session: Connection, chain_id: int, address: bytes) -> int:
    """Return the wei at an address that top-ups brought and nothing has spent, by final transactions."""
    return max(0, int(session.scalar(_pot(), {"chain_id": chain_id, "address": address}) or 0))


def of_payment(session: Connection, payment_id: str, *, limit: int) -> list[tuple[Intent, tuple[Attempt, ...]]]:
    """Return the intents at a payment's address, on every chain, with their attempts, oldest first."""
    query = sa.select(sweep_intents).where(sweep_intents.c.payment_id == payment_id)
    found = [read_intent(row) for row in session.execute(query.order_by(sweep_intents.c.id).limit(limit))]
    attempts = attempts_of(session, [intent.id for intent in found])
    return [(intent, tuple(attempts.get(intent.id, ()))) for intent in found]


def _facts() -> sa.Select[Any]:
    ours, intents = payments.c, sweep_intents.c
    # By a column: the API may read some of them, and EXISTS (SELECT * …) asks for all.
    is_held = sa.exists(intents.id).where(
        intents.payment_id == ours.id,
        intents.chain_id == ours.chain_id,
        intents.token == ours.token,
        intents.state == IntentState.HELD,
    )
    wanted = is_in(ours.id, sa.bindparam("payment_ids", type_=sa.Text))
    covered = _covered(ours.chain_id, ours.address, ours.token)
    # Not to be taken apart: Postgres would look for the sweeps of each payment twice.
    of = sa.select(ours.id, covered.label("covered"), is_held.label("is_held")).where(wanted).offset(0).subquery()
    return sa.select(of).where(sa.or_(of.c.covered != 0, of.c.is_held))


@cache
def _pot() -> sa.Select[Any]:
    of = sweep_intents.c
    brought = sa.case((sa.and_(of.kind == IntentKind.TOPUP, of.state == IntentState.DONE), of.amount), else_=_ZERO)
    spent = sa.func.coalesce(of.own_coin, _ZERO)
    return sa.select(sa.func.coalesce(sa.func.sum(brought - spent), _ZERO)).where(
        of.chain_id == sa.bindparam("chain_id"), of.address == sa.bindparam("address"), of.state.in_(OVER)
    )


def _covered(chain_id: Any, address: Any, token: Any) -> sa.ScalarSelect[Any]:
    """Return, as SQL, the base units of transfers to an address that its final sweeps took.

    A sweep takes its amount. One of coin takes its gas too, and what a sweep of tokens spends on gas is taken out of
    the coin that came to the address; in both cases less the part that top-ups had brought.
    """
    s = sweep_intents.alias()
    amount = sa.case((sa.and_(s.c.token == token, s.c.state == IntentState.DONE), s.c.amount), else_=_ZERO)
    gas = sa.case((token == NATIVE, s.c.gas_cost - sa.func.coalesce(s.c.own_coin, _ZERO)), else_=_ZERO)
    return (
        sa.select(sa.func.coalesce(sa.func.sum(amount + gas), _ZERO))
        .where(
            s.c.chain_id == chain_id,
            s.c.address == address,
            s.c.kind == IntentKind.SWEEP,
            is_one_of(s.c.state, OVER),
        )
        .scalar_subquery()
    )


def _plan(
    session: Connection, chain: Chain, found: Iterable[sa.Row[Any]], *, new_id: Callable[[Prefix], str]
) -> list[Planned]:
    made: list[Planned] = []
    for row in found:
        is_held = row.failures >= MAX_FAILURES
        statement = pg.insert(sweep_intents).values(
            id=new_id(Prefix.SWEEP),
            kind=IntentKind.SWEEP,
            chain_id=chain.chain_id,
            address=row.address,
            token=row.token,
            payment_id=row.payment_id,
            state=IntentState.HELD if is_held else IntentState.PLANNED,
            held_reason=HeldReason.REPEATED_FAILURE if is_held else None,
            sender=row.address,
            recipient=chain.treasury,
        )
        # The index of unsigned intents decides: whoever plans the same money a second time plans nothing.
        added = session.scalar(statement.on_conflict_do_nothing().returning(sweep_intents.c.id))
        if added is not None:
            made.append(Planned(added, row.payment_id, owed=int(row.owed), is_held=is_held))
    return made


@cache
def _owed_a_sweep(chain: Chain, *, where: _Where) -> sa.Select[Any]:
    # What somebody asks for is swept whatever it is worth.
    thresholds = {token.address: 1 if where is _Where.AT_ONE else max(1, token.threshold) for token in chain.tokens}
    at_one = (transfers.c.recipient == sa.bindparam("address"), transfers.c.token == sa.bindparam("token"))
    there = {
        _Where.LATELY: transfers.c.block_number > sa.bindparam("after_block"),
        _Where.IN_SLICE: transfers.c.recipient.between(sa.bindparam("first_address"), sa.bindparam("last_address")),
        _Where.AT_ONE: sa.and_(*at_one),
    }[where]
    places = (
        sa.select(
            transfers.c.recipient.label("address"),
            transfers.c.token,
            sa.func.min(transfers.c.payment_id).label("payment_id"),
        )
        .where(transfers.c.chain_id == chain.chain_id, transfers.c.token.in_(thresholds), _is_final(transfers), there)
        .group_by(transfers.c.recipient, transfers.c.token)
        .subquery()
    )
    s = sweep_intents.alias()
    here = sa.and_(
        s.c.chain_id == chain.chain_id,
        s.c.address == places.c.address,
        s.c.token == places.c.token,
        s.c.kind == IntentKind.SWEEP,
    )
    later = sweep_intents.alias()
    since_done = ~sa.exists().where(
        later.c.chain_id == s.c.chain_id,
        later.c.sender == s.c.sender,
        later.c.token == s.c.token,
        later.c.state == IntentState.DONE,
        later.c.nonce > s.c.nonce,
    )
    failures = sa.select(sa.func.count()).where(here, s.c.state == IntentState.FAILED, since_done).scalar_subquery()
    counted = (
        sa.select(
            places,
            owed(chain.chain_id, places.c.address, places.c.token).label("owed"),
            failures.label("failures"),
        )
        .where(~sa.exists().where(here, s.c.state.not_in(OVER)))
        .subquery()
    )
    least = sa.case(thresholds, value=counted.c.token)
    return sa.select(counted).where(counted.c.owed >= least).limit(PLANNED_AT_ONCE)


def _is_final(of: sa.FromClause) -> sa.ColumnElement[bool]:
    """Return, as SQL, whether a transfer is money that must be swept: final, and not our own gas."""
    return sa.and_(of.c.status == TransferStatus.FINAL, ~of.c.is_own)


_FACTS = Prepared(_facts())
