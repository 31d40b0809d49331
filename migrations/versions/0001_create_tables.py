"""Create every table.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    op.execute("CREATE SEQUENCE deposit_index MINVALUE 0 START 0 MAXVALUE 2147483647")
    op.create_table(
        "chain_cursors",
        sa.Column("chain_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("start_block", sa.BigInteger(), nullable=False),
        sa.Column("read_block", sa.BigInteger(), nullable=False),
        sa.Column("read_hash", sa.LargeBinary(), nullable=False),
        sa.Column("head_block", sa.BigInteger(), nullable=False),
        sa.Column("stopped_reason", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(read_hash) = 32", name=op.f("ck_chain_cursors_read_hash_length")),
        sa.CheckConstraint("read_block >= start_block", name=op.f("ck_chain_cursors_read_from_the_start")),
        sa.PrimaryKeyConstraint("chain_id", name=op.f("pk_chain_cursors")),
    )
    op.create_table(
        "chain_headers",
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("parent_hash", sa.LargeBinary(), nullable=False),
        sa.Column("time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("ck_chain_headers_hash_length")),
        sa.CheckConstraint("octet_length(parent_hash) = 32", name=op.f("ck_chain_headers_parent_hash_length")),
        sa.PrimaryKeyConstraint("chain_id", "number", name=op.f("pk_chain_headers")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False, comment="the message as it was, byte for byte"),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("exception", sa.Text(), nullable=True),
        sa.Column("traceback", sa.Text(), nullable=True),
        sa.Column("row_id", sa.Text(), nullable=True),
        sa.Column("first_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("died_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("replays", sa.Integer(), server_default="0", nullable=False),
        sa.Column("replay_requested_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("replayed_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint("message_id", "died_at", name=op.f("uq_dead_letters_message_id_died_at")),
    )
    op.create_index(
        "ix_dead_letters_open",
        "dead_letters",
        ["queue", "actor", "died_at"],
        unique=False,
        postgresql_where=sa.text("replayed_at IS NULL"),
    )
    op.create_index("ix_dead_letters_row", "dead_letters", ["row_id"], unique=False)
    op.create_table(
        "loops",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("every_ms", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("next_run_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("kicked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_tick_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_loops")),
        sa.UniqueConstraint("kind", "chain_id", name=op.f("uq_loops_kind_chain_id")),
    )
    op.create_table(
        "merchants",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("tolerance_bps", sa.Integer(), server_default="0", nullable=False),
        sa.Column("webhook_secret", sa.LargeBinary(), nullable=False, comment="encrypted with SECRETS_KEY"),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("tolerance_bps BETWEEN 0 AND 9999", name=op.f("ck_merchants_tolerance_bps_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merchants")),
    )
    op.create_table(
        "queue_snapshots",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("ready", sa.BigInteger(), nullable=False),
        sa.Column("in_flight", sa.BigInteger(), nullable=False),
        sa.Column("delayed", sa.BigInteger(), nullable=False),
        sa.Column("dead", sa.BigInteger(), nullable=False),
        sa.Column("completed_1h", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("oldest_ready_age_seconds", sa.Double(), nullable=True),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("taken_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("queue", name=op.f("pk_queue_snapshots")),
    )
    op.create_table(
        "signers",
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("sender", sa.LargeBinary(), nullable=False),
        sa.Column("next_nonce", sa.BigInteger(), nullable=False),
        sa.Column(
            "balance",
            sa.Numeric(78, 0),
            nullable=True,
            comment="of the gas wallet alone: its coin when the sweeper last looked",
        ),
        sa.CheckConstraint("octet_length(sender) = 20", name=op.f("ck_signers_sender_length")),
        sa.PrimaryKeyConstraint("chain_id", "sender", name=op.f("pk_signers")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("public_id", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of 256 random bits"),
        sa.Column("merchant_id", sa.Text(collation="C"), nullable=True),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(merchant_id IS NULL) = (scopes = ARRAY['admin'])", name=op.f("ck_api_keys_operator_is_admin")
        ),
        sa.CheckConstraint(
            "merchant_id IS NULL OR NOT scopes @> ARRAY['admin']", name=op.f("ck_api_keys_merchant_is_no_admin")
        ),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_api_keys_merchant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("public_id", name=op.f("uq_api_keys_public_id")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("merchant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("length(key) BETWEEN 1 AND 255", name=op.f("ck_idempotency_keys_key_length")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_idempotency_keys_merchant_id")),
        sa.PrimaryKeyConstraint("merchant_id", "route", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "payments",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("merchant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("decimals", sa.Integer(), nullable=False),
        sa.Column("amount", sa.Numeric(78, 0), nullable=False),
        sa.Column("tolerance_bps", sa.Integer(), nullable=False),
        sa.Column("required", sa.Integer(), nullable=False),
        sa.Column("address", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("received", sa.Numeric(78, 0), nullable=False),
        sa.Column("confirmed", sa.Numeric(78, 0), nullable=False),
        sa.Column("amount_status", sa.Text(), nullable=False),
        sa.Column("timing", sa.Text(), nullable=True),
        sa.Column("settlement", sa.Text(), nullable=False),
        sa.Column("completed_block", sa.BigInteger(), nullable=True),
        sa.Column("canceled_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("accepted_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("accepted_amount", sa.Numeric(78, 0), nullable=True),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("customer_email", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("webhook_url", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("detected_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("confirmed_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("settled_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "amount_status IN ('none', 'partial', 'exact', 'over')", name=op.f("ck_payments_amount_status_known")
        ),
        sa.CheckConstraint(
            "settlement IN ('none', 'waiting', 'below_threshold', 'held', 'done')",
            name=op.f("ck_payments_settlement_known"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'detected', 'confirmed', 'settled', 'expired', 'canceled')",
            name=op.f("ck_payments_status_known"),
        ),
        sa.CheckConstraint("timing IN ('on_time', 'late')", name=op.f("ck_payments_timing_known")),
        sa.CheckConstraint(
            "(accepted_at IS NULL) = (accepted_amount IS NULL)", name=op.f("ck_payments_acceptance_has_an_amount")
        ),
        sa.CheckConstraint(
            "accepted_amount >= 1 AND accepted_amount < 2::numeric^256", name=op.f("ck_payments_accepted_amount_range")
        ),
        sa.CheckConstraint("amount >= 1 AND amount < 2::numeric^256", name=op.f("ck_payments_amount_range")),
        sa.CheckConstraint("confirmed >= 0 AND confirmed < 2::numeric^256", name=op.f("ck_payments_confirmed_range")),
        sa.CheckConstraint("octet_length(address) = 20", name=op.f("ck_payments_address_length")),
        sa.CheckConstraint("octet_length(token) = 20", name=op.f("ck_payments_token_length")),
        sa.CheckConstraint("received >= 0 AND received < 2::numeric^256", name=op.f("ck_payments_received_range")),
        sa.CheckConstraint("required >= 1", name=op.f("ck_payments_required_range")),
        sa.CheckConstraint("tolerance_bps BETWEEN 0 AND 9999", name=op.f("ck_payments_tolerance_bps_range")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_payments_version_range")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_payments_merchant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
        sa.UniqueConstraint("address", name=op.f("uq_payments_address")),
    )
    op.create_index(
        "ix_payments_deadline",
        "payments",
        ["chain_id", "expires_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('pending', 'expired')"),
    )
    op.create_index("ix_payments_merchant", "payments", ["merchant_id", sa.literal_column("id DESC")], unique=False)
    op.create_index(
        "ix_payments_order",
        "payments",
        ["merchant_id", "order_id"],
        unique=False,
        postgresql_where=sa.text("order_id IS NOT NULL"),
    )
    op.create_table(
        "deposit_addresses",
        sa.Column("address", sa.LargeBinary(), nullable=False),
        sa.Column("wallet_fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("derivation_index", sa.BigInteger(), nullable=False),
        sa.Column("payment_id", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "derivation_index BETWEEN 0 AND 2147483647", name=op.f("ck_deposit_addresses_derivation_index_range")
        ),
        sa.CheckConstraint("octet_length(address) = 20", name=op.f("ck_deposit_addresses_address_length")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_deposit_addresses_payment_id")),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_deposit_addresses")),
        sa.UniqueConstraint("payment_id", name=op.f("uq_deposit_addresses_payment_id")),
        sa.UniqueConstraint(
            "wallet_fingerprint",
            "derivation_index",
            name=op.f("uq_deposit_addresses_wallet_fingerprint_derivation_index"),
        ),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("merchant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("payment_id", sa.Text(collation="C"), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("body", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_events_merchant_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_events_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("payment_id", "version", name=op.f("uq_events_payment_id_version")),
    )
    op.create_index("ix_events_merchant", "events", ["merchant_id", sa.literal_column("id DESC")], unique=False)
    op.create_table(
        "sweep_intents",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.LargeBinary(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("payment_id", sa.Text(collation="C"), nullable=False),
        sa.Column("for_intent_id", sa.Text(collation="C"), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("sender", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=True),
        sa.Column("recipient", sa.LargeBinary(), nullable=False),
        sa.Column("amount", sa.Numeric(78, 0), nullable=True),
        sa.Column("gas_cost", sa.Numeric(78, 0), nullable=True),
        sa.Column("own_coin", sa.Numeric(78, 0), nullable=True),
        sa.Column("mined_tx_hash", sa.LargeBinary(), nullable=True),
        sa.Column("mined_block", sa.BigInteger(), nullable=True),
        sa.Column("mined_block_hash", sa.LargeBinary(), nullable=True),
        sa.Column("held_reason", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("sent_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("broadcast_block", sa.BigInteger(), nullable=True),
        sa.Column("looked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(state = 'held') = (held_reason IS NOT NULL)", name=op.f("ck_sweep_intents_held_has_a_reason")
        ),
        sa.CheckConstraint(
            "(state IN ('mined', 'done', 'failed')) = (mined_block IS NOT NULL) AND (mined_block IS NULL) = (mined_block_hash IS NULL) AND (mined_block IS NULL) = (mined_tx_hash IS NULL)",
            name=op.f("ck_sweep_intents_mined_has_a_block"),
        ),
        sa.CheckConstraint(
            "CASE state WHEN 'planned' THEN nonce IS NULL WHEN 'held' THEN true ELSE nonce IS NOT NULL END",
            name=op.f("ck_sweep_intents_signed_has_a_nonce"),
        ),
        sa.CheckConstraint(
            "held_reason IN ('fee_ceiling', 'gas_wallet_empty', 'dust', 'uncovered', 'foreign_nonce', 'reverts', 'node_refuses', 'signing_refused', 'repeated_failure')",
            name=op.f("ck_sweep_intents_held_reason_known"),
        ),
        sa.CheckConstraint("kind IN ('sweep', 'topup')", name=op.f("ck_sweep_intents_kind_known")),
        sa.CheckConstraint(
            "state IN ('planned', 'signed', 'sent', 'mined', 'held', 'done', 'failed')",
            name=op.f("ck_sweep_intents_state_known"),
        ),
        sa.CheckConstraint("amount >= 0 AND amount < 2::numeric^256", name=op.f("ck_sweep_intents_amount_range")),
        sa.CheckConstraint("gas_cost >= 0 AND gas_cost < 2::numeric^256", name=op.f("ck_sweep_intents_gas_cost_range")),
        sa.CheckConstraint("octet_length(address) = 20", name=op.f("ck_sweep_intents_address_length")),
        sa.CheckConstraint(
            "octet_length(mined_block_hash) = 32", name=op.f("ck_sweep_intents_mined_block_hash_length")
        ),
        sa.CheckConstraint("octet_length(mined_tx_hash) = 32", name=op.f("ck_sweep_intents_mined_tx_hash_length")),
        sa.CheckConstraint("octet_length(recipient) = 20", name=op.f("ck_sweep_intents_recipient_length")),
        sa.CheckConstraint("octet_length(sender) = 20", name=op.f("ck_sweep_intents_sender_length")),
        sa.CheckConstraint("octet_length(token) = 20", name=op.f("ck_sweep_intents_token_length")),
        sa.ForeignKeyConstraint(["for_intent_id"], ["sweep_intents.id"], name=op.f("fk_sweep_intents_for_intent_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_sweep_intents_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep_intents")),
        sa.UniqueConstraint("chain_id", "sender", "nonce", name=op.f("uq_sweep_intents_chain_id_sender_nonce")),
    )
    op.create_index("ix_sweep_intents_address", "sweep_intents", ["chain_id", "address", "token"], unique=False)
    op.create_index(
        "ix_sweep_intents_for",
        "sweep_intents",
        ["for_intent_id"],
        unique=False,
        postgresql_where=sa.text("for_intent_id IS NOT NULL"),
    )
    op.create_index(
        "ix_sweep_intents_live",
        "sweep_intents",
        ["chain_id", "state", "looked_at"],
        unique=False,
        postgresql_where=sa.text("state NOT IN ('done', 'failed')"),
    )
    op.create_index(
        "ix_sweep_intents_mined",
        "sweep_intents",
        ["chain_id", "mined_block"],
        unique=False,
        postgresql_where=sa.text("mined_block IS NOT NULL"),
    )
    op.create_index("ix_sweep_intents_payment", "sweep_intents", ["payment_id"], unique=False)
    op.create_index(
        "uq_sweep_intents_unsigned",
        "sweep_intents",
        ["chain_id", "address", "token", "kind"],
        unique=True,
        postgresql_where=sa.text("nonce IS NULL"),
    )
    op.create_table(
        "transfers",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("payment_id", sa.Text(collation="C"), nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=False),
        sa.Column("decimals", sa.Integer(), nullable=False),
        sa.Column("amount", sa.Numeric(78, 0), nullable=False),
        sa.Column("sender", sa.LargeBinary(), nullable=False),
        sa.Column("recipient", sa.LargeBinary(), nullable=False),
        sa.Column("tx_hash", sa.LargeBinary(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.LargeBinary(), nullable=False),
        sa.Column("block_time", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("required", sa.Integer(), nullable=False),
        sa.Column("is_own", sa.Boolean(), nullable=False),
        sa.Column("is_payable", sa.Boolean(), nullable=False),
        sa.Column("counts", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("is_announced", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "reason IN ('asset', 'chain', 'after_completion', 'own_transaction', 'not_payable')",
            name=op.f("ck_transfers_reason_known"),
        ),
        sa.CheckConstraint("source IN ('native', 'erc20', 'internal')", name=op.f("ck_transfers_source_known")),
        sa.CheckConstraint("status IN ('seen', 'final', 'orphaned')", name=op.f("ck_transfers_status_known")),
        sa.CheckConstraint("amount >= 1 AND amount < 2::numeric^256", name=op.f("ck_transfers_amount_range")),
        sa.CheckConstraint("counts = (reason IS NULL)", name=op.f("ck_transfers_refusal_has_a_reason")),
        sa.CheckConstraint("octet_length(block_hash) = 32", name=op.f("ck_transfers_block_hash_length")),
        sa.CheckConstraint("octet_length(recipient) = 20", name=op.f("ck_transfers_recipient_length")),
        sa.CheckConstraint("octet_length(sender) = 20", name=op.f("ck_transfers_sender_length")),
        sa.CheckConstraint("octet_length(token) = 20", name=op.f("ck_transfers_token_length")),
        sa.CheckConstraint("octet_length(tx_hash) = 32", name=op.f("ck_transfers_tx_hash_length")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_transfers_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transfers")),
        sa.UniqueConstraint(
            "chain_id",
            "block_hash",
            "tx_hash",
            "log_index",
            name=op.f("uq_transfers_chain_id_block_hash_tx_hash_log_index"),
        ),
    )
    op.create_index(
        "ix_transfers_block",
        "transfers",
        ["chain_id", "block_number"],
        unique=False,
        postgresql_where=sa.text("status <> 'orphaned'"),
    )
    op.create_index("ix_transfers_payment", "transfers", ["payment_id"], unique=False)
    op.create_index("ix_transfers_recipient", "transfers", ["chain_id", "recipient", "token"], unique=False)
    op.create_index(
        "ix_transfers_seen",
        "transfers",
        ["chain_id", "block_number"],
        unique=False,
        postgresql_where=sa.text("status = 'seen'"),
    )
    op.create_index(
        "uq_transfers_canonical",
        "transfers",
        ["chain_id", "tx_hash", "log_index"],
        unique=True,
        postgresql_where=sa.text("status <> 'orphaned'"),
    )
    op.create_table(
        "sweep_attempts",
        sa.Column("intent_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "raw", sa.LargeBinary(), nullable=False, comment="the signed transaction: only stored bytes are broadcast"
        ),
        sa.Column("tx_hash", sa.LargeBinary(), nullable=False),
        sa.Column("amount", sa.Numeric(78, 0), nullable=False),
        sa.Column("gas_limit", sa.BigInteger(), nullable=False),
        sa.Column("max_fee", sa.Numeric(78, 0), nullable=False),
        sa.Column("priority_fee", sa.Numeric(78, 0), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("amount >= 0 AND amount < 2::numeric^256", name=op.f("ck_sweep_attempts_amount_range")),
        sa.CheckConstraint("max_fee >= 0 AND max_fee < 2::numeric^256", name=op.f("ck_sweep_attempts_max_fee_range")),
        sa.CheckConstraint("octet_length(tx_hash) = 32", name=op.f("ck_sweep_attempts_tx_hash_length")),
        sa.CheckConstraint(
            "priority_fee >= 0 AND priority_fee < 2::numeric^256", name=op.f("ck_sweep_attempts_priority_fee_range")
        ),
        sa.ForeignKeyConstraint(["intent_id"], ["sweep_intents.id"], name=op.f("fk_sweep_attempts_intent_id")),
        sa.PrimaryKeyConstraint("intent_id", "number", name=op.f("pk_sweep_attempts")),
        sa.UniqueConstraint("tx_hash", name=op.f("uq_sweep_attempts_tx_hash")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("merchant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("payment_id", sa.Text(collation="C"), nullable=True),
        sa.Column("endpoint_id", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts_before_schedule", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("kicked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("last_status_code", sa.Integer(), nullable=True),
        sa.Column("dead_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("delivered_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'dead') = (dead_reason IS NOT NULL)", name=op.f("ck_webhook_deliveries_dead_has_a_reason")
        ),
        sa.CheckConstraint(
            "(status = 'delivered') = (delivered_at IS NOT NULL)",
            name=op.f("ck_webhook_deliveries_delivered_has_a_moment"),
        ),
        sa.CheckConstraint(
            "(status = 'pending') = (next_attempt_at IS NOT NULL)",
            name=op.f("ck_webhook_deliveries_pending_is_scheduled"),
        ),
        sa.CheckConstraint(
            "dead_reason IN ('schedule', 'endpoint_disabled')", name=op.f("ck_webhook_deliveries_dead_reason_known")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'dead', 'failed')", name=op.f("ck_webhook_deliveries_status_known")
        ),
        sa.CheckConstraint(
            "attempts_before_schedule BETWEEN 0 AND attempts", name=op.f("ck_webhook_deliveries_attempts_range")
        ),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_webhook_deliveries_event_id")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_webhook_deliveries_merchant_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_webhook_deliveries_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("ix_webhook_deliveries_event", "webhook_deliveries", ["event_id"], unique=False)
    op.create_index(
        "ix_webhook_deliveries_merchant",
        "webhook_deliveries",
        ["merchant_id", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index("ix_webhook_deliveries_payment", "webhook_deliveries", ["payment_id", "id"], unique=False)
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(status_code IS NULL) = (error IS NOT NULL)", name=op.f("ck_webhook_attempts_answer_or_error")
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["webhook_deliveries.id"], name=op.f("fk_webhook_attempts_delivery_id")
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_webhook_attempts")),
    )
