import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import idempotency
from ctrip.database.models import idempotency_keys
from ctrip.domain.idempotency import KEPT_FOR, Answer, Once
from tests.conftest import MERCHANT_ID

pytestmark = pytest.mark.infra


def test_keys_go_in_batches_and_one_that_is_used_anew_meanwhile_is_neither_waited_for_nor_lost(ctx: Context) -> None:
    old, now = ctx.now() - KEPT_FOR * 2, ctx.now()
    uses = [Once(route="POST /api/v1/payments", key=str(number), body_hash=b"1") for number in range(4)]

    def forget(limit: int) -> int:
        with ctx.sessions.begin() as session:
            session.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
            return idempotency.forget(session, before=now - KEPT_FOR, limit=limit)

    with ctx.sessions.begin() as session:
        for once in uses:
            idempotency.store(session, MERCHANT_ID, once, answer=Answer(201, "{}"), now=old)
    with ctx.sessions.begin() as session:
        idempotency.store(session, MERCHANT_ID, uses[0], answer=Answer(201, "{}"), now=now)
        assert [forget(2), forget(2)] == [2, 1]
    assert forget(2) == 0
    with ctx.sessions.begin() as session:
        assert session.scalars(sa.select(idempotency_keys.c.key)).all() == ["0"]
