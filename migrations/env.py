"""Runs migrations over the connection that `ctrip db upgrade` holds the lock with (ctrip/database/schema.py)."""

from typing import Any

from alembic import context

from ctrip.database.models import Uint256, metadata


def _render(kind: str, item: Any, _: Any) -> str | bool:
    """Write an amount as what it is in the database: a migration must not change when our code does."""
    return "sa.Numeric(78, 0)" if kind == "type" and isinstance(item, Uint256) else False


connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("migrations run through `ctrip db upgrade`, which takes the lock that they need")

context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True, render_item=_render)
with context.begin_transaction():
    context.run_migrations()
