"""What each endpoint of a chain accepts in one request, kept so that a new process need not learn it again."""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql as pg

from ctrip.database.models import rpc_limits
from ctrip.domain.limits import Limits


def find(session: Connection, chain_id: int) -> dict[str, Limits]:
    """Return what was stored for a chain's endpoints, by label."""
    rows = session.execute(sa.select(rpc_limits).where(rpc_limits.c.chain_id == chain_id))
    return {row.endpoint: Limits(batch=row.batch, span=row.span, topics=row.topics) for row in rows}


def store(session: Connection, chain_id: int, limits: Mapping[str, Limits]) -> None:
    """Keep the limits of some endpoints; a row is written only where it changes, those of others stay."""
    if not limits:
        return
    rows = [
        {"chain_id": chain_id, "endpoint": label, "batch": each.batch, "span": each.span, "topics": each.topics}
        for label, each in sorted(limits.items())
    ]
    statement = pg.insert(rpc_limits).values(rows)
    new, old = statement.excluded, rpc_limits.c
    changed = sa.tuple_(new.batch, new.span, new.topics).is_distinct_from(sa.tuple_(old.batch, old.span, old.topics))
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["chain_id", "endpoint"],
            set_={"batch": new.batch, "span": new.span, "topics": new.topics, "updated_at": sa.func.now()},
            where=changed,
        )
    )
