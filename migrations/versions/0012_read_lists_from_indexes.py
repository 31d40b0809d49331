"""Each long list is read from an index that has it in its order, whatever it is filtered by.

They are built while others write (CONCURRENTLY), so this is no one transaction. Run again after a crash in between, it
takes away what was half built. The new ones are there before those that they replace go.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_HAS_ORDER = "order_id IS NOT NULL"
_LETTERS = ["queue", "actor", "died_at", "id"]
_BUILT = (
    ("ix_payments_created", "payments", ["merchant_id", "created_at", "id"], None),
    ("ix_payments_order_id", "payments", ["merchant_id", "order_id", "created_at", "id"], _HAS_ORDER),
    ("ix_payments_status", "payments", ["merchant_id", "status", "chain", "created_at", "id"], None),
    (
        "ix_webhook_deliveries_merchant_status",
        "webhook_deliveries",
        ["merchant_id", "status", "created_at", "id"],
        None,
    ),
    (
        "ix_webhook_deliveries_endpoint_status",
        "webhook_deliveries",
        ["endpoint_id", "status", "created_at", "id"],
        None,
    ),
    ("ix_events_created", "events", ["merchant_id", "created_at", "id"], None),
    ("ix_api_keys_created", "api_keys", ["created_at", "id"], None),
    ("ix_api_keys_merchant", "api_keys", ["merchant_id", "created_at", "id"], None),
    ("ix_jobs_kind", "jobs", ["kind", "status", "created_at", "id"], None),
    ("ix_audit_log_action", "audit_log", ["action", "at", "id"], None),
    ("ix_audit_log_by", "audit_log", ["by", "action", "at", "id"], None),
    ("ix_dead_letters_of_open", "dead_letters", _LETTERS, "replayed_at IS NULL AND purged_at IS NULL"),
    ("ix_dead_letters_of_replayed", "dead_letters", _LETTERS, "replayed_at IS NOT NULL AND purged_at IS NULL"),
    ("ix_dead_letters_of_purged", "dead_letters", _LETTERS, "purged_at IS NOT NULL"),
)
_REPLACED = (
    ("ix_payments_merchant", "payments"),
    ("ix_payments_order", "payments"),
    ("ix_payments_open", "payments"),
    ("ix_events_merchant", "events"),
    ("ix_webhook_deliveries_merchant", "webhook_deliveries"),
    ("ix_webhook_deliveries_endpoint", "webhook_deliveries"),
    ("ix_dead_letters_open", "dead_letters"),
)


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, table, columns, where in _BUILT:
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
            condition = None if where is None else sa.text(where)
            op.create_index(name, table, columns, postgresql_where=condition, postgresql_concurrently=True)
        for name, table in _REPLACED:
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
