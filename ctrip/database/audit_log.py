"""The audit log: what operators did, in the transaction that did it. Rows are added and never changed."""

from collections.abc import Callable, Mapping

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database.models import audit_log
from ctrip.domain.audit_log import Deed
from ctrip.domain.ids import Prefix


def add(
    session: Connection,
    *,
    by: str,
    action: str,
    target: str | None,
    detail: Mapping[str, object],
    new_id: Callable[[Prefix], str],
) -> None:
    """Note that `by` (an API key's id, or `cli:USER`) did `action`, such as `dead_letters.replay`, to `target`."""
    session.execute(
        sa.insert(audit_log).values(id=new_id(Prefix.AUDIT), by=by, action=action, target=target, detail=dict(detail))
    )


def matching(
    session: Connection, *, by: str | None, action: str | None, limit: int, after: str | None = None
) -> list[Deed]:
    """Return what was done, newest first: by one, and of actions that begin so; what is older than the id `after`."""
    query = sa.select(audit_log)
    if by is not None:
        query = query.where(audit_log.c.by == by)
    if action is not None:
        query = query.where(audit_log.c.action.startswith(action, autoescape=True))
    if after is not None:
        query = query.where(audit_log.c.id < after)
    rows = session.execute(query.order_by(audit_log.c.id.desc()).limit(limit))
    return [Deed(**row._mapping) for row in rows]
