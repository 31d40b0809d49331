"""The nonce that each sender uses next: taken in the transaction that stores what was signed with it, or not at all."""

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.models import signers


def next_nonce(session: Connection, chain_id: int, sender: bytes, *, used: int) -> int | None:
    """Return the nonce to sign with, its row locked; None where the chain says that another uses the same key.

    `used` is the chain's transaction count. A sender that never signed starts with it; later it is never above ours.
    """
    first = pg.insert(signers).values(chain_id=chain_id, sender=sender, next_nonce=used)
    session.execute(first.on_conflict_do_nothing())
    row = sa.select(signers.c.next_nonce).where(signers.c.chain_id == chain_id, signers.c.sender == sender)
    ours = session.scalars(row.with_for_update()).one()
    return None if used > ours else ours


def take(session: Connection, chain_id: int, sender: bytes, nonce: int) -> None:
    """Note that `nonce` is used: a transaction with it is stored by this very transaction."""
    session.execute(
        sa.update(signers)
        .where(signers.c.chain_id == chain_id, signers.c.sender == sender, signers.c.next_nonce == nonce)
        .values(next_nonce=nonce + 1)
    )


def forget(session: Connection, chain_id: int, sender: bytes) -> None:
    """Forget a sender's nonce: the next one is what the chain says then. Only for a sender that is spending nothing."""
    session.execute(sa.delete(signers).where(signers.c.chain_id == chain_id, signers.c.sender == sender))


def store_gas_balance(session: Connection, chain_id: int, sender: bytes, *, balance: int, used: int) -> None:
    """Store what the gas wallet holds, for whoever shows it and has no key."""
    row = pg.insert(signers).values(chain_id=chain_id, sender=sender, next_nonce=used, balance=balance)
    session.execute(
        row.on_conflict_do_update(
            index_elements=["chain_id", "sender"],
            set_={"balance": balance},
            where=signers.c.balance.is_distinct_from(balance),
        )
    )


def gas_balances(session: Connection) -> dict[int, int]:
    """Return, by chain id, the wei that the gas wallet held when the sweeper last looked."""
    rows = session.execute(sa.select(signers.c.chain_id, signers.c.balance).where(signers.c.balance.is_not(None)))
    return {row.chain_id: row.balance for row in rows}
