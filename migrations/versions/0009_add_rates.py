"""What coins are worth in currencies, by the word of each source, and when each source is asked next."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    told = "of one whole coin, in units of the currency, as it was told"
    op.create_table(
        "rates",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("rate", sa.Numeric(), nullable=False, comment=told),
        sa.Column("as_of", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("asked_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("rate >= 1e-12 AND rate <= 1e12", name=op.f("ck_rates_rate_range")),
        sa.PrimaryKeyConstraint("source", "base", "currency", name=op.f("pk_rates")),
    )
    op.create_table(
        "rate_sources",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("next_ask_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("failing_since", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(failing_since IS NULL) = (last_error IS NULL)", name=op.f("ck_rate_sources_failing_has_an_error")
        ),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_rate_sources")),
    )
