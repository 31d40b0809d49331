"""A transaction of which endpoints tell in two blocks stands in both until one is borne out, and is final in one."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    op.create_index(
        "uq_transfers_final",
        "transfers",
        ["chain_id", "tx_hash", "log_index"],
        unique=True,
        postgresql_where=sa.text("status = 'final'"),
    )
    op.create_index(
        "ix_transfers_transaction",
        "transfers",
        ["chain_id", "tx_hash"],
        postgresql_where=sa.text("status <> 'orphaned'"),
    )
    op.drop_index("uq_transfers_canonical", table_name="transfers")
