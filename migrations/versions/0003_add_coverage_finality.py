"""Coverage, learnt limits of endpoints, finality by the chain's own word, and transfers that were inferred."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_SOURCES = "source = 'internal' OR (tx_hash IS NOT NULL AND sender IS NOT NULL)"
_REASONS = ("asset", "chain", "after_completion", "own_transaction", "superseded", "not_payable")
_FINALITIES = "finality IN ('confirmations', 'safe', 'finalized')"

_JOBS = (
    "scan-now",
    "sweep-now",
    "sweep-address",
    "process-payment",
    "backfill",
    "send-webhook",
    "custom-webhook",
)


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    for table in ("payments", "transfers"):
        op.add_column(table, sa.Column("finality", sa.Text(), nullable=False, server_default="confirmations"))
        op.alter_column(table, "finality", server_default=None)
        op.create_check_constraint(op.f(f"ck_{table}_finality_known"), table, _FINALITIES)
    op.add_column("transfers", sa.Column("endpoint", sa.Text(), nullable=True))
    # What stands there was believed when it was stored.
    op.add_column("transfers", sa.Column("is_verified", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.alter_column("transfers", "is_verified", server_default=sa.false())
    for column in ("sender", "tx_hash"):
        op.alter_column("transfers", column, existing_type=sa.LargeBinary(), nullable=True)
    op.create_check_constraint(op.f("ck_transfers_told_by_someone"), "transfers", _SOURCES)
    op.drop_constraint(op.f("ck_transfers_reason_known"), "transfers")
    reasons = ", ".join(f"'{reason}'" for reason in _REASONS)
    op.create_check_constraint(op.f("ck_transfers_reason_known"), "transfers", f"reason IN ({reasons})")
    op.create_index(
        "uq_transfers_inferred",
        "transfers",
        ["chain_id", "recipient", "token", "block_number"],
        unique=True,
        postgresql_where=sa.text("tx_hash IS NULL AND status <> 'orphaned'"),
    )
    for tag in ("safe", "finalized"):
        op.add_column("chain_cursors", sa.Column(f"{tag}_block", sa.BigInteger(), nullable=True))
        op.add_column("chain_cursors", sa.Column(f"{tag}_time", sa.TIMESTAMP(timezone=True), nullable=True))
    op.create_table(
        "coverage",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("first_block", sa.BigInteger(), nullable=False),
        sa.Column("last_block", sa.BigInteger(), nullable=False),
        sa.Column("parent_hash", sa.LargeBinary(), nullable=False),
        sa.Column("last_hash", sa.LargeBinary(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("first_read_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_read_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("last_block >= first_block", name=op.f("ck_coverage_range")),
        sa.CheckConstraint("octet_length(token) = 20", name=op.f("ck_coverage_token_length")),
        sa.CheckConstraint("octet_length(parent_hash) = 32", name=op.f("ck_coverage_parent_hash_length")),
        sa.CheckConstraint("octet_length(last_hash) = 32", name=op.f("ck_coverage_last_hash_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_coverage")),
    )
    op.create_index("ix_coverage_asset", "coverage", ["chain_id", "token", "first_block"])
    _note_what_was_read()
    op.drop_constraint(op.f("ck_jobs_kind_known"), "jobs")
    op.create_check_constraint(op.f("ck_jobs_kind_known"), "jobs", f"kind IN ({', '.join(map(repr, _JOBS))})")
    op.create_table(
        "rpc_limits",
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("span", sa.Integer(), nullable=False),
        sa.Column("topics", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", "endpoint", name=op.f("pk_rpc_limits")),
    )
    op.create_index(
        "ix_payments_watched",
        "payments",
        ["expires_at", "id"],
        postgresql_where=sa.text("status NOT IN ('confirmed', 'settled')"),
    )
    op.create_table(
        "balance_checks",
        sa.Column("chain_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("deadlines_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("watched_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("watched_id", sa.Text(), nullable=True),
        sa.Column("others_after", sa.LargeBinary(), nullable=True),
        sa.Column("round_block", sa.BigInteger(), nullable=True),
        sa.Column("checked_block", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("chain_id", name=op.f("pk_balance_checks")),
    )


def _note_what_was_read() -> None:
    """Note the blocks that were read before anybody took notes: those of coin up to the cursor, whole and in order.

    Since when a token was listed is not known. Between its first transfer and its last one it was; the rest is read
    again by a backfill, which is a question or two for the logs. Nobody knows either who told, nor the first parent.
    """
    op.execute("""
        INSERT INTO coverage
            (chain_id, token, first_block, last_block, parent_hash, last_hash, endpoint, first_read_at, last_read_at)
        SELECT chain_id, decode(repeat('00', 20), 'hex'), start_block + 1, read_block, decode(repeat('00', 32), 'hex'),
               read_hash, 'unknown', updated_at, updated_at
        FROM chain_cursors
        WHERE read_block > start_block
        UNION ALL
        SELECT chain_id, token, min(block_number), max(block_number), decode(repeat('00', 32), 'hex'),
               (array_agg(block_hash ORDER BY block_number DESC))[1], 'unknown', min(created_at), max(created_at)
        FROM transfers
        WHERE status <> 'orphaned' AND token <> decode(repeat('00', 20), 'hex')
        GROUP BY chain_id, token
    """)
