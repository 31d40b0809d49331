import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ctrip.database import loops
from ctrip.database.engine import Sessions
from ctrip.database.models import loops as rows
from ctrip.errors import LostFence

pytestmark = pytest.mark.infra
NAME = "listener:1"


@pytest.fixture(autouse=True)
def loop(sessions: Sessions) -> None:
    with sessions.begin() as session:
        loops.ensure(session, kind="listener", chain_id=1, every=timedelta(seconds=1))


def claim(sessions: Sessions) -> loops.Claim | None:
    with sessions.begin() as session:
        return loops.claim(session, NAME)


def change(sessions: Sessions, **values: object) -> None:
    with sessions.begin() as session:
        session.execute(sa.update(rows).values(**values))


def stored(sessions: Sessions) -> loops.Loop:
    with sessions.begin() as session:
        return loops.find_all(session)[0]


def kick(sessions: Sessions, *, grace_s: float = 1, again_after_s: float = 5) -> list[str]:
    with sessions.begin() as session:
        found = loops.kick_overdue(
            session, chain_ids=[1], grace=timedelta(seconds=grace_s), again_after=timedelta(seconds=again_after_s)
        )
    return [loop.name for loop in found]


def test_of_sixteen_claims_at_once_one_wins(sessions: Sessions) -> None:
    won: list[loops.Claim | None] = []
    together = threading.Barrier(16)

    def compete() -> None:
        together.wait()
        won.append(claim(sessions))

    threads = [threading.Thread(target=compete) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found for found in won if found is not None] == [loops.Claim(NAME, 1)]


@pytest.mark.parametrize(
    ("why", "values"),
    [
        ("not due", {"next_run_at": sa.text("now() + interval '1 s'")}),
        ("leased", {"lease_until": sa.text("now() + interval '1 s'")}),
        ("paused", {"enabled": False}),
    ],
)
def test_a_loop_that_may_not_run_is_not_claimed(sessions: Sessions, why: str, values: dict[str, object]) -> None:
    change(sessions, **values)
    assert claim(sessions) is None, why
    assert stored(sessions).fence == 0


def test_a_lease_that_has_ended_can_be_claimed_by_another(sessions: Sessions) -> None:
    first = claim(sessions)
    change(sessions, lease_until=sa.text("now() - interval '1 ms'"))
    assert first == loops.Claim(NAME, 1)
    assert claim(sessions) == loops.Claim(NAME, 2)


def test_an_overtaken_run_can_write_nothing(sessions: Sessions) -> None:
    overtaken = claim(sessions)
    assert overtaken is not None
    change(sessions, lease_until=sa.text("now() - interval '1 ms'"))
    claim(sessions)
    before = stored(sessions)
    with pytest.raises(LostFence), sessions.begin() as session:
        session.execute(sa.update(rows).values(every_ms=77))
        loops.hold(session, overtaken)
    with pytest.raises(LostFence), sessions.begin() as session:
        loops.renew(session, overtaken)
    with sessions.begin() as session:
        loops.release(session, overtaken, again_in=timedelta(seconds=9))
    assert stored(sessions) == before, "neither a write before the fence check nor a late release may stay"


def test_a_claim_waits_for_the_storing_transaction_of_the_run_before_it(sessions: Sessions) -> None:
    """A lease that ends while the run commits: the claim that comes must see what was committed, or nothing of it."""
    run = claim(sessions)
    assert run is not None
    change(sessions, lease_until=sa.text("now() - interval '1 ms'"))
    won: list[loops.Claim | None] = []
    with sessions.begin() as session:
        loops.hold(session, run)
        other = threading.Thread(target=lambda: won.append(claim(sessions)))
        other.start()
        other.join(0.2)
        assert won == [], "the claim waits"
        loops.release(session, run, again_in=timedelta(minutes=5))
    other.join()
    assert won == [None], "and finds a loop that is not due any more"


def test_a_clock_that_was_set_back_keeps_no_loop_waiting(sessions: Sessions) -> None:
    tomorrow = sa.text("now() + interval '1 day'")
    change(sessions, next_run_at=tomorrow, last_tick_at=tomorrow, kicked_at=tomorrow, lease_until=tomorrow)
    assert kick(sessions) == [NAME]
    won = claim(sessions)
    assert won is not None
    with sessions.begin() as session:
        loops.release(session, won, again_in=timedelta(0))
    assert claim(sessions) is not None, "the moments are those of the new clock"


def test_a_renewed_lease_keeps_others_away(sessions: Sessions) -> None:
    run = claim(sessions)
    assert run is not None
    change(sessions, lease_until=sa.text("now() - interval '1 ms'"))
    with sessions.begin() as session:
        loops.renew(session, run)
    assert claim(sessions) is None


def test_a_released_loop_is_due_again_after_its_pause_and_has_ticked(sessions: Sessions) -> None:
    run = claim(sessions)
    assert run is not None
    with sessions.begin() as session:
        loops.hold(session, run)
        loops.release(session, run, again_in=timedelta(seconds=30))
    loop = stored(sessions)
    assert loop.lease_until is None
    assert loop.last_tick_at is not None
    assert timedelta(seconds=29) < loop.next_run_at - loop.last_tick_at <= timedelta(seconds=30)


def test_the_watchdog_kicks_a_loop_whose_message_was_lost_once(sessions: Sessions) -> None:
    assert kick(sessions) == [], "due, but its message may still be on its way"
    change(sessions, next_run_at=sa.text("now() - interval '2 s'"))
    assert kick(sessions) == [NAME]
    assert kick(sessions) == [], "the kick itself is on its way now"
    change(sessions, kicked_at=sa.text("now() - interval '6 s'"))
    assert kick(sessions) == [NAME]


@pytest.mark.parametrize("values", [{"lease_until": sa.text("now() + interval '1 s'")}, {"enabled": False}])
def test_the_watchdog_leaves_a_running_or_a_paused_loop_alone(sessions: Sessions, values: dict[str, object]) -> None:
    change(sessions, next_run_at=sa.text("now() - interval '1 h'"), **values)
    assert kick(sessions) == []


def test_ensuring_a_loop_again_changes_its_period_and_nothing_else(sessions: Sessions) -> None:
    claim(sessions)
    before = stored(sessions)
    with sessions.begin() as session:
        loops.ensure(session, kind="listener", chain_id=1, every=timedelta(seconds=7))
    after = stored(sessions)
    assert after.every == timedelta(seconds=7)
    assert (after.fence, after.lease_until, after.next_run_at) == (before.fence, before.lease_until, before.next_run_at)
