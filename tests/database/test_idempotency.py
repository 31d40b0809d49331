from datetime import datetime

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import idempotency
from ctrip.database.models import idempotency_keys
from ctrip.domain.idempotency import KEPT_FOR, Once
from tests.conftest import MERCHANT_ID

pytestmark = pytest.mark.infra


def row(once: Once, *, created_at: datetime) -> dict[str, object]:
    named = {"merchant_id": MERCHANT_ID, "route": once.route, "key": once.key}
    return named | {"request_hash": once.body_hash, "status": 201, "response": "{}", "created_at": created_at}


def test_keys_go_in_batches_and_one_that_is_used_anew_meanwhile_is_neither_waited_for_nor_lost(ctx: Context) -> None:
    old, now = ctx.now() - KEPT_FOR * 2, ctx.now()
    uses = [Once(route="POST /api/v1/payments", key=str(number), body_hash=b"1") for number in range(4)]

    def forget(limit: int) -> int:
        with ctx.sessions.begin() as session:
            session.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
            return idempotency.forget(session, before=now - KEPT_FOR, limit=limit)

    with ctx.sessions.begin() as session:
        for once in uses:
            session.execute(sa.insert(idempotency_keys), row(once, created_at=old))
    with ctx.sessions.begin() as session:
        session.execute(sa.update(idempotency_keys).where(idempotency_keys.c.key == "0").values(created_at=now))
        assert [forget(2), forget(2)] == [2, 1]
    assert forget(2) == 0
    with ctx.sessions.begin() as session:
        assert session.scalars(sa.select(idempotency_keys.c.key)).all() == ["0"]
