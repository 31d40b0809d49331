"""What endpoints accept, over the life of a process."""

import pytest
import sqlalchemy as sa

from ctrip.database import limits
from ctrip.database.engine import Sessions
from ctrip.database.models import rpc_limits
from ctrip.domain.limits import START, Limits
from tests.factories import CHAIN_ID, OTHER_CHAIN_ID

pytestmark = pytest.mark.infra


def test_limits_are_kept_per_chain_and_endpoint_and_written_only_where_they_change(sessions: Sessions) -> None:
    narrow = Limits(batch=3, span=10, topics=1000)
    with sessions.begin() as session:
        assert limits.find(session, CHAIN_ID) == {}
        limits.store(session, CHAIN_ID, {})
        limits.store(session, CHAIN_ID, {"a.example": START, "b.example": narrow})
        limits.store(session, OTHER_CHAIN_ID, {"a.example": narrow})
        session.execute(rpc_limits.update().values(updated_at=sa.text("now() - interval '1 day'")))
    grown = Limits(batch=6, span=20, topics=1000)
    with sessions.begin() as session:
        limits.store(session, CHAIN_ID, {"a.example": START, "b.example": grown})
        assert limits.find(session, CHAIN_ID) == {"a.example": START, "b.example": grown}
        assert limits.find(session, OTHER_CHAIN_ID) == {"a.example": narrow}
        written = session.execute(sa.select(rpc_limits.c.endpoint).where(rpc_limits.c.updated_at == sa.func.now()))
        assert [row.endpoint for row in written] == ["b.example"]
