"""Whether Postgres waits for its disk before it says that something is stored."""

import sqlalchemy as sa
from sqlalchemy import Connection

_SETTING = "synchronous_commit"


def may_forget(session: Connection) -> bool:
    """True where a crash of Postgres loses what it acknowledged to this session a moment before.

    With every other value of the setting a commit waits for the disk of this server, or of more than this one (the
    Postgres manual, "Asynchronous Commit").
    """
    told: str = session.execute(sa.select(sa.func.current_setting(_SETTING))).scalar_one()
    return told == "off"
