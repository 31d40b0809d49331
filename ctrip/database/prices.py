"""The choice of an asset for a price: what it depends on, and the columns that it fills."""

from dataclasses import fields
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.models import payments, transfers
from ctrip.database.standings import payment_values
from ctrip.domain.payments import Payment
from ctrip.domain.prices import Accepted, Asked, Choice
from ctrip.domain.transfers import TransferStatus
from ctrip.errors import IllegalTransition

_CHOSEN = ("id", *(field.name for kind in (Asked, Choice) for field in fields(kind)), "expires_at")
"""What `choose_asset` takes, in its order."""


def newest_transfer_time(session: Connection, payment_id: str, asset: Accepted, *, now: datetime) -> datetime | None:
    """Return the block time of the newest canonical transfer of an asset to a payment; None where there is none.

    A time that one endpoint alone has told is not believed to be later than `now`.
    """
    of = transfers.c
    time = sa.case((of.is_verified, of.block_time), else_=sa.func.least(of.block_time, now))
    query = sa.select(sa.func.max(time)).where(
        of.payment_id == payment_id,
        of.chain_id == asset.chain_id,
        of.token == asset.token,
        of.status != TransferStatus.ORPHANED,
        ~of.is_own,
    )
    newest: datetime | None = session.scalar(query)
    return newest


def store_choice(session: Connection, payment: Payment) -> None:
    """Write down the asset that was chosen, at which rate and until when. `standings.move` then tells of it.

    The API may not change what a payment asks for: a function of the database (migration 0010) does it, once. Raises
    IllegalTransition where the payment is not pending, or its asset was chosen before.
    """
    values, of = payment_values(payment), payments.c
    given = (sa.cast(sa.literal(values[name], of[name].type), of[name].type) for name in _CHOSEN)
    if session.scalar(sa.select(sa.func.choose_asset(*given))) is None:
        raise IllegalTransition(f"payment {payment.id} has no asset to be chosen any more")
