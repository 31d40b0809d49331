import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import webhook_deliveries as rows
from ctrip.domain.ids import Prefix
from ctrip.domain.webhooks import AT_ONCE
from ctrip.errors import Unavailable
from ctrip.services import relay
from tests.factories import store_payment
from tests.waiting import wait_until

pytestmark = pytest.mark.infra
HOOK = "http://127.0.0.1:9/hook"


def owe(ctx: Context, count: int) -> list[str]:
    """Make payments whose first events are owed, each to another origin; return the deliveries' ids, oldest first."""
    with ctx.sessions.begin() as session:
        for port in range(2000, 2000 + count):
            store_payment(session, new_id=ctx.new_id, webhook_url=f"http://127.0.0.1:{port}/hook")
        return list(session.scalars(sa.select(rows.c.id).order_by(rows.c.id)))


def claim_due(ctx: Context) -> list[str]:
    return [due.row_id for due in relay.claim_due(ctx, Prefix.DELIVERY)]


def change(ctx: Context, **values: object) -> None:
    with ctx.sessions.begin() as session:
        session.execute(sa.update(rows).values(**values))


def test_a_due_delivery_is_taken_once_and_again_when_its_message_must_be_lost(ctx) -> None:
    owed = owe(ctx, 3)
    assert sorted(claim_due(ctx)) == owed
    assert claim_due(ctx) == [], "its message is on its way"
    change(ctx, kicked_at=sa.text("now() - interval '11 s'"))
    assert sorted(claim_due(ctx)) == owed, "nothing came of it: Redis forgot it"


@pytest.mark.parametrize(
    ("why", "values"),
    [
        ("not due", {"next_attempt_at": sa.text("now() + interval '1 s'")}),
        ("an attempt is being made", {"lease_until": sa.text("now() + interval '1 s'")}),
        ("delivered", {"status": "delivered", "next_attempt_at": None, "delivered_at": sa.func.now()}),
        ("waits for a replay", {"status": "failed", "next_attempt_at": None}),
    ],
)
def test_a_delivery_with_nothing_to_do_is_left_alone(ctx, why: str, values: dict[str, object]) -> None:
    owe(ctx, 1)
    change(ctx, **values)
    assert claim_due(ctx) == [], why


def test_the_most_overdue_come_first_and_a_batch_is_bounded(ctx) -> None:
    owed = owe(ctx, relay.BATCH + 1)
    with ctx.sessions.begin() as session:
        late = sa.update(rows).where(rows.c.id == owed[-1])
        session.execute(late.values(next_attempt_at=sa.text("now() - interval '1 h'")))
    taken = claim_due(ctx)
    assert len(taken) == relay.BATCH
    assert taken[0] == owed[-1]
    assert len(claim_due(ctx)) == 1


def test_four_relays_at_once_share_the_work_without_taking_a_delivery_twice(ctx) -> None:
    owed = owe(ctx, 300)
    taken: list[str] = []
    together = threading.Barrier(4)

    def take() -> None:
        together.wait()
        while batch := claim_due(ctx):
            taken.extend(batch)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A relay may find nothing but rows that another one holds, and stop: what is left is taken in the next second.
    taken.extend(claim_due(ctx))
    assert sorted(taken) == owed


def test_of_one_origin_only_so_many_are_sent_for_as_may_be_tried_at_once(ctx) -> None:
    owed = owe(ctx, 5)
    with ctx.sessions.begin() as session:
        for place, delivery_id in enumerate(owed):
            due_at = sa.func.now() - timedelta(seconds=60 - place)
            session.execute(sa.update(rows).where(rows.c.id == delivery_id).values(next_attempt_at=due_at))
        session.execute(sa.update(rows).where(rows.c.id.in_(owed[1:])).values(origin="http://busy.example:80"))
    assert sorted(claim_due(ctx)) == owed[:3], "a run goes on with what else is due at its origin"
    change(ctx, kicked_at=None)
    with ctx.sessions.begin() as session:
        leased = sa.update(rows).where(rows.c.id == owed[1])
        session.execute(leased.values(lease_until=sa.text("now() + interval '9 s'")))
    assert sorted(claim_due(ctx)) == [owed[0], owed[2]], "one attempt is being made there"


def test_the_bell_rings_when_a_transaction_owes_a_delivery_and_not_before_it_commits(ctx) -> None:
    bell = relay.hear(ctx)
    try:
        assert not bell.wait(0.05)
        with ctx.sessions.begin() as session:
            store_payment(session, new_id=ctx.new_id, webhook_url=HOOK)
            assert not bell.wait(0.05)
        assert bell.wait(5)
        assert not bell.wait(0.05), "it rings once"
    finally:
        bell.close()


def test_a_bell_whose_connection_was_ended_says_so_and_hangs_up_without_a_word(
    ctx, caplog: pytest.LogCaptureFixture
) -> None:
    bell = relay.hear(ctx)
    with ctx.sessions.begin() as session:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        assert session.scalars(sa.text(ended)).all() == [True]
    with pytest.raises(Unavailable):
        wait_until(lambda: bell.wait(0.1), within_s=5)
    bell.close()
    assert not caplog.records


def test_a_bell_that_hangs_up_leaves_no_connection(ctx) -> None:
    listening = sa.text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
    bell = relay.hear(ctx)
    bell.close()

    def count() -> int:
        with ctx.sessions.begin() as session:
            return session.scalar(listening) or 0

    wait_until(lambda: count() == 0, within_s=5)


def test_attempts_at_one_origin_keep_no_other_from_its_turn(ctx) -> None:
    for _ in range(AT_ONCE):
        owe(ctx, 1)
    change(ctx, lease_until=sa.text("now() + interval '10 s'"))
    with ctx.sessions.begin() as session:
        for port in (2000, 2001):
            store_payment(session, new_id=ctx.new_id, webhook_url=f"http://127.0.0.1:{port}/hook")
        (free,) = session.scalars(sa.select(rows.c.id).where(rows.c.origin.endswith(":2001")))
    assert claim_due(ctx) == [free], "the other one waits, because as many are being tried there as may be"
