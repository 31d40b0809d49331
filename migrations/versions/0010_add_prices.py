"""A payment may ask for a price in money of a state; what it asks for on a chain is then null until it is chosen."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0010"
down_revision = "0009"

_ASKED = ("chain_id", "chain", "token", "symbol", "decimals", "amount", "required", "finality")
_CHECKS = {
    "asked_for_whole": f"num_nonnulls({', '.join(_ASKED)}) IN (0, 8)",
    "price_is_whole": "num_nonnulls(price, currency, assets) IN (0, 3)",
    "choice_is_whole": "num_nonnulls(chosen_at, counts_after, quote) IN (0, 3)",
    "asks_for_something": "chain_id IS NOT NULL OR price IS NOT NULL",
    "chosen_once": "(chosen_at IS NOT NULL) = (chain_id IS NOT NULL AND price IS NOT NULL)",
    "price_range": "price > 0 AND price < 'Infinity'",
    "some_assets": "jsonb_array_length(assets) > 0",
    "waits_until_chosen": "(waits_for IS NULL) = (chain_id IS NOT NULL)",
}
_REASONS = (
    *("asset", "chain", "after_completion", "own_transaction", "superseded", "not_payable"),
    "before_choice",
)


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    for name in _ASKED:
        op.alter_column("payments", name, nullable=True)
    op.add_column("payments", sa.Column("price", sa.Numeric))
    op.add_column("payments", sa.Column("currency", sa.Text))
    op.add_column("payments", sa.Column("assets", pg.JSONB, comment="those that may be chosen"))
    op.add_column("payments", sa.Column("waits_for", sa.BigInteger))
    op.add_column("payments", sa.Column("chosen_at", sa.DateTime(timezone=True)))
    op.add_column("payments", sa.Column("counts_after", sa.DateTime(timezone=True)))
    op.add_column("payments", sa.Column("quote", pg.JSONB, comment="the rate of the choice, and who told it"))
    for name, condition in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_payments_{name}"), "payments", condition)
    is_waiting = sa.text("chain_id IS NULL AND status = 'pending'")
    op.create_index("ix_payments_waits_for", "payments", ["waits_for", "expires_at"], postgresql_where=is_waiting)
    op.drop_constraint(op.f("ck_transfers_reason_known"), "transfers")
    reasons = ", ".join(f"'{reason}'" for reason in _REASONS)
    op.create_check_constraint(op.f("ck_transfers_reason_known"), "transfers", f"reason IN ({reasons})")
    # The API may not change what a payment asks for: this it may, once. BEGIN ATOMIC binds each name here and now.
    op.execute(
        """
        CREATE FUNCTION choose_asset(
            text, bigint, text, bytea, text, integer, numeric, integer, text, timestamptz, timestamptz, jsonb, timestamptz
        ) RETURNS text LANGUAGE sql SECURITY DEFINER
        BEGIN ATOMIC
            UPDATE payments
            SET chain_id = $2, chain = $3, token = $4, symbol = $5, decimals = $6, amount = $7, required = $8,
                finality = $9, chosen_at = $10, counts_after = $11, quote = $12, expires_at = least(expires_at, $13),
                waits_for = NULL
            WHERE id = $1 AND chain_id IS NULL AND status = 'pending'
            RETURNING id;
        END
        """
    )
    op.execute("REVOKE EXECUTE ON FUNCTION choose_asset FROM PUBLIC")
