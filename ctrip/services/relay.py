"""Due work gets its message: at once when the bell rings, by polling whenever a message or a ring was lost."""

from datetime import timedelta

from ctrip.context import Context
from ctrip.database import work
from ctrip.database.bell import Bell
from ctrip.domain.ids import Prefix

BATCH = 200
AGAIN_AFTER = timedelta(seconds=10)
"""How long a message may be on its way before it counts as lost."""
KINDS = work.KINDS


def claim_due(ctx: Context, kind: Prefix) -> list[work.Due]:
    """Return up to BATCH rows of a kind that are due and were not sent for lately, for the caller to send.

    A crash before they are sent costs AGAIN_AFTER: the rows stay due until their effect is stored.
    """
    with ctx.sessions.begin() as session:
        return work.claim_due(session, kind, limit=BATCH, again_after=AGAIN_AFTER)


def hear(ctx: Context) -> Bell:
    """Return a bell that rings when work became due. Raises Unavailable."""
    return Bell(ctx.sessions)
