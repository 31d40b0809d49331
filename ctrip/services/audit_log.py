"""What operators did, for operators. Each use case notes its own deeds, in its own transactions."""

from ctrip.context import Context
from ctrip.database import audit_log
from ctrip.domain.audit_log import Deed


def matching(
    ctx: Context, *, by: str | None = None, action: str | None = None, limit: int, after: str | None = None
) -> list[Deed]:
    """Return what was done, newest first: by one, and of actions that begin so; what is older than the id `after`."""
    with ctx.sessions.begin() as session:
        return audit_log.matching(session, by=by, action=action, limit=limit, after=after)
