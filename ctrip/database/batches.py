"""Batches: a bounded number of rows that a statement shall change."""

from typing import Any

import sqlalchemy as sa


def batch(query: sa.Select[Any], *, of: sa.Table, limit: int) -> sa.CTE:
    """Lock up to `limit` rows of a table that a query selects; those that somebody else has locked are left to him.

    As a CTE it runs once; as a plain subquery the planner may run it again for each row and pass the limit.
    """
    return query.limit(limit).with_for_update(of=of, skip_locked=True).cte("batch")
