"""The choice of an asset for a price: what it depends on, and the columns that it fills."""

from dataclasses import fields
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.models import payments, transfers
from ctrip.database.standings import payment_values
from ctrip.domain.payments import Payment
from ctrip.domain.prices import Asked, Choice
from ctrip.domain.transfers import TransferStatus
from ctrip.errors import IllegalTransition

_CHOSEN = ("id", *(field.name for kind in (Asked, Choice) for field in fields(kind)), "expires_at")
"""What `choose_asset` takes, in its order."""


def newest_transfer_time(session: Connection, payment_id: str) -> datetime | None:
    """Return the block time of the newest canonical transfer of a payment; None where there is none."""
    of = transfers.c
    of_payment = sa.and_(of.payment_id == payment_id, of.status != TransferStatus.ORPHANED)
    newest: datetime | None = session.scalar(sa.select(sa.func.max(of.block_time)).where(of_payment))
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
