"""Every table. The constraints are the design: what they forbid cannot happen, whatever the code does.

Amounts are base units in NUMERIC(78,0) with a check, because NUMERIC alone takes NaN through `> 0`.
"""

from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.types import TypeDecorator

from ctrip.domain.emails import EmailKind, EmailStatus
from ctrip.domain.jobs import JobKind, JobStatus
from ctrip.domain.payments import AmountStatus, Settlement, Status, Timing
from ctrip.domain.sweeps import HeldReason, IntentKind, IntentState
from ctrip.domain.transfers import Reason, Source, TransferStatus
from ctrip.domain.webhook_endpoints import DisabledReason, EndpointStatus
from ctrip.domain.webhooks import DeadReason, DeliveryStatus

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Uint256(TypeDecorator[int]):
    """An amount in base units: NUMERIC(78,0) in the database, an int in Python, also through sum()."""

    impl = sa.Numeric(78, 0)
    cache_ok = True

    def process_result_value(self, value: Decimal | None, dialect: Any) -> int | None:  # noqa: ARG002 (SQLAlchemy calls it so)
        """Make an int of what the driver reads."""
        return None if value is None else int(value)


def _moment(name: str, *, required: bool = False, now: bool = False) -> sa.Column[Any]:
    default = sa.text("now()") if now else None
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=not (required or now), server_default=default)


def _id(name: str = "id") -> sa.Column[Any]:
    return sa.Column(name, sa.Text(collation="C"), primary_key=True)


def _reference(name: str, target: str, *, required: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(collation="C"), sa.ForeignKey(target), nullable=not required)


def _bytes(name: str, length: int, *, required: bool = True) -> tuple[sa.Column[Any], sa.CheckConstraint]:
    check = sa.CheckConstraint(f"octet_length({name}) = {length}", name=f"{name}_length")
    return sa.Column(name, sa.LargeBinary, nullable=not required), check


def _amount(name: str, *, least: int = 0, required: bool = True) -> tuple[sa.Column[Any], sa.CheckConstraint]:
    check = sa.CheckConstraint(f"{name} >= {least} AND {name} < 2::numeric^256", name=f"{name}_range")
    return sa.Column(name, Uint256, nullable=not required), check


def _work() -> tuple[sa.Column[Any] | sa.CheckConstraint, ...]:
    """Return what every row of work has: when it is due (null: it is over), and who is at it. See database/work.py."""
    return (
        _moment("next_attempt_at"),
        _moment("kicked_at"),
        _moment("lease_until"),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        # A replay begins a new schedule, and the attempts go on counting.
        sa.Column("attempts_before_schedule", sa.Integer, nullable=False, server_default="0"),
        sa.CheckConstraint("attempts_before_schedule BETWEEN 0 AND attempts", name="attempts_range"),
    )


def _due(table: str) -> sa.Index:
    return sa.Index(f"ix_{table}_due", "next_attempt_at", postgresql_where=sa.text("next_attempt_at IS NOT NULL"))


def _one_of(name: str, values: Any) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{name} IN ({listed})", name=f"{name}_known")


deposit_index = sa.Sequence("deposit_index", metadata=metadata, minvalue=0, start=0, maxvalue=2**31 - 1)
"""BIP-32 child numbers, one for all wallets: an index is never given out twice, gaps are harmless."""

merchants = sa.Table(
    "merchants",
    metadata,
    _id(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("email", sa.Text),
    sa.Column("tolerance_bps", sa.Integer, nullable=False, server_default="0"),
    sa.Column("webhook_secret", sa.LargeBinary, nullable=False, comment="encrypted with SECRETS_KEY"),
    _moment("created_at", now=True),
    sa.CheckConstraint("tolerance_bps BETWEEN 0 AND 9999", name="tolerance_bps_range"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    _id(),
    sa.Column("public_id", sa.Text, nullable=False, unique=True),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False, comment="SHA-256 of 256 random bits"),
    _reference("merchant_id", "merchants.id", required=False),
    sa.Column("scopes", pg.ARRAY(sa.Text), nullable=False),
    _moment("expires_at"),
    _moment("revoked_at"),
    _moment("last_used_at"),
    _moment("created_at", now=True),
    # An operator key has no merchant and the scope admin alone; a merchant's key never has it.
    sa.CheckConstraint("(merchant_id IS NULL) = (scopes = ARRAY['admin'])", name="operator_is_admin"),
    sa.CheckConstraint("merchant_id IS NULL OR NOT scopes @> ARRAY['admin']", name="merchant_is_no_admin"),
)

payments = sa.Table(
    "payments",
    metadata,
    _id(),
    _reference("merchant_id", "merchants.id"),
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    sa.Column("chain", sa.Text, nullable=False),
    *_bytes("token", 20),
    sa.Column("symbol", sa.Text, nullable=False),
    sa.Column("decimals", sa.Integer, nullable=False),
    *_amount("amount", least=1),
    sa.Column("tolerance_bps", sa.Integer, nullable=False),
    sa.Column("required", sa.Integer, nullable=False),
    *_bytes("address", 20),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    *_amount("received"),
    *_amount("confirmed"),
    sa.Column("amount_status", sa.Text, nullable=False),
    sa.Column("timing", sa.Text),
    sa.Column("settlement", sa.Text, nullable=False),
    sa.Column("completed_block", sa.BigInteger),
    _moment("canceled_at"),
    _moment("accepted_at"),
    *_amount("accepted_amount", least=1, required=False),
    sa.Column("order_id", sa.Text),
    sa.Column("customer_email", sa.Text),
    sa.Column("metadata", pg.JSONB, nullable=False),
    sa.Column("webhook_url", sa.Text),
    _moment("created_at", required=True),
    _moment("expires_at", required=True),
    _moment("detected_at"),
    _moment("confirmed_at"),
    _moment("settled_at"),
    sa.UniqueConstraint("address"),
    _one_of("status", Status),
    _one_of("amount_status", AmountStatus),
    _one_of("timing", Timing),
    _one_of("settlement", Settlement),
    sa.CheckConstraint("tolerance_bps BETWEEN 0 AND 9999", name="tolerance_bps_range"),
    sa.CheckConstraint("required >= 1", name="required_range"),
    sa.CheckConstraint("version >= 1", name="version_range"),
    sa.CheckConstraint("(accepted_at IS NULL) = (accepted_amount IS NULL)", name="acceptance_has_an_amount"),
    sa.Index("ix_payments_merchant", "merchant_id", sa.text("id DESC")),
    sa.Index("ix_payments_order", "merchant_id", "order_id", postgresql_where=sa.text("order_id IS NOT NULL")),
    # The listener asks at each step which deadlines were passed, or came back in a reorg.
    sa.Index(
        "ix_payments_deadline", "chain_id", "expires_at", postgresql_where=sa.text("status IN ('pending', 'expired')")
    ),
)

deposit_addresses = sa.Table(
    "deposit_addresses",
    metadata,
    sa.Column("address", sa.LargeBinary, primary_key=True),
    sa.Column("wallet_fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("derivation_index", sa.BigInteger, nullable=False),
    _reference("payment_id", "payments.id"),
    _moment("created_at", now=True),
    sa.UniqueConstraint("wallet_fingerprint", "derivation_index"),
    sa.UniqueConstraint("payment_id"),
    sa.CheckConstraint("octet_length(address) = 20", name="address_length"),
    sa.CheckConstraint("derivation_index BETWEEN 0 AND 2147483647", name="derivation_index_range"),
)

transfers = sa.Table(
    "transfers",
    metadata,
    _id(),
    _reference("payment_id", "payments.id"),
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    sa.Column("chain", sa.Text, nullable=False),
    *_bytes("token", 20),
    sa.Column("symbol", sa.Text, nullable=False),
    sa.Column("decimals", sa.Integer, nullable=False),
    *_amount("amount", least=1),
    *_bytes("sender", 20),
    *_bytes("recipient", 20),
    *_bytes("tx_hash", 32),
    sa.Column("log_index", sa.Integer, nullable=False),
    sa.Column("block_number", sa.BigInteger, nullable=False),
    *_bytes("block_hash", 32),
    _moment("block_time", required=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("required", sa.Integer, nullable=False),
    sa.Column("is_own", sa.Boolean, nullable=False),
    sa.Column("is_payable", sa.Boolean, nullable=False),
    sa.Column("counts", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("is_announced", sa.Boolean, nullable=False, server_default=sa.false()),
    _moment("created_at", now=True),
    sa.UniqueConstraint("chain_id", "block_hash", "tx_hash", "log_index"),
    # A log index is block-wide, so a transaction that comes back in another block has another one; but at any time
    # one canonical block holds it. Orphan before insert, in the same transaction.
    sa.Index(
        "uq_transfers_canonical",
        "chain_id",
        "tx_hash",
        "log_index",
        unique=True,
        postgresql_where=sa.text("status <> 'orphaned'"),
    ),
    sa.Index("ix_transfers_payment", "payment_id"),
    sa.Index("ix_transfers_recipient", "chain_id", "recipient", "token"),
    sa.Index("ix_transfers_block", "chain_id", "block_number", postgresql_where=sa.text("status <> 'orphaned'")),
    sa.Index("ix_transfers_seen", "chain_id", "block_number", postgresql_where=sa.text("status = 'seen'")),
    _one_of("source", Source),
    _one_of("status", TransferStatus),
    _one_of("reason", Reason),
    sa.CheckConstraint("counts = (reason IS NULL)", name="refusal_has_a_reason"),
)

events = sa.Table(
    "events",
    metadata,
    _id(),
    _reference("merchant_id", "merchants.id"),
    _reference("payment_id", "payments.id", required=False),
    sa.Column("version", sa.Integer),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("body", pg.JSON, nullable=False),
    _moment("created_at", now=True),
    sa.UniqueConstraint("payment_id", "version"),
    sa.Index("ix_events_merchant", "merchant_id", sa.text("id DESC")),
)

webhook_endpoints = sa.Table(
    "webhook_endpoints",
    metadata,
    _id(),
    _reference("merchant_id", "merchants.id"),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("events", pg.ARRAY(sa.Text), nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("disabled_reason", sa.Text),
    sa.Column("secret", sa.LargeBinary, nullable=False, comment="encrypted with SECRETS_KEY"),
    sa.Column("former_secret", sa.LargeBinary, comment="encrypted; signs beside the newer one until former_until"),
    _moment("former_until"),
    # Since its last success nothing but failures came: null while all is well.
    _moment("failing_since"),
    _moment("created_at", now=True),
    # Its deliveries speak of it for ever, so it is never taken away.
    _moment("deleted_at"),
    _one_of("status", EndpointStatus),
    _one_of("disabled_reason", DisabledReason),
    sa.CheckConstraint("(status = 'disabled') = (disabled_reason IS NOT NULL)", name="disabled_has_a_reason"),
    sa.CheckConstraint("(former_secret IS NULL) = (former_until IS NULL)", name="former_secret_ends"),
    sa.CheckConstraint("cardinality(events) >= 1", name="some_events"),
    sa.Index("ix_webhook_endpoints_merchant", "merchant_id", "id", postgresql_where=sa.text("deleted_at IS NULL")),
)

webhook_origins = sa.Table(
    "webhook_origins",
    metadata,
    sa.Column("origin", sa.Text, primary_key=True),
    # Set while its newest attempt was a slow one: it is tried in the slow lane then.
    _moment("slow_since"),
)

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    _id(),
    _reference("event_id", "events.id", required=False),
    _reference("merchant_id", "merchants.id", required=False),
    _reference("payment_id", "payments.id", required=False),
    _reference("endpoint_id", "webhook_endpoints.id", required=False),
    sa.Column("payload", sa.Text, comment="a custom webhook's body, byte for byte; it tells of no event"),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    *_work(),
    sa.Column("last_status_code", sa.Integer),
    sa.Column("dead_reason", sa.Text),
    _moment("created_at", now=True),
    _moment("delivered_at"),
    _one_of("status", DeliveryStatus),
    _one_of("dead_reason", DeadReason),
    sa.CheckConstraint("(status = 'pending') = (next_attempt_at IS NOT NULL)", name="pending_is_scheduled"),
    sa.CheckConstraint("(status = 'dead') = (dead_reason IS NOT NULL)", name="dead_has_a_reason"),
    sa.CheckConstraint("(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_has_a_moment"),
    sa.CheckConstraint("(event_id IS NULL) = (payload IS NOT NULL)", name="event_or_payload"),
    sa.CheckConstraint("event_id IS NULL OR merchant_id IS NOT NULL", name="event_has_a_merchant"),
    _due("webhook_deliveries"),
    sa.Index(
        "ix_webhook_deliveries_origin",
        "origin",
        "next_attempt_at",
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    ),
    sa.Index("ix_webhook_deliveries_leased", "origin", postgresql_where=sa.text("lease_until IS NOT NULL")),
    sa.Index("ix_webhook_deliveries_event", "event_id"),
    sa.Index("ix_webhook_deliveries_payment", "payment_id", "id"),
    sa.Index("ix_webhook_deliveries_merchant", "merchant_id", sa.text("id DESC")),
    sa.Index("ix_webhook_deliveries_endpoint", "endpoint_id", sa.text("id DESC")),
)

webhook_attempts = sa.Table(
    "webhook_attempts",
    metadata,
    _reference("delivery_id", "webhook_deliveries.id"),
    sa.Column("number", sa.Integer, nullable=False),
    _moment("at", required=True),
    sa.Column("status_code", sa.Integer),
    sa.Column("duration_ms", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("response", sa.Text),
    sa.PrimaryKeyConstraint("delivery_id", "number"),
    sa.CheckConstraint("(status_code IS NULL) = (error IS NOT NULL)", name="answer_or_error"),
)

chain_cursors = sa.Table(
    "chain_cursors",
    metadata,
    sa.Column("chain_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("start_block", sa.BigInteger, nullable=False),
    sa.Column("read_block", sa.BigInteger, nullable=False),
    *_bytes("read_hash", 32),
    sa.Column("head_block", sa.BigInteger, nullable=False),
    sa.Column("stopped_reason", sa.Text),
    _moment("updated_at", now=True),
    sa.CheckConstraint("read_block >= start_block", name="read_from_the_start"),
)

chain_headers = sa.Table(
    "chain_headers",
    metadata,
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    *_bytes("hash", 32),
    *_bytes("parent_hash", 32),
    _moment("time", required=True),
    sa.PrimaryKeyConstraint("chain_id", "number"),
)

loops = sa.Table(
    "loops",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    sa.Column("every_ms", sa.Integer, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    _moment("next_run_at", now=True),
    _moment("kicked_at"),
    sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
    _moment("lease_until"),
    _moment("last_tick_at"),
    sa.UniqueConstraint("kind", "chain_id"),
)

sweep_intents = sa.Table(
    "sweep_intents",
    metadata,
    _id(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    *_bytes("address", 20),
    *_bytes("token", 20),
    _reference("payment_id", "payments.id"),
    _reference("for_intent_id", "sweep_intents.id", required=False),
    sa.Column("state", sa.Text, nullable=False),
    *_bytes("sender", 20),
    sa.Column("nonce", sa.BigInteger),
    *_bytes("recipient", 20),
    *_amount("amount", required=False),
    *_amount("gas_cost", required=False),
    # Less than nothing where a transaction left some of the gas behind that it had reserved.
    sa.Column("own_coin", Uint256),
    *_bytes("mined_tx_hash", 32, required=False),
    sa.Column("mined_block", sa.BigInteger),
    *_bytes("mined_block_hash", 32, required=False),
    sa.Column("held_reason", sa.Text),
    sa.Column("failure", sa.Text),
    _moment("sent_at"),
    sa.Column("broadcast_block", sa.BigInteger),
    _moment("looked_at"),
    _moment("created_at", now=True),
    _moment("updated_at", now=True),
    _one_of("kind", IntentKind),
    _one_of("state", IntentState),
    _one_of("held_reason", HeldReason),
    sa.CheckConstraint("(state = 'held') = (held_reason IS NOT NULL)", name="held_has_a_reason"),
    sa.CheckConstraint(
        "(state IN ('mined', 'done', 'failed')) = (mined_block IS NOT NULL)"
        " AND (mined_block IS NULL) = (mined_block_hash IS NULL) AND (mined_block IS NULL) = (mined_tx_hash IS NULL)",
        name="mined_has_a_block",
    ),
    sa.CheckConstraint(
        "CASE state WHEN 'planned' THEN nonce IS NULL WHEN 'held' THEN true ELSE nonce IS NOT NULL END",
        name="signed_has_a_nonce",
    ),
    sa.UniqueConstraint("chain_id", "sender", "nonce"),
    # At most one unsigned intent of a kind per (chain, address, token): two sweepers cannot plan the same money. A
    # signed one may stand beside it: a reorg can take back what was done.
    sa.Index(
        "uq_sweep_intents_unsigned",
        "chain_id",
        "address",
        "token",
        "kind",
        unique=True,
        postgresql_where=sa.text("nonce IS NULL"),
    ),
    sa.Index(
        "ix_sweep_intents_live",
        "chain_id",
        "state",
        "looked_at",
        postgresql_where=sa.text("state NOT IN ('done', 'failed')"),
    ),
    sa.Index("ix_sweep_intents_mined", "chain_id", "mined_block", postgresql_where=sa.text("mined_block IS NOT NULL")),
    sa.Index("ix_sweep_intents_address", "chain_id", "address", "token"),
    sa.Index("ix_sweep_intents_payment", "payment_id"),
    sa.Index("ix_sweep_intents_for", "for_intent_id", postgresql_where=sa.text("for_intent_id IS NOT NULL")),
)

sweep_attempts = sa.Table(
    "sweep_attempts",
    metadata,
    _reference("intent_id", "sweep_intents.id"),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False, comment="the signed transaction: only stored bytes are broadcast"),
    *_bytes("tx_hash", 32),
    *_amount("amount"),
    sa.Column("gas_limit", sa.BigInteger, nullable=False),
    *_amount("max_fee"),
    *_amount("priority_fee", required=False),
    _moment("created_at", now=True),
    sa.PrimaryKeyConstraint("intent_id", "number"),
    sa.UniqueConstraint("tx_hash"),
)

signers = sa.Table(
    "signers",
    metadata,
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    *_bytes("sender", 20),
    sa.Column("next_nonce", sa.BigInteger, nullable=False),
    sa.Column("balance", Uint256, comment="of the gas wallet alone: its coin when the sweeper last looked"),
    sa.PrimaryKeyConstraint("chain_id", "sender"),
)

queue_snapshots = sa.Table(
    "queue_snapshots",
    metadata,
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("ready", sa.BigInteger, nullable=False),
    sa.Column("in_flight", sa.BigInteger, nullable=False),
    sa.Column("delayed", sa.BigInteger, nullable=False),
    sa.Column("dead", sa.BigInteger, nullable=False),
    sa.Column("completed_1h", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("oldest_ready_age_seconds", sa.Double),
    sa.Column("workers", sa.Integer, nullable=False),
    _moment("taken_at", now=True),
)

emails = sa.Table(
    "emails",
    metadata,
    _id(),
    sa.Column("kind", sa.Text, nullable=False),
    _reference("merchant_id", "merchants.id", required=False),
    _reference("payment_id", "payments.id", required=False),
    sa.Column("recipient", sa.Text, comment="null: the operator, whose address the e-mail worker knows"),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("html", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    *_work(),
    sa.Column("last_error", sa.Text),
    _moment("created_at", now=True),
    _moment("sent_at"),
    _one_of("kind", EmailKind),
    _one_of("status", EmailStatus),
    sa.CheckConstraint("(status = 'pending') = (next_attempt_at IS NOT NULL)", name="pending_is_scheduled"),
    sa.CheckConstraint("(status = 'sent') = (sent_at IS NOT NULL)", name="sent_has_a_moment"),
    # A reorg may confirm a payment twice; it is told once.
    sa.UniqueConstraint("payment_id", "kind"),
    _due("emails"),
    sa.Index("ix_emails_created_at", "created_at"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    _id(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("params", pg.JSON, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    *_work(),
    sa.Column("progress", pg.JSON(none_as_null=True)),
    sa.Column("result", pg.JSON(none_as_null=True)),
    sa.Column("error", sa.Text),
    sa.Column("requested_by", sa.Text, nullable=False),
    _moment("created_at", now=True),
    _moment("started_at"),
    _moment("ended_at"),
    _one_of("kind", JobKind),
    _one_of("status", JobStatus),
    sa.CheckConstraint(
        "(status IN ('scheduled', 'running')) = (next_attempt_at IS NOT NULL)", name="open_is_scheduled"
    ),
    sa.CheckConstraint("(status IN ('done', 'failed')) = (ended_at IS NOT NULL)", name="ended_has_a_moment"),
    sa.CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name="failed_has_an_error"),
    _due("jobs"),
    sa.Index("ix_jobs_ended_at", "ended_at", postgresql_where=sa.text("ended_at IS NOT NULL")),
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    _id(),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False, comment="the message as it was, byte for byte"),
    sa.Column("message_id", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("exception", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("row_id", sa.Text),
    _moment("first_at", required=True),
    _moment("died_at", now=True),
    sa.Column("replays", sa.Integer, nullable=False, server_default="0"),
    _moment("replay_requested_at"),
    _moment("replayed_at"),
    _moment("purged_at"),
    _reference("digest_id", "emails.id", required=False),
    sa.UniqueConstraint("message_id", "died_at"),
    sa.Index(
        "ix_dead_letters_open",
        "queue",
        "actor",
        "died_at",
        postgresql_where=sa.text("replayed_at IS NULL AND purged_at IS NULL"),
    ),
    sa.Index("ix_dead_letters_row", "row_id"),
    sa.Index("ix_dead_letters_died_at", "died_at"),
    sa.Index("ix_dead_letters_untold", "died_at", postgresql_where=sa.text("digest_id IS NULL")),
    # An e-mail may go when no letter names it.
    sa.Index("ix_dead_letters_digest", "digest_id", postgresql_where=sa.text("digest_id IS NOT NULL")),
)

# A trigger refuses to change or delete its rows.
audit_log = sa.Table(
    "audit_log",
    metadata,
    _id(),
    _moment("at", now=True),
    sa.Column("by", sa.Text, nullable=False, comment="an API key's id, or cli:USER"),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("target", sa.Text),
    sa.Column("detail", pg.JSON, nullable=False),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    _reference("merchant_id", "merchants.id"),
    sa.Column("route", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("request_hash", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("response", sa.Text),
    _moment("created_at", now=True),
    sa.PrimaryKeyConstraint("merchant_id", "route", "key"),
    sa.CheckConstraint("length(key) BETWEEN 1 AND 255", name="key_length"),
    sa.Index("ix_idempotency_keys_created_at", "created_at"),
)
