"""From where a key may be used, and which key took the place of which."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0007"
down_revision = "0006"


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    networks = "networks that it may be used from; null: from anywhere"
    op.add_column("api_keys", sa.Column("allowed_ips", pg.ARRAY(sa.Text), nullable=True, comment=networks))
    op.add_column("api_keys", sa.Column("replaced_by", sa.Text(collation="C"), nullable=True))
    op.create_foreign_key(op.f("fk_api_keys_replaced_by"), "api_keys", "api_keys", ["replaced_by"], ["id"])
