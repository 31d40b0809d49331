"""How far the clock of a chain is borne out: no deadline passes after it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    op.add_column("chain_cursors", sa.Column("clock", sa.TIMESTAMP(timezone=True), nullable=True))
