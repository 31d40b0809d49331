"""Sweep intents and their signed attempts: read, locked, and each step of their lives as one guarded UPDATE."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.models import sweep_attempts, sweep_intents
from ctrip.domain.gas import Price
from ctrip.domain.sweeps import Attempt, HeldReason, Intent, IntentKind, IntentState
from ctrip.errors import NotFound

UNSPENT = (IntentState.SIGNED, IntentState.SENT, IntentState.HELD)
"""The states in which an intent's nonce, if it has one, is not known to be spent."""

OVER = (IntentState.DONE, IntentState.FAILED)

UNMINED: dict[str, Any] = {
    "state": IntentState.SENT,
    "mined_block": None,
    "mined_block_hash": None,
    "mined_tx_hash": None,
    "gas_cost": None,
    "own_coin": None,
    "failure": None,
    "sent_at": None,
    "updated_at": sa.func.now(),
}
"""What an intent is whose block is not, or no longer, canonical."""

_FIELDS = tuple(Intent.__dataclass_fields__)


def lock(session: Connection, intent_ids: Iterable[str]) -> dict[str, Intent]:
    """Return intents locked for this transaction, in the order of their ids so that two lockers never deadlock."""
    query = sa.select(sweep_intents).where(sweep_intents.c.id.in_(list(intent_ids)))
    rows = session.execute(query.order_by(sweep_intents.c.id).with_for_update())
    return {row.id: read_intent(row) for row in rows}


def touch(session: Connection, intent_ids: Sequence[str]) -> None:
    """Note that intents were looked at now: the others come first at the next look."""
    session.execute(sa.update(sweep_intents).where(sweep_intents.c.id.in_(intent_ids)).values(looked_at=sa.func.now()))


def find(session: Connection, intent_id: str) -> tuple[Intent, list[Attempt]]:
    """Return an intent and its attempts, oldest first. Raises NotFound."""
    row = session.execute(sa.select(sweep_intents).where(sweep_intents.c.id == intent_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no sweep {intent_id}")
    return read_intent(row), attempts_of(session, [intent_id]).get(intent_id, [])


def count_open(session: Connection, chain_id: int) -> dict[str, int]:
    """Count the intents of a chain that are not over, by state."""
    of = sweep_intents.c
    query = sa.select(of.state, sa.func.count()).where(of.chain_id == chain_id, of.state.not_in(OVER))
    return {state: count for state, count in session.execute(query.group_by(of.state).order_by(of.state))}


def spends(session: Connection, chain_id: int, sender: bytes) -> bool:
    """True while a nonce that a sender signed with is not known to be spent."""
    of = sweep_intents.c
    unspent = sa.exists().where(
        of.chain_id == chain_id, of.sender == sender, of.nonce.is_not(None), of.state.in_(UNSPENT)
    )
    return bool(session.scalar(sa.select(unspent)))


def add_topup(session: Connection, intent: Intent, *, new_id: str, sender: bytes, amount: int) -> bool:
    """Plan a top-up of `amount` wei for a sweep. False where one is planned there already."""
    statement = pg.insert(sweep_intents).values(
        id=new_id,
        kind=IntentKind.TOPUP,
        chain_id=intent.chain_id,
        address=intent.address,
        token=intent.token,
        payment_id=intent.payment_id,
        for_intent_id=intent.id,
        state=IntentState.PLANNED,
        sender=sender,
        recipient=intent.address,
        amount=amount,
    )
    added = session.scalar(statement.on_conflict_do_nothing().returning(sweep_intents.c.id))
    return added is not None


def drop_idle_topups(session: Connection, chain_id: int) -> None:
    """Forget the top-ups that were never signed and whose sweep needs them no more."""
    i, of = sweep_intents, sweep_intents.alias()
    landed = sa.exists().where(of.c.id == i.c.for_intent_id, of.c.state.in_((IntentState.MINED, *OVER)))
    session.execute(
        sa.delete(i).where(i.c.chain_id == chain_id, i.c.kind == IntentKind.TOPUP, i.c.nonce.is_(None), landed)
    )


def add_attempt(session: Connection, intent: Intent, attempt: Attempt, *, nonce: int, recipient: bytes) -> None:
    """Store a signed transaction, and the nonce that it uses. From here on its bytes may be broadcast."""
    session.execute(
        sa.insert(sweep_attempts).values(
            intent_id=attempt.intent_id,
            number=attempt.number,
            raw=attempt.raw,
            tx_hash=attempt.tx_hash,
            amount=attempt.amount,
            gas_limit=attempt.gas_limit,
            max_fee=attempt.price.max_fee,
            priority_fee=attempt.price.priority_fee,
        )
    )
    _step(
        session,
        intent,
        {
            "state": IntentState.SIGNED,
            "held_reason": None,
            "nonce": nonce,
            "recipient": recipient,
            "amount": attempt.amount,
            "sent_at": None,
        },
    )


def mark_sent(session: Connection, intent: Intent, *, read_block: int) -> bool:
    """Note that the newest attempt was broadcast. False where the intent is no longer as it was."""
    is_new = sa.or_(sweep_intents.c.state != IntentState.SENT, sweep_intents.c.sent_at.is_(None))
    return _step(
        session,
        intent,
        {
            "state": IntentState.SENT,
            "held_reason": None,
            "sent_at": sa.case((is_new, sa.func.now()), else_=sweep_intents.c.sent_at),
            "broadcast_block": read_block,
        },
    )


def hold(session: Connection, intent: Intent, reason: HeldReason, *, detail: str | None = None) -> bool:
    """Note why an intent does not go on. False where the intent is no longer as it was."""
    return _step(session, intent, {"state": IntentState.HELD, "held_reason": reason, "failure": detail})


def release(session: Connection, intent: Intent) -> bool:
    """Let an unsigned intent go on. False where the intent is no longer as it was."""
    return _step(session, intent, {"state": IntentState.PLANNED, "held_reason": None, "failure": None})


def mark_mined(
    session: Connection, intent: Intent, *, attempt: Attempt, block: int, block_hash: bytes, gas_cost: int
) -> bool:
    """Note the block that an attempt stands in, and the wei it spent. False where the intent is no longer as it was."""
    return _step(
        session,
        intent,
        {
            "state": IntentState.MINED,
            "held_reason": None,
            "amount": attempt.amount,
            "mined_tx_hash": attempt.tx_hash,
            "mined_block": block,
            "mined_block_hash": block_hash,
            "gas_cost": gas_cost,
        },
    )


def unmine(session: Connection, intent: Intent) -> bool:
    """Take back that an intent is mined: its block is not canonical. False where it is no longer as it was."""
    return _step(session, intent, UNMINED)


def finish(session: Connection, intent: Intent, *, failure: str | None, own_coin: int) -> bool:
    """Close a mined intent whose block is final: done, or failed for the reason `failure`."""
    state = IntentState.DONE if failure is None else IntentState.FAILED
    return _step(session, intent, {"state": state, "failure": failure, "own_coin": own_coin})


def attempts_of(session: Connection, intent_ids: Sequence[str]) -> dict[str, list[Attempt]]:
    """Return the attempts of intents, oldest first; an intent that was never signed is left out."""
    query = sa.select(sweep_attempts).where(sweep_attempts.c.intent_id.in_(intent_ids))
    found: dict[str, list[Attempt]] = {}
    for row in session.execute(query.order_by(sweep_attempts.c.intent_id, sweep_attempts.c.number)):
        found.setdefault(row.intent_id, []).append(read_attempt(row))
    return found


def read_attempt(row: sa.Row[Any], prefix: str = "") -> Attempt:
    """Make an attempt of its row, or of the columns of a row that begin with `prefix`."""
    of = {key.removeprefix(prefix): value for key, value in row._mapping.items() if key.startswith(prefix)}
    return Attempt(
        intent_id=of["intent_id"],
        number=of["number"],
        raw=of["raw"],
        tx_hash=of["tx_hash"],
        amount=of["amount"],
        gas_limit=of["gas_limit"],
        price=Price(of["max_fee"], of["priority_fee"]),
        created_at=of["created_at"],
    )


def read_intent(row: sa.Row[Any]) -> Intent:
    """Make an intent of its row."""
    values = {name: row._mapping[name] for name in _FIELDS}
    values["kind"] = IntentKind(row.kind)
    values["state"] = IntentState(row.state)
    values["held_reason"] = None if row.held_reason is None else HeldReason(row.held_reason)
    return Intent(**values)


def _step(session: Connection, intent: Intent, values: Mapping[str, Any]) -> bool:
    """Move an intent along, if it still stands where it was seen: the listener may have taken its block meanwhile."""
    of = sweep_intents.c
    moved = session.scalar(
        sa.update(sweep_intents)
        .where(
            of.id == intent.id, of.state == intent.state, of.mined_tx_hash.is_not_distinct_from(intent.mined_tx_hash)
        )
        .values(**values, **({} if "updated_at" in values else {"updated_at": sa.func.now()}))
        .returning(of.id)
    )
    return moved is not None
