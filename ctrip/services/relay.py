"""Due work gets its message: at once when the bell rings, by polling whenever a message or a ring was lost."""

from datetime import timedelta

from ctrip.context import Context
from ctrip.database import relay

BATCH = 200
AGAIN_AFTER = timedelta(seconds=10)
"""How long a message may be on its way before it counts as lost."""


def claim_due(ctx: Context) -> list[str]:
    """Return the ids of up to BATCH deliveries that are due and were not sent for lately, for the caller to send.

    A crash before they are sent costs AGAIN_AFTER: the rows stay due until their effect is stored.
    """
    with ctx.sessions.begin() as session:
        return relay.claim_due(session, limit=BATCH, again_after=AGAIN_AFTER)


def hear(ctx: Context) -> relay.Bell:
    """Return a bell that rings when work became due. Raises Unavailable."""
    return relay.Bell(ctx.sessions)
