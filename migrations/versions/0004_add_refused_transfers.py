"""Transfers that were refused; whose turn it is to be borne out; an index for what is asked at each head."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    op.drop_index("ix_payments_deadline", table_name="payments")
    op.create_index(
        "ix_payments_deadline",
        "payments",
        ["chain_id", "status", "expires_at"],
        postgresql_where=sa.text("status IN ('pending', 'expired')"),
    )
    op.execute("ALTER TABLE transfers SET (fillfactor = 50)")
    op.add_column("transfers", sa.Column("asked_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.create_table(
        "refused_transfers",
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.LargeBinary(), nullable=False),
        sa.Column("tx_hash", sa.LargeBinary(), nullable=False),
        sa.Column("recipient", sa.LargeBinary(), nullable=False),
        sa.Column("amount", sa.Numeric(78, 0), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(block_hash) = 32", name=op.f("ck_refused_transfers_block_hash_length")),
        sa.CheckConstraint("octet_length(tx_hash) = 32", name=op.f("ck_refused_transfers_tx_hash_length")),
        sa.CheckConstraint("octet_length(recipient) = 20", name=op.f("ck_refused_transfers_recipient_length")),
        sa.CheckConstraint("amount >= 1 AND amount < 2::numeric^256", name=op.f("ck_refused_transfers_amount_range")),
        sa.CheckConstraint("reason IN ('failed')", name=op.f("ck_refused_transfers_reason_known")),
        sa.PrimaryKeyConstraint("chain_id", "block_number", "block_hash", "tx_hash", name=op.f("pk_refused_transfers")),
    )
    op.create_index("ix_refused_transfers_recipient", "refused_transfers", ["recipient"])
