"""Which sweeps can go on now: what may be signed, what is under way, what is deep enough to be judged.

Statements are built once and executed with parameters: building one takes longer than running it.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.intents import OVER, UNSPENT, attempts_of, read_attempt, read_intent
from ctrip.database.models import deposit_addresses, sweep_attempts, sweep_intents, transfers
from ctrip.database.sweeps import owed
from ctrip.domain.addresses import NATIVE
from ctrip.domain.finality import Finality, FinalityRule
from ctrip.domain.sweeps import Attempt, HeldReason, Intent, IntentKind, IntentState


@dataclass(frozen=True)
class Waiting:
    """A sweep that may be signed. `owed` is base units of final transfers that no sweep took.

    `rule` is what makes all that came to the address final. `last` is the newest attempt of a held sweep whose
    nonce is used up already: it is signed anew with that nonce. `others_wait` where more sweeps wait for this sender.
    """

    intent: Intent
    index: int
    owed: int
    rule: FinalityRule
    failed_topups: int
    others_wait: bool
    last: Attempt | None

    @property
    def is_filler(self) -> bool:
        """True where it has nothing to sweep any more, but a nonce that others wait behind."""
        return self.last is not None and self.owed == 0 and self.others_wait


@dataclass(frozen=True)
class InFlight:
    """A signed intent that is not known to be mined, with all its attempts, oldest first.

    `is_overdue` where its newest attempt was first broadcast too long ago, `has_topup` where gas is on its way to it.
    """

    intent: Intent
    index: int
    attempts: tuple[Attempt, ...]
    is_overdue: bool
    has_topup: bool

    @property
    def nonce(self) -> int:
        """The nonce that all its attempts have."""
        if self.intent.nonce is None:
            raise ValueError(f"{self.intent.id} was never signed")
        return self.intent.nonce

    @property
    def last(self) -> Attempt:
        """The newest attempt: the one that is broadcast."""
        return self.attempts[-1]


def signable(session: Connection, chain_id: int, *, limit: int, intent_id: str | None = None) -> list[Waiting]:
    """Return the sweeps that may be signed now, those not looked at for longest first; or the one, if it may.

    One transaction at a time per deposit address: coin first, then one token after another. Coin waits only where gas
    was brought for a token: it would be swept away with it.
    """
    wanted = {"chain_id": chain_id, "limit": limit, "intent_id": intent_id}
    rows = session.execute(_signable(only_one=intent_id is not None), wanted).all()
    attempts = attempts_of(session, [row.id for row in rows if row.nonce is not None])
    return [
        Waiting(
            intent=read_intent(row),
            index=row.derivation_index,
            owed=max(0, int(row.owed)),
            rule=FinalityRule(list(Finality)[row.strength or 0], row.required or 1),
            failed_topups=row.failed_topups,
            others_wait=row.others_wait,
            last=attempts[row.id][-1] if row.id in attempts else None,
        )
        for row in rows
    ]


def signable_topups(session: Connection, chain_id: int, *, sender: bytes, in_flight: int) -> list[Waiting]:
    """Return the top-ups that may be signed now, so many that no more than `in_flight` of the sender are unmined.

    None where the sender's nonce is in dispute.
    """
    of = {"chain_id": chain_id, "sender": sender}
    there = session.execute(_unmined_topups(), of).one()
    if there.is_disputed or there.unmined >= in_flight:
        return []
    rows = session.execute(_signable_topups(), of | {"limit": in_flight - there.unmined})
    return [
        Waiting(
            intent=read_intent(row),
            index=row.derivation_index,
            owed=0,
            rule=FinalityRule(Finality.CONFIRMATIONS, 1),
            failed_topups=0,
            others_wait=False,
            last=None,
        )
        for row in rows
    ]


def in_flight(session: Connection, chain_id: int, *, bump_after: timedelta, limit: int) -> list[InFlight]:
    """Return signed intents that are not known to be mined, those not looked at for longest first."""
    rows = session.execute(_in_flight(), {"chain_id": chain_id, "bump_after": bump_after, "limit": limit}).all()
    attempts = attempts_of(session, [row.id for row in rows])
    return [
        InFlight(
            intent=read_intent(row),
            index=row.derivation_index,
            attempts=tuple(attempts[row.id]),
            is_overdue=row.is_overdue,
            has_topup=row.has_topup,
        )
        for row in rows
    ]


def mined_until(session: Connection, chain_id: int, *, block: int, limit: int) -> list[tuple[Intent, Attempt]]:
    """Return the mined intents of blocks up to `block`, each with the attempt that landed."""
    rows = session.execute(_mined_until(), {"chain_id": chain_id, "block": block, "limit": limit})
    return [(read_intent(row), read_attempt(row, "attempt_")) for row in rows]


def reserved(session: Connection, chain_id: int, sender: bytes) -> int:
    """Return the wei that a sender's transactions under way may still take."""
    return int(session.scalar(_reserved(), {"chain_id": chain_id, "sender": sender}) or 0)


# --- statements -----------------------------------------------------------------------------------------------------

_ON_CHAIN = sweep_intents.c.chain_id == sa.bindparam("chain_id")
_OF_SENDER = sa.and_(_ON_CHAIN, sweep_intents.c.sender == sa.bindparam("sender"))
_HAS_INDEX = deposit_addresses.c.address == sweep_intents.c.address


@cache
def _signable(*, only_one: bool) -> sa.Select[Any]:
    i, t, o, topup = sweep_intents, transfers.alias(), sweep_intents.alias(), sweep_intents.alias()
    is_stopped = i.c.held_reason.is_not_distinct_from(HeldReason.REPEATED_FAILURE)
    unsigned = sa.and_(i.c.nonce.is_(None), ~is_stopped, ~_is_busy(), ~_is_behind())
    uncovered = sa.and_(i.c.nonce.is_not(None), i.c.held_reason == HeldReason.UNCOVERED)
    came = sa.and_(t.c.chain_id == i.c.chain_id, t.c.recipient == i.c.address)
    strength = sa.case({word: word.strength for word in Finality}, value=t.c.finality)
    others = sa.exists().where(_same_sender(o), o.c.nonce.is_(None), o.c.kind == IntentKind.SWEEP)
    failed = sa.select(sa.func.count()).where(topup.c.for_intent_id == i.c.id, topup.c.state == IntentState.FAILED)
    query = (
        sa.select(
            i,
            deposit_addresses.c.derivation_index,
            owed(i.c.chain_id, i.c.address, i.c.token).label("owed"),
            sa.select(sa.func.max(t.c.required)).where(came).scalar_subquery().label("required"),
            sa.select(sa.func.max(strength)).where(came).scalar_subquery().label("strength"),
            failed.scalar_subquery().label("failed_topups"),
            others.label("others_wait"),
        )
        .join(deposit_addresses, _HAS_INDEX)
        .where(
            _ON_CHAIN,
            i.c.kind == IntentKind.SWEEP,
            i.c.state.in_((IntentState.PLANNED, IntentState.HELD)),
            sa.or_(unsigned, uncovered),
            ~_has_live_topup(),
        )
    )
    return _oldest_look_first(query.where(i.c.id == sa.bindparam("intent_id")) if only_one else query)


@cache
def _unmined_topups() -> sa.Select[int, Any]:
    i = sweep_intents.c
    is_disputed = sa.func.coalesce(sa.func.bool_or(i.held_reason == HeldReason.FOREIGN_NONCE), sa.false())
    return sa.select(sa.func.count().label("unmined"), is_disputed.label("is_disputed")).where(
        _OF_SENDER, i.nonce.is_not(None), i.state.in_(UNSPENT)
    )


@cache
def _signable_topups() -> sa.Select[Any]:
    i = sweep_intents
    query = sa.select(i, deposit_addresses.c.derivation_index).join(deposit_addresses, _HAS_INDEX)
    return _oldest_look_first(query.where(_OF_SENDER, i.c.kind == IntentKind.TOPUP, i.c.nonce.is_(None)))


@cache
def _in_flight() -> sa.Select[Any]:
    i = sweep_intents
    patience = sa.bindparam("bump_after", type_=sa.Interval)
    overdue = sa.func.coalesce(i.c.sent_at < sa.func.now() - patience, sa.false())
    query = (
        sa.select(
            i,
            deposit_addresses.c.derivation_index,
            overdue.label("is_overdue"),
            _has_live_topup().label("has_topup"),
        )
        .join(deposit_addresses, _HAS_INDEX)
        .where(_ON_CHAIN, i.c.nonce.is_not(None), i.c.state.in_(UNSPENT))
    )
    return _oldest_look_first(query)


@cache
def _mined_until() -> sa.Select[Any]:
    i, a = sweep_intents, sweep_attempts
    query = (
        sa.select(i, *(column.label(f"attempt_{column.name}") for column in a.c))
        .join(a, sa.and_(a.c.intent_id == i.c.id, a.c.tx_hash == i.c.mined_tx_hash))
        .where(_ON_CHAIN, i.c.state == IntentState.MINED, i.c.mined_block <= sa.bindparam("block"))
    )
    return _oldest_look_first(query)


@cache
def _reserved() -> sa.Select[Any]:
    i, a, other = sweep_intents, sweep_attempts, sweep_attempts.alias()
    newest = sa.select(sa.func.max(other.c.number)).where(other.c.intent_id == i.c.id).scalar_subquery()
    return (
        sa.select(sa.func.coalesce(sa.func.sum(a.c.amount + a.c.gas_limit * a.c.max_fee), 0))
        .select_from(i)
        .join(a, sa.and_(a.c.intent_id == i.c.id, a.c.number == newest))
        .where(_OF_SENDER, i.c.state.in_(UNSPENT))
    )


def _oldest_look_first(query: sa.Select[Any]) -> sa.Select[Any]:
    i = sweep_intents.c
    return query.order_by(i.looked_at.asc().nulls_first(), i.id).limit(sa.bindparam("limit", type_=sa.Integer))


def _same_sender(other: sa.FromClause) -> sa.ColumnElement[bool]:
    i = sweep_intents.c
    return sa.and_(other.c.chain_id == i.chain_id, other.c.sender == i.sender, other.c.id != i.id)


def _is_busy() -> sa.ColumnElement[bool]:
    """Return, as SQL, whether another transaction of the sender is not final."""
    o = sweep_intents.alias()
    return sa.exists().where(_same_sender(o), o.c.nonce.is_not(None), o.c.state.not_in(OVER))


def _has_live_topup() -> sa.ColumnElement[bool]:
    t = sweep_intents.alias()
    return sa.exists().where(t.c.for_intent_id == sweep_intents.c.id, t.c.state.not_in(OVER))


def _is_behind() -> sa.ColumnElement[bool]:
    """Return, as SQL, whether a sweep has to let another one at its address go first."""
    i = sweep_intents.c
    coin, ours, topup, sweep = (sweep_intents.alias() for _ in range(4))
    coin_first = sa.and_(
        i.token != NATIVE,
        sa.exists().where(
            _same_sender(coin), coin.c.token == NATIVE, coin.c.state == IntentState.PLANNED, _is_owed(coin)
        ),
        ~sa.exists().where(ours.c.for_intent_id == i.id),
    )
    gas_is_there = sa.exists().where(
        topup.c.for_intent_id == sweep.c.id,
        _same_sender(sweep),
        sweep.c.state == IntentState.PLANNED,
        _is_owed(sweep),
        topup.c.state.not_in((IntentState.FAILED, IntentState.HELD)),
    )
    return sa.or_(coin_first, sa.and_(i.token == NATIVE, gas_is_there))


def _is_owed(intent: sa.FromClause) -> sa.ColumnElement[bool]:
    """Return, as SQL, whether there still is money for a sweep: a reorg may have taken what it was planned for."""
    return owed(intent.c.chain_id, intent.c.address, intent.c.token) > 0
