"""${message}."""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


# There is no way down: what a migration takes away, money may hang on. Go forward with another one.
def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
