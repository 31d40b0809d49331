"""Webhook endpoints and origins, e-mails, jobs, the audit log; dead letters that can be purged and told of."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("by", sa.Text(), nullable=False, comment="an API key's id, or cli:USER"),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("detail", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE EXCEPTION 'rows of % are added and never changed', TG_TABLE_NAME; END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER audit_log_only_grows BEFORE UPDATE OR DELETE ON audit_log
            FOR EACH STATEMENT EXECUTE FUNCTION refuse()
        """
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("params", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("next_attempt_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("kicked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts_before_schedule", sa.Integer(), server_default="0", nullable=False),
        sa.Column("progress", postgresql.JSON(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("result", postgresql.JSON(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("ended_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name=op.f("ck_jobs_failed_has_an_error")),
        sa.CheckConstraint(
            "(status IN ('done', 'failed')) = (ended_at IS NOT NULL)", name=op.f("ck_jobs_ended_has_a_moment")
        ),
        sa.CheckConstraint(
            "(status IN ('scheduled', 'running')) = (next_attempt_at IS NOT NULL)",
            name=op.f("ck_jobs_open_is_scheduled"),
        ),
        sa.CheckConstraint(
            "kind IN ('scan-now', 'sweep-now', 'sweep-address', 'process-payment', 'send-webhook', 'custom-webhook')",
            name=op.f("ck_jobs_kind_known"),
        ),
        sa.CheckConstraint("status IN ('scheduled', 'running', 'done', 'failed')", name=op.f("ck_jobs_status_known")),
        sa.CheckConstraint("attempts_before_schedule BETWEEN 0 AND attempts", name=op.f("ck_jobs_attempts_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index(
        "ix_jobs_due",
        "jobs",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_ended_at", "jobs", ["ended_at"], unique=False, postgresql_where=sa.text("ended_at IS NOT NULL")
    )
    op.create_table(
        "webhook_origins",
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("slow_since", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("origin", name=op.f("pk_webhook_origins")),
    )
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("merchant_id", sa.Text(collation="C"), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False, comment="encrypted with SECRETS_KEY"),
        sa.Column(
            "former_secret",
            sa.LargeBinary(),
            nullable=True,
            comment="encrypted; signs beside the newer one until former_until",
        ),
        sa.Column("former_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("failing_since", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'disabled') = (disabled_reason IS NOT NULL)",
            name=op.f("ck_webhook_endpoints_disabled_has_a_reason"),
        ),
        sa.CheckConstraint(
            "disabled_reason IN ('merchant', 'gone', 'failing')",
            name=op.f("ck_webhook_endpoints_disabled_reason_known"),
        ),
        sa.CheckConstraint("status IN ('enabled', 'disabled')", name=op.f("ck_webhook_endpoints_status_known")),
        sa.CheckConstraint(
            "(former_secret IS NULL) = (former_until IS NULL)", name=op.f("ck_webhook_endpoints_former_secret_ends")
        ),
        sa.CheckConstraint("cardinality(events) >= 1", name=op.f("ck_webhook_endpoints_some_events")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_webhook_endpoints_merchant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_index(
        "ix_webhook_endpoints_merchant",
        "webhook_endpoints",
        ["merchant_id", "id"],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "emails",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Text(collation="C"), nullable=True),
        sa.Column("payment_id", sa.Text(collation="C"), nullable=True),
        sa.Column(
            "recipient", sa.Text(), nullable=True, comment="null: the operator, whose address the e-mail worker knows"
        ),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("html", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("next_attempt_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("kicked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("lease_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts_before_schedule", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("sent_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'pending') = (next_attempt_at IS NOT NULL)", name=op.f("ck_emails_pending_is_scheduled")
        ),
        sa.CheckConstraint("(status = 'sent') = (sent_at IS NOT NULL)", name=op.f("ck_emails_sent_has_a_moment")),
        sa.CheckConstraint(
            "kind IN ('payment_confirmed_buyer', 'payment_confirmed_merchant', 'endpoint_disabled', 'dead_letters')",
            name=op.f("ck_emails_kind_known"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'sent', 'skipped', 'dead', 'failed')", name=op.f("ck_emails_status_known")
        ),
        sa.CheckConstraint("attempts_before_schedule BETWEEN 0 AND attempts", name=op.f("ck_emails_attempts_range")),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_emails_merchant_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_emails_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_emails")),
        sa.UniqueConstraint("payment_id", "kind", name=op.f("uq_emails_payment_id_kind")),
    )
    op.create_index("ix_emails_created_at", "emails", ["created_at"], unique=False)
    op.create_index(
        "ix_emails_due",
        "emails",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.add_column("dead_letters", sa.Column("purged_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("dead_letters", sa.Column("digest_id", sa.Text(collation="C"), nullable=True))
    op.drop_index("ix_dead_letters_open", table_name="dead_letters")
    op.create_index(
        "ix_dead_letters_open",
        "dead_letters",
        ["queue", "actor", "died_at"],
        postgresql_where=sa.text("replayed_at IS NULL AND purged_at IS NULL"),
    )
    op.create_index("ix_dead_letters_died_at", "dead_letters", ["died_at"], unique=False)
    op.create_index(
        "ix_dead_letters_untold",
        "dead_letters",
        ["died_at"],
        unique=False,
        postgresql_where=sa.text("digest_id IS NULL"),
    )
    op.create_index(
        "ix_dead_letters_digest",
        "dead_letters",
        ["digest_id"],
        unique=False,
        postgresql_where=sa.text("digest_id IS NOT NULL"),
    )
    op.create_foreign_key(op.f("fk_dead_letters_digest_id"), "dead_letters", "emails", ["digest_id"], ["id"])
    op.add_column(
        "webhook_deliveries",
        sa.Column(
            "payload", sa.Text(), nullable=True, comment="a custom webhook's body, byte for byte; it tells of no event"
        ),
    )
    op.add_column("webhook_deliveries", sa.Column("origin", sa.Text(), nullable=True))
    # Scheme, host and port of the URLs that were checked when they were stored: they have a host and no credentials.
    op.execute(
        r"""
        UPDATE webhook_deliveries SET origin = lower(substring(url from '^[A-Za-z]+://(?:\[[^]]*\]|[^/?#:]+)'))
            || ':' || coalesce(substring(url from '^[A-Za-z]+://(?:\[[^]]*\]|[^/?#:]+):([0-9]+)'),
                               CASE WHEN url ILIKE 'https:%' THEN '443' ELSE '80' END)
        """
    )
    op.alter_column("webhook_deliveries", "origin", nullable=False)
    op.alter_column(
        "webhook_deliveries",
        "endpoint_id",
        type_=sa.Text(collation="C"),
        existing_type=sa.Text(),
        existing_nullable=True,
    )
    op.create_check_constraint(
        op.f("ck_webhook_deliveries_event_or_payload"),
        "webhook_deliveries",
        "(event_id IS NULL) = (payload IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("ck_webhook_deliveries_event_has_a_merchant"),
        "webhook_deliveries",
        "event_id IS NULL OR merchant_id IS NOT NULL",
    )
    op.drop_index("ix_webhook_deliveries_due", table_name="webhook_deliveries")
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.alter_column("webhook_deliveries", "event_id", existing_type=sa.TEXT(collation="C"), nullable=True)
    op.alter_column("webhook_deliveries", "merchant_id", existing_type=sa.TEXT(collation="C"), nullable=True)
    op.create_index(
        "ix_webhook_deliveries_endpoint",
        "webhook_deliveries",
        ["endpoint_id", sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_webhook_deliveries_leased",
        "webhook_deliveries",
        ["origin"],
        unique=False,
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_index(
        "ix_webhook_deliveries_origin",
        "webhook_deliveries",
        ["origin", "next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_foreign_key(
        op.f("fk_webhook_deliveries_endpoint_id"), "webhook_deliveries", "webhook_endpoints", ["endpoint_id"], ["id"]
    )
