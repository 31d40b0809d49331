"""The audit log: what operators did, in the transaction that did it. Rows are added and never changed."""

from collections.abc import Callable, Mapping

import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.database import pages
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
    """Return what was done, newest first: by one, and of actions that begin so; what follows the deed `after`."""
    of = audit_log.c
    wanted = [] if by is None else [of.by == by]
    done = pages.values(session, of.action, *wanted)
    if after is not None:
        wanted.append(pages.after(session, audit_log, after, time="at"))
    lists = [[*wanted, of.action == each] for each in done if each.startswith(action or "")]
    if not lists:
        return []
    return [Deed(**row._mapping) for row in session.execute(pages.newest(audit_log, lists, limit=limit, time="at"))]
