"""Every table. The constraints are the design: what they forbid cannot happen, whatever the code does."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from ctrip.database import columns
from ctrip.database.columns import Uint256
from ctrip.domain.emails import EmailKind, EmailStatus
from ctrip.domain.finality import Finality
from ctrip.domain.jobs import JobKind, JobStatus
from ctrip.domain.payments import AmountStatus, Settlement, Status, Timing
from ctrip.domain.refused_transfers import Refusal
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

deposit_index = sa.Sequence("deposit_index", metadata=metadata, minvalue=0, start=0, maxvalue=2**31 - 1)
"""BIP-32 child numbers, one for all wallets: an index is never given out twice, gaps are harmless."""

merchants = sa.Table(
    "merchants",
    metadata,
    columns.key(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("email", sa.Text),
    sa.Column("tolerance_bps", sa.Integer, nullable=False, server_default="0"),
    sa.Column("webhook_secret", sa.LargeBinary, nullable=False, comment="encrypted with SECRETS_KEY"),
    columns.moment("created_at", now=True),
    sa.CheckConstraint("tolerance_bps BETWEEN 0 AND 9999", name="tolerance_bps_range"),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    columns.key(),
    sa.Column("public_id", sa.Text, nullable=False, unique=True),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False, comment="SHA-256 of 256 random bits"),
    columns.reference("merchant_id", "merchants.id", required=False),
    sa.Column("scopes", pg.ARRAY(sa.Text), nullable=False),
    sa.Column("allowed_ips", pg.ARRAY(sa.Text), comment="networks that it may be used from; null: from anywhere"),
    columns.moment("expires_at"),
    columns.moment("revoked_at"),
    columns.moment("last_used_at"),
    columns.reference("replaced_by", "api_keys.id", required=False),
    columns.moment("created_at", now=True),
    # An operator key has no merchant and the scope admin alone; a merchant's key never has it.
    sa.CheckConstraint("(merchant_id IS NULL) = (scopes = ARRAY['admin'])", name="operator_is_admin"),
    sa.CheckConstraint("merchant_id IS NULL OR NOT scopes @> ARRAY['admin']", name="merchant_is_no_admin"),
    columns.listed("api_keys", "created"),
    columns.listed("api_keys", "merchant", "merchant_id"),
)

payments = sa.Table(
    "payments",
    metadata,
    columns.key(),
    columns.reference("merchant_id", "merchants.id"),
    # What is asked for, all of it or none: none before an asset is chosen, where a price was asked for.
    sa.Column("chain_id", sa.BigInteger),
    sa.Column("chain", sa.Text),
    *columns.binary("token", 20, required=False),
    sa.Column("symbol", sa.Text),
    sa.Column("decimals", sa.Integer),
    *columns.amount("amount", least=1, required=False),
    sa.Column("tolerance_bps", sa.Integer, nullable=False),
    sa.Column("required", sa.Integer),
    sa.Column("finality", sa.Text),
    *columns.binary("address", 20),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    *columns.amount("received"),
    *columns.amount("confirmed"),
    sa.Column("amount_status", sa.Text, nullable=False),
    sa.Column("timing", sa.Text),
    sa.Column("settlement", sa.Text, nullable=False),
    sa.Column("completed_block", sa.BigInteger),
    columns.moment("canceled_at"),
    columns.moment("accepted_at"),
    *columns.amount("accepted_amount", least=1, required=False),
    sa.Column("order_id", sa.Text),
    sa.Column("customer_email", sa.Text),
    sa.Column("metadata", pg.JSONB, nullable=False),
    sa.Column("webhook_url", sa.Text),
    columns.moment("created_at", required=True),
    columns.moment("expires_at", required=True),
    columns.moment("detected_at"),
    columns.moment("confirmed_at"),
    columns.moment("settled_at"),
    sa.Column("price", sa.Numeric),
    sa.Column("currency", sa.Text),
    sa.Column("assets", pg.JSONB(none_as_null=True), comment="those that may be chosen"),
    # Of the chains of these, the one whose blocks have not passed the deadline yet: it is looked at there alone.
    sa.Column("waits_for", sa.BigInteger),
    columns.moment("chosen_at"),
    columns.moment("counts_after"),
    sa.Column("quote", pg.JSONB(none_as_null=True), comment="the rate of the choice, and who told it"),
    sa.UniqueConstraint("address"),
    columns.one_of("status", Status),
    columns.one_of("amount_status", AmountStatus),
    columns.one_of("timing", Timing),
    columns.one_of("finality", Finality),
    columns.one_of("settlement", Settlement),
    sa.CheckConstraint("tolerance_bps BETWEEN 0 AND 9999", name="tolerance_bps_range"),
    sa.CheckConstraint("required >= 1", name="required_range"),
    sa.CheckConstraint("version >= 1", name="version_range"),
    sa.CheckConstraint(
        "num_nonnulls(chain_id, chain, token, symbol, decimals, amount, required, finality) IN (0, 8)",
        name="asked_for_whole",
    ),
    sa.CheckConstraint("num_nonnulls(price, currency, assets) IN (0, 3)", name="price_is_whole"),
    sa.CheckConstraint("num_nonnulls(chosen_at, counts_after, quote) IN (0, 3)", name="choice_is_whole"),
    sa.CheckConstraint("chain_id IS NOT NULL OR price IS NOT NULL", name="asks_for_something"),
    sa.CheckConstraint("(chosen_at IS NOT NULL) = (chain_id IS NOT NULL AND price IS NOT NULL)", name="chosen_once"),
    sa.CheckConstraint("price > 0 AND price < 'Infinity'", name="price_range"),
    sa.CheckConstraint("jsonb_array_length(assets) > 0", name="some_assets"),
    sa.CheckConstraint("(waits_for IS NULL) = (chain_id IS NOT NULL)", name="waits_until_chosen"),
    sa.CheckConstraint("(accepted_at IS NULL) = (accepted_amount IS NULL)", name="acceptance_has_an_amount"),
    # Each list is read from an index that has it in order of time: see database/pages.py.
    columns.listed("payments", "created", "merchant_id"),
    columns.listed("payments", "order_id", "merchant_id", "order_id", where="order_id IS NOT NULL"),
    # Also how many a merchant may still ask for.
    columns.listed("payments", "status", "merchant_id", "status", "chain"),
    # The listener asks at each step which deadlines were passed, or came back in a reorg.
    sa.Index(
        "ix_payments_deadline",
        *("chain_id", "status", "expires_at"),
        postgresql_where=sa.text("status IN ('pending', 'expired')"),
    ),
    sa.Index(
        "ix_payments_waits_for",
        *("waits_for", "expires_at"),
        postgresql_where=sa.text("chain_id IS NULL AND status = 'pending'"),
    ),
    # Whose balances are looked at.
    sa.Index(
        "ix_payments_watched", "expires_at", "id", postgresql_where=sa.text("status NOT IN ('confirmed', 'settled')")
    ),
)

deposit_addresses = sa.Table(
    "deposit_addresses",
    metadata,
    sa.Column("address", sa.LargeBinary, primary_key=True),
    sa.Column("wallet_fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("derivation_index", sa.BigInteger, nullable=False),
    columns.reference("payment_id", "payments.id"),
    columns.moment("created_at", now=True),
    sa.UniqueConstraint("wallet_fingerprint", "derivation_index"),
    sa.UniqueConstraint("payment_id"),
    sa.CheckConstraint("octet_length(address) = 20", name="address_length"),
    sa.CheckConstraint("derivation_index BETWEEN 0 AND 2147483647", name="derivation_index_range"),
)

transfers = sa.Table(
    "transfers",
    metadata,
    columns.key(),
    columns.reference("payment_id", "payments.id"),
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    sa.Column("chain", sa.Text, nullable=False),
    *columns.binary("token", 20),
    sa.Column("symbol", sa.Text, nullable=False),
    sa.Column("decimals", sa.Integer, nullable=False),
    *columns.amount("amount", least=1),
    # Null of coin that was inferred from a balance: nobody knows who sent it, and by which transaction.
    *columns.binary("sender", 20, required=False),
    *columns.binary("recipient", 20),
    *columns.binary("tx_hash", 32, required=False),
    sa.Column("log_index", sa.Integer, nullable=False),
    sa.Column("block_number", sa.BigInteger, nullable=False),
    *columns.binary("block_hash", 32),
    columns.moment("block_time", required=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("required", sa.Integer, nullable=False),
    sa.Column("finality", sa.Text, nullable=False),
    # The endpoint that told of it, and whether another one has borne it out; final is only what was.
    sa.Column("endpoint", sa.Text),
    sa.Column("is_verified", sa.Boolean, nullable=False, server_default=sa.false()),
    # When another endpoint was last asked for it in vain.
    columns.moment("asked_at"),
    sa.Column("is_own", sa.Boolean, nullable=False),
    sa.Column("is_payable", sa.Boolean, nullable=False),
    sa.Column("counts", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("is_announced", sa.Boolean, nullable=False, server_default=sa.false()),
    columns.moment("created_at", now=True),
    sa.UniqueConstraint("chain_id", "block_hash", "tx_hash", "log_index"),
    # A log index is block-wide, so a transaction that comes back in another block has another one; but one block alone
    # holds it. Which of two that is, where endpoints tell different stories, is known when one of them is borne out.
    sa.Index(
        "uq_transfers_final",
        "chain_id",
        "tx_hash",
        "log_index",
        unique=True,
        postgresql_where=sa.text("status = 'final'"),
    ),
    sa.Index("ix_transfers_transaction", "chain_id", "tx_hash", postgresql_where=sa.text("status <> 'orphaned'")),
    # Coin that no transaction explains: once for each block at which it was noticed.
    sa.Index(
        "uq_transfers_inferred",
        "chain_id",
        "recipient",
        "token",
        "block_number",
        unique=True,
        postgresql_where=sa.text("tx_hash IS NULL AND status <> 'orphaned'"),
    ),
    sa.Index("ix_transfers_payment", "payment_id"),
    sa.Index("ix_transfers_recipient", "chain_id", "recipient", "token"),
    sa.Index("ix_transfers_block", "chain_id", "block_number", postgresql_where=sa.text("status <> 'orphaned'")),
    sa.Index("ix_transfers_seen", "chain_id", "block_number", postgresql_where=sa.text("status = 'seen'")),
    columns.one_of("source", Source),
    columns.one_of("status", TransferStatus),
    columns.one_of("reason", Reason),
    columns.one_of("finality", Finality),
    sa.CheckConstraint("source = 'internal' OR (tx_hash IS NOT NULL AND sender IS NOT NULL)", name="told_by_someone"),
    sa.CheckConstraint("counts = (reason IS NULL)", name="refusal_has_a_reason"),
    # Each row is verified and judged where it stands (HOT): a page that is full would cost new entries in all indexes.
    postgresql_with={"fillfactor": 50},
)

# What a canonical block holds, names an issued address, and moved nothing. It goes with its block.
refused_transfers = sa.Table(
    "refused_transfers",
    metadata,
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    sa.Column("block_number", sa.BigInteger, nullable=False),
    *columns.binary("block_hash", 32),
    *columns.binary("tx_hash", 32),
    *columns.binary("recipient", 20),
    *columns.amount("amount", least=1),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    columns.moment("created_at", now=True),
    sa.PrimaryKeyConstraint("chain_id", "block_number", "block_hash", "tx_hash"),
    sa.Index("ix_refused_transfers_recipient", "recipient"),
    columns.one_of("reason", Refusal),
)

events = sa.Table(
    "events",
    metadata,
    columns.key(),
    columns.reference("merchant_id", "merchants.id"),
    columns.reference("payment_id", "payments.id", required=False),
    sa.Column("version", sa.Integer),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("body", pg.JSON, nullable=False),
    columns.moment("created_at", now=True),
    sa.UniqueConstraint("payment_id", "version"),
    columns.listed("events", "created", "merchant_id"),
)

webhook_endpoints = sa.Table(
    "webhook_endpoints",
    metadata,
    columns.key(),
    columns.reference("merchant_id", "merchants.id"),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("events", pg.ARRAY(sa.Text), nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("disabled_reason", sa.Text),
    sa.Column("secret", sa.LargeBinary, nullable=False, comment="encrypted with SECRETS_KEY"),
    sa.Column("former_secret", sa.LargeBinary, comment="encrypted; signs beside the newer one until former_until"),
    columns.moment("former_until"),
    # Since its last success nothing but failures came: null while all is well.
    columns.moment("failing_since"),
    columns.moment("created_at", now=True),
    # Its deliveries speak of it for ever, so it is never taken away.
    columns.moment("deleted_at"),
    columns.one_of("status", EndpointStatus),
    columns.one_of("disabled_reason", DisabledReason),
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
    columns.moment("slow_since"),
)

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    columns.key(),
    columns.reference("event_id", "events.id", required=False),
    columns.reference("merchant_id", "merchants.id", required=False),
    columns.reference("payment_id", "payments.id", required=False),
    columns.reference("endpoint_id", "webhook_endpoints.id", required=False),
    sa.Column("payload", sa.Text, comment="a custom webhook's body, byte for byte; it tells of no event"),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    *columns.work(),
    sa.Column("last_status_code", sa.Integer),
    sa.Column("dead_reason", sa.Text),
    columns.moment("created_at", now=True),
    columns.moment("delivered_at"),
    columns.one_of("status", DeliveryStatus),
    columns.one_of("dead_reason", DeadReason),
    sa.CheckConstraint("(status = 'pending') = (next_attempt_at IS NOT NULL)", name="pending_is_scheduled"),
    sa.CheckConstraint("(status = 'dead') = (dead_reason IS NOT NULL)", name="dead_has_a_reason"),
    sa.CheckConstraint("(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_has_a_moment"),
    sa.CheckConstraint("(event_id IS NULL) = (payload IS NOT NULL)", name="event_or_payload"),
    sa.CheckConstraint("event_id IS NULL OR merchant_id IS NOT NULL", name="event_has_a_merchant"),
    columns.due("webhook_deliveries"),
    sa.Index(
        "ix_webhook_deliveries_origin",
        "origin",
        "next_attempt_at",
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    ),
    sa.Index("ix_webhook_deliveries_leased", "origin", postgresql_where=sa.text("lease_until IS NOT NULL")),
    sa.Index("ix_webhook_deliveries_event", "event_id"),
    sa.Index("ix_webhook_deliveries_payment", "payment_id", "id"),
    columns.listed("webhook_deliveries", "merchant_status", "merchant_id", "status"),
    columns.listed("webhook_deliveries", "endpoint_status", "endpoint_id", "status"),
)

webhook_attempts = sa.Table(
    "webhook_attempts",
    metadata,
    columns.reference("delivery_id", "webhook_deliveries.id"),
    sa.Column("number", sa.Integer, nullable=False),
    columns.moment("at", required=True),
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
    *columns.binary("read_hash", 32),
    sa.Column("head_block", sa.BigInteger, nullable=False),
    # What the node calls safe and finalized, never beyond read_block; null where no rule of the chain asks for it. The
    # times are kept with them: their headers may have left the reorg window.
    sa.Column("safe_block", sa.BigInteger),
    columns.moment("safe_time"),
    sa.Column("finalized_block", sa.BigInteger),
    columns.moment("finalized_time"),
    # The latest time of a block that others bore out: no deadline passes after it. Null where there are no others.
    columns.moment("clock"),
    sa.Column("stopped_reason", sa.Text),
    columns.moment("updated_at", now=True),
    sa.CheckConstraint("read_block >= start_block", name="read_from_the_start"),
)

chain_headers = sa.Table(
    "chain_headers",
    metadata,
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    *columns.binary("hash", 32),
    *columns.binary("parent_hash", 32),
    columns.moment("time", required=True),
    sa.PrimaryKeyConstraint("chain_id", "number"),
)

# Which blocks were read for which asset, when and from which endpoint. Ranges of one asset may overlap: what was read
# twice is told twice. `parent_hash` is that of the first block, `last_hash` is the last block's own.
coverage = sa.Table(
    "coverage",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    *columns.binary("token", 20),
    sa.Column("first_block", sa.BigInteger, nullable=False),
    sa.Column("last_block", sa.BigInteger, nullable=False),
    *columns.binary("parent_hash", 32),
    *columns.binary("last_hash", 32),
    sa.Column("endpoint", sa.Text, nullable=False),
    columns.moment("first_read_at", now=True),
    columns.moment("last_read_at", now=True),
    sa.CheckConstraint("last_block >= first_block", name="range"),
    # Without last_block, so that the row of the newest range grows in place (HOT).
    sa.Index("ix_coverage_asset", "chain_id", "token", "first_block"),
)

# Where the looking at balances stands on each chain; null is the beginning of a round.
balance_checks = sa.Table(
    "balance_checks",
    metadata,
    sa.Column("chain_id", sa.BigInteger, primary_key=True, autoincrement=False),
    columns.moment("deadlines_until"),
    columns.moment("watched_until"),
    sa.Column("watched_id", sa.Text),
    sa.Column("others_after", sa.LargeBinary),
    sa.Column("round_block", sa.BigInteger),
    sa.Column("checked_block", sa.BigInteger),
)

# What each endpoint was found to allow; it is learnt from its errors, and grown again while it allows more.
rpc_limits = sa.Table(
    "rpc_limits",
    metadata,
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("batch", sa.Integer, nullable=False),
    sa.Column("span", sa.Integer, nullable=False),
    sa.Column("topics", sa.Integer, nullable=False),
    columns.moment("updated_at", now=True),
    sa.PrimaryKeyConstraint("chain_id", "endpoint"),
)

loops = sa.Table(
    "loops",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    sa.Column("every_ms", sa.Integer, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
    columns.moment("next_run_at", now=True),
    columns.moment("kicked_at"),
    sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
    columns.moment("lease_until"),
    columns.moment("last_tick_at"),
    sa.UniqueConstraint("kind", "chain_id"),
)

sweep_intents = sa.Table(
    "sweep_intents",
    metadata,
    columns.key(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    *columns.binary("address", 20),
    *columns.binary("token", 20),
    columns.reference("payment_id", "payments.id"),
    columns.reference("for_intent_id", "sweep_intents.id", required=False),
    sa.Column("state", sa.Text, nullable=False),
    *columns.binary("sender", 20),
    sa.Column("nonce", sa.BigInteger),
    *columns.binary("recipient", 20),
    *columns.amount("amount", required=False),
    *columns.amount("gas_cost", required=False),
    # Less than nothing where a transaction left some of the gas behind that it had reserved.
    sa.Column("own_coin", Uint256),
    *columns.binary("mined_tx_hash", 32, required=False),
    sa.Column("mined_block", sa.BigInteger),
    *columns.binary("mined_block_hash", 32, required=False),
    sa.Column("held_reason", sa.Text),
    sa.Column("failure", sa.Text),
    columns.moment("sent_at"),
    sa.Column("broadcast_block", sa.BigInteger),
    columns.moment("looked_at"),
    columns.moment("created_at", now=True),
    columns.moment("updated_at", now=True),
    columns.one_of("kind", IntentKind),
    columns.one_of("state", IntentState),
    columns.one_of("held_reason", HeldReason),
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
    columns.reference("intent_id", "sweep_intents.id"),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False, comment="the signed transaction: only stored bytes are broadcast"),
    *columns.binary("tx_hash", 32),
    *columns.amount("amount"),
    sa.Column("gas_limit", sa.BigInteger, nullable=False),
    *columns.amount("max_fee"),
    *columns.amount("priority_fee", required=False),
    columns.moment("created_at", now=True),
    sa.PrimaryKeyConstraint("intent_id", "number"),
    sa.UniqueConstraint("tx_hash"),
)

signers = sa.Table(
    "signers",
    metadata,
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    *columns.binary("sender", 20),
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
    columns.moment("taken_at", now=True),
)

emails = sa.Table(
    "emails",
    metadata,
    columns.key(),
    sa.Column("kind", sa.Text, nullable=False),
    columns.reference("merchant_id", "merchants.id", required=False),
    columns.reference("payment_id", "payments.id", required=False),
    sa.Column("recipient", sa.Text, comment="null: the operator, whose address the e-mail worker knows"),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("html", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    *columns.work(),
    sa.Column("last_error", sa.Text),
    columns.moment("created_at", now=True),
    columns.moment("sent_at"),
    columns.one_of("kind", EmailKind),
    columns.one_of("status", EmailStatus),
    sa.CheckConstraint("(status = 'pending') = (next_attempt_at IS NOT NULL)", name="pending_is_scheduled"),
    sa.CheckConstraint("(status = 'sent') = (sent_at IS NOT NULL)", name="sent_has_a_moment"),
    # A reorg may confirm a payment twice; it is told once.
    sa.UniqueConstraint("payment_id", "kind"),
    columns.due("emails"),
    sa.Index("ix_emails_created_at", "created_at"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    columns.key(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("params", pg.JSON, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    *columns.work(),
    sa.Column("progress", pg.JSON(none_as_null=True)),
    sa.Column("result", pg.JSON(none_as_null=True)),
    sa.Column("error", sa.Text),
    sa.Column("requested_by", sa.Text, nullable=False),
    columns.moment("created_at", now=True),
    columns.moment("started_at"),
    columns.moment("ended_at"),
    columns.one_of("kind", JobKind),
    columns.one_of("status", JobStatus),
    sa.CheckConstraint(
        "(status IN ('scheduled', 'running')) = (next_attempt_at IS NOT NULL)", name="open_is_scheduled"
    ),
    sa.CheckConstraint("(status IN ('done', 'failed')) = (ended_at IS NOT NULL)", name="ended_has_a_moment"),
    sa.CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name="failed_has_an_error"),
    columns.due("jobs"),
    columns.listed("jobs", "kind", "kind", "status"),
    sa.Index("ix_jobs_ended_at", "ended_at", postgresql_where=sa.text("ended_at IS NOT NULL")),
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    columns.key(),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False, comment="the message as it was, byte for byte"),
    sa.Column("message_id", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("exception", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("row_id", sa.Text),
    columns.moment("first_at", required=True),
    columns.moment("died_at", now=True),
    sa.Column("replays", sa.Integer, nullable=False, server_default="0"),
    columns.moment("replay_requested_at"),
    columns.moment("replayed_at"),
    columns.moment("purged_at"),
    columns.reference("digest_id", "emails.id", required=False),
    sa.UniqueConstraint("message_id", "died_at"),
    # Each letter is in one of these.
    *(
        columns.listed("dead_letters", f"of_{state}", "queue", "actor", time="died_at", where=is_such)
        for state, is_such in {
            "open": "replayed_at IS NULL AND purged_at IS NULL",
            "replayed": "replayed_at IS NOT NULL AND purged_at IS NULL",
            "purged": "purged_at IS NOT NULL",
        }.items()
    ),
    sa.Index("ix_dead_letters_row", "row_id"),
    sa.Index("ix_dead_letters_died_at", "died_at"),
    sa.Index("ix_dead_letters_untold", "died_at", postgresql_where=sa.text("digest_id IS NULL")),
    # An e-mail may go when no letter names it.
    sa.Index("ix_dead_letters_digest", "digest_id", postgresql_where=sa.text("digest_id IS NOT NULL")),
)

# What each source last told that a coin is worth, under the name that the source knows it by: whoever renames an asset
# in chains.yaml meets no word of another one.
rates = sa.Table(
    "rates",
    metadata,
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("base", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column(
        "rate", sa.Numeric, nullable=False, comment="of one whole coin, in units of the currency, as it was told"
    ),
    columns.moment("as_of", required=True),
    columns.moment("asked_at", required=True),
    sa.PrimaryKeyConstraint("source", "base", "currency"),
    # NaN and Infinity are more than any number.
    sa.CheckConstraint("rate >= 1e-12 AND rate <= 1e12", name="rate_range"),
)

rate_sources = sa.Table(
    "rate_sources",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    columns.moment("next_ask_at", required=True),
    # Since when it does not tell all that it is asked for: null while it does.
    columns.moment("failing_since"),
    sa.Column("last_error", sa.Text),
    sa.CheckConstraint("(failing_since IS NULL) = (last_error IS NULL)", name="failing_has_an_error"),
)

# A trigger refuses to change or delete its rows.
audit_log = sa.Table(
    "audit_log",
    metadata,
    columns.key(),
    columns.moment("at", now=True),
    sa.Column("by", sa.Text, nullable=False, comment="an API key's id, or cli:USER"),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("target", sa.Text),
    sa.Column("detail", pg.JSON, nullable=False),
    columns.listed("audit_log", "action", "action", time="at"),
    columns.listed("audit_log", "by", "by", "action", time="at"),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    columns.reference("merchant_id", "merchants.id"),
    sa.Column("route", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("request_hash", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("response", sa.Text),
    columns.moment("created_at", now=True),
    sa.PrimaryKeyConstraint("merchant_id", "route", "key"),
    sa.CheckConstraint("length(key) BETWEEN 1 AND 255", name="key_length"),
    sa.Index("ix_idempotency_keys_created_at", "created_at"),
)
