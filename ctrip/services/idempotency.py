"""Idempotency keys are kept for 72 hours, then forgotten."""

from ctrip.context import Context
from ctrip.database import idempotency
from ctrip.domain.idempotency import KEPT_FOR

_BATCH = 1_000


def forget_expired(ctx: Context) -> int:
    """Delete one batch of keys that no request can meet any more. Returns how many; call again while that is not 0."""
    with ctx.sessions.begin() as session:
        return idempotency.forget(session, before=ctx.now() - KEPT_FOR, limit=_BATCH)
