import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ctrip.database import overview, work
from ctrip.database import webhook_origins as origins
from ctrip.database.models import events, webhook_deliveries, webhook_origins
from ctrip.database.webhook_attempts import ComesNext
from ctrip.domain.ids import Prefix
from ctrip.domain.webhooks import AT_ONCE
from ctrip.outbound.http import Poster
from ctrip.services.webhooks import deliver
from tests.outbound.peers import mute_peer
from tests.services.office import LOOPBACK, Office
from tests.sink import Received, Sink
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


class Doorman:
    """Holds each request until it is let go, and counts how many were held at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.is_open = threading.Event()
        self._lock = threading.Lock()
        self.arrived = threading.Semaphore(0)

    def __call__(self, _: Received) -> int:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.arrived.release()
        self.is_open.wait(10)
        with self._lock:
            self.inside -= 1
        return 200

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=10)


def relayed(office: Office, *, again_after: timedelta = timedelta(seconds=-1)) -> list[str]:
    """What the relay sends for now, however short ago it was sent for."""
    with office.ctx.sessions.begin() as session:
        due = work.claim_due(session, Prefix.DELIVERY, limit=200, again_after=again_after)
    return [each.row_id for each in due]


def pending(office: Office) -> int:
    with office.ctx.sessions.begin() as session:
        of = webhook_deliveries.c
        return session.scalar(sa.select(sa.func.count()).where(of.status == "pending")) or 0


def is_slow(office: Office, url: str) -> bool:
    with office.ctx.sessions.begin() as session:
        query = sa.select(webhook_origins.c.slow_since).where(webhook_origins.c.origin == url.removesuffix("/hooks"))
        return session.scalar(query) is not None


# --- two at once, and the rest in turn ------------------------------------------------------------------------------


def test_no_more_than_two_attempts_are_made_at_one_origin_at_once(office: Office, sink: Sink) -> None:
    sink.answer = doorman = Doorman()
    owed = [office.owe(f"{sink.url}/{n}")[0] for n in range(8)]
    with ThreadPoolExecutor(8) as crowd:
        runs = [crowd.submit(deliver, office.ctx, each) for each in owed]
        doorman.wait_for(AT_ONCE)
        assert relayed(office) == [], "the relay sends for none of an origin that is full"
        doorman.is_open.set()
        for run in runs:
            run.result()
    assert doorman.most == AT_ONCE
    assert pending(office) == 0, "who made an attempt went on with what else was due"
    assert len(sink.received) == len(owed)


def test_those_who_look_at_a_free_origin_at_the_same_moment_do_not_all_go_in(office: Office, sink: Sink) -> None:
    sink.answer = doorman = Doorman()
    owed = [office.owe(f"{sink.url}/{n}")[0] for n in range(5)]

    def waiting() -> int:
        with office.ctx.sessions.begin() as session:
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return session.scalar(sa.text(query)) or 0

    with ThreadPoolExecutor(5) as crowd:
        with office.ctx.sessions.begin() as session:
            session.execute(webhook_origins.insert().values(origin=office.row(owed[0]).origin))
            runs = [crowd.submit(deliver, office.ctx, each) for each in owed]
            wait_until(lambda: waiting() == 5, within_s=10, what="all have found it free and want it")
        doorman.wait_for(AT_ONCE)
        wait_until(lambda: sum(run.done() for run in runs) == 3, within_s=10, what="the others have died")
        doorman.is_open.set()
    assert doorman.most == AT_ONCE
    assert pending(office) == 0


def test_one_message_brings_out_all_that_is_due_at_its_origin_and_nothing_of_another(
    office: Office, sink: Sink
) -> None:
    with Sink() as elsewhere:
        owed = [office.owe(sink.url)[0] for _ in range(20)]
        other, _ = office.owe(elsewhere.url)
        later, _ = office.owe(sink.url)
        office.change(later, next_attempt_at=sa.func.now() + timedelta(seconds=59))
        comes_next = deliver(office.ctx, owed[7], turn=timedelta(seconds=60))
        assert comes_next is not None and comes_next.delivery_id == later
        assert 50 < comes_next.after.total_seconds() <= 59, "soon enough for a delayed message"
        assert {office.row(each).status for each in owed} == {"delivered"}
        assert (office.row(other).status, office.row(later).status) == ("pending", "pending")
        assert len(sink.received) == 20


def test_when_its_turn_is_over_a_run_hands_the_next_one_on(office: Office, sink: Sink) -> None:
    first, second, third = (office.owe(sink.url)[0] for _ in range(3))
    assert office.deliver(first) == second
    assert [office.row(each).status for each in (first, second, third)] == ["delivered", "pending", "pending"]
    assert office.row(second).kicked_at is not None, "the relay need not send for it too"
    assert relayed(office) == [third], "there is one place beside that of the second"
    assert office.deliver(second) == third
    assert office.deliver(third) is None


def test_a_place_that_is_handed_on_waits_for_its_message_and_for_nobody_else(office: Office, sink: Sink) -> None:
    first, second, third, fourth = (office.owe(sink.url)[0] for _ in range(4))
    assert office.deliver(first) == second
    assert deliver(office.ctx, third, turn=timedelta(seconds=60)) is None, "it goes on with the fourth alone"
    statuses = [office.row(each).status for each in (second, third, fourth)]
    assert statuses == ["pending", "delivered", "delivered"]
    office.deliver(second)
    office.deliver(second)
    assert len(sink.received) == 4


def test_nothing_is_posted_to_a_gone_url_by_who_was_handed_a_place_before(office: Office, sink: Sink) -> None:
    elsewhere, (gone, payment) = office.owe(sink.url)[0], office.owe(sink.url)
    sibling = office.owe_more(payment, 2)
    for seconds, each in ((30, elsewhere), (20, sibling), (10, gone)):
        office.change(each, next_attempt_at=sa.func.now() - timedelta(seconds=seconds))
    assert office.deliver(elsewhere) == sibling
    sink.answer = lambda _: 410
    office.deliver(gone)
    assert (office.row(sibling).status, office.row(sibling).lease_until) == ("dead", None)
    office.deliver(sibling)
    assert len(sink.received) == 2


def test_whoever_outslept_its_lease_records_nothing_of_a_delivery_that_was_handed_on(
    office: Office, sink: Sink
) -> None:
    first, second = office.owe(sink.url)[0], office.owe(sink.url)[0]

    def oversleep(_: Received) -> int:
        sink.answer = lambda _: 200
        office.change(first, lease_until=sa.func.now() - timedelta(seconds=1))
        assert office.deliver(second) == first, "it is due first, and seems to be in no attempt"
        return 200

    sink.answer = oversleep
    assert office.deliver(first) is None
    assert (office.row(first).status, office.row(first).attempts) == ("pending", 0)
    office.deliver(first)
    assert (office.row(first).status, office.row(first).attempts) == ("delivered", 1)


def test_whoever_outslept_its_lease_records_nothing_of_a_delivery_that_was_given_up(office: Office, sink: Sink) -> None:
    only, _ = office.owe(sink.url)

    def oversleep(_: Received) -> int:
        office.change(only, lease_until=sa.func.now() - timedelta(seconds=1))
        with office.ctx.sessions.begin() as session:
            work.fail(session, only)
        return 200

    sink.answer = oversleep
    assert office.deliver(only) is None
    assert (office.row(only).status, office.row(only).attempts) == ("failed", 0), "as its dead letter says"


def test_a_row_that_nobody_can_read_takes_nothing_back_of_the_attempt_before_it(office: Office, sink: Sink) -> None:
    first, second = office.owe(sink.url)[0], office.owe(sink.url)[0]
    with office.ctx.sessions.begin() as session:
        newer = sa.update(events).where(events.c.id == office.row(second).event_id)
        session.execute(newer.values(type="payment.of_a_newer_version"))
    for _ in range(2):
        with suppress(ValueError):
            deliver(office.ctx, first, turn=timedelta(seconds=60))
    assert (office.row(first).status, office.row(first).attempts, len(sink.received)) == ("delivered", 1, 1)


def test_a_place_whose_message_was_lost_is_free_when_its_lease_ends(office: Office, sink: Sink) -> None:
    first, second = (office.owe(sink.url)[0] for _ in range(2))
    assert office.deliver(first) == second
    office.change(second, kicked_at=sa.func.now() - timedelta(seconds=31))
    assert relayed(office) == []
    office.change(second, lease_until=sa.func.now() - timedelta(seconds=1))
    assert relayed(office) == [second]


def test_a_place_that_was_lost_in_a_long_sleep_is_not_passed_on(office: Office, sink: Sink) -> None:
    first, second = office.owe(sink.url)[0], office.owe(sink.url)[0]

    def oversleep(_: Received) -> int:
        office.change(first, lease_until=sa.func.now() - timedelta(seconds=1))
        return 200

    sink.answer = oversleep
    comes_next = deliver(office.ctx, first, turn=timedelta(seconds=60))
    assert comes_next is not None and comes_next.delivery_id == second
    assert (office.row(first).status, office.row(second).status) == ("delivered", "pending")


def test_the_lease_of_a_dead_process_keeps_its_place_until_it_ends(office: Office, sink: Sink) -> None:
    owed = [office.owe(sink.url)[0] for _ in range(4)]
    for each in owed[:2]:
        office.change(each, lease_until=sa.func.now() + timedelta(seconds=30))
    assert office.deliver(owed[2]) is None
    assert sink.received == []
    office.change(owed[0], lease_until=sa.func.now() - timedelta(seconds=1))
    office.deliver(owed[2])
    assert len(sink.received) == 1


def test_a_million_due_at_one_origin_hide_no_other(office: Office, sink: Sink) -> None:
    flooded = [office.owe(sink.url)[0] for _ in range(50)]
    with Sink() as elsewhere:
        other, _ = office.owe(elsewhere.url)
    assert sorted(relayed(office)) == sorted([*flooded[:2], other])


# --- the slow lane --------------------------------------------------------------------------------------------------


@contextmanager
def mute(count: int) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [stack.enter_context(mute_peer()).url for _ in range(count)]


def test_an_origin_whose_attempt_timed_out_is_slow_until_it_answers_in_time(office: Office, sink: Sink) -> None:
    office.ctx = replace(office.ctx, poster=Poster(allow=LOOPBACK, timeout_s=0.3))
    release = threading.Event()

    def dawdle(_: Received) -> int:
        release.wait(5)
        return 200

    sink.answer = dawdle
    delivery_id, _ = office.owe(sink.url)
    office.deliver(delivery_id)
    assert is_slow(office, sink.url)
    release.set()
    office.ctx = replace(office.ctx, poster=Poster(allow=LOOPBACK, timeout_s=10))
    office.deliver_when_due(delivery_id)
    assert office.row(delivery_id).status == "delivered"
    assert not is_slow(office, sink.url)


@pytest.mark.parametrize("slow", [False, True])
def test_what_ended_during_an_attempt_does_not_outlive_it(office: Office, sink: Sink, slow: bool) -> None:
    """The other attempt that is made at the same time marks the origin first; then this one ends the other way."""
    office.ctx = replace(office.ctx, poster=Poster(allow=LOOPBACK, timeout_s=0.3 if slow else 10))
    delivery_id, _ = office.owe(sink.url)
    place, ended = office.row(delivery_id).origin, threading.Event()
    with office.ctx.sessions.begin() as session:
        session.execute(webhook_origins.insert().values(origin=place, slow_since=sa.func.now() if slow else None))

    def answer(_: Received) -> int:
        with office.ctx.sessions.begin() as session:
            origins.mark(session, place, is_slow=not slow)
        if slow:
            ended.wait(5)
        return 200

    sink.answer = answer
    office.deliver(delivery_id)
    ended.set()
    assert is_slow(office, sink.url) is slow


def test_slow_origins_take_their_places_and_leave_the_other_threads_to_the_rest(office: Office, sink: Sink) -> None:
    poster = Poster(allow=LOOPBACK, timeout_s=0.5, slow_places=2)
    office.ctx = replace(office.ctx, poster=poster)
    with mute(5) as urls:
        slow = [office.owe(url)[0] for url in urls]
        for each in slow:
            with office.ctx.sessions.begin() as session:
                session.execute(
                    webhook_origins.insert().values(origin=office.row(each).origin, slow_since=sa.func.now())
                )
        good = [office.owe(f"{sink.url}/{n}")[0] for n in range(3)]
        with poster.slow_lane.seat() as one, poster.slow_lane.seat() as two:
            assert one.take() and two.take()
            for each in slow:
                assert deliver(office.ctx, each) is None
            deliver(office.ctx, good[0])
            assert [office.row(each).status for each in good] == ["delivered"] * 3
        assert [office.row(each).attempts for each in slow] == [0] * 5
        assert [office.row(each).lease_until for each in slow] == [None] * 5
        deliver(office.ctx, slow[0])
        assert office.row(slow[0]).attempts == 1
        with poster.slow_lane.seat() as one, poster.slow_lane.seat() as two:
            assert one.take() and two.take(), "who was in the lane has left it"


def test_after_a_first_timeout_the_next_at_that_origin_needs_a_place_in_the_slow_lane(office: Office) -> None:
    poster = Poster(allow=LOOPBACK, timeout_s=0.3, slow_places=1)
    office.ctx = replace(office.ctx, poster=poster)
    with mute(1) as (url,):
        first, second = office.owe(url)[0], office.owe(url)[0]
        with poster.slow_lane.seat() as taken:
            assert taken.take()
            assert deliver(office.ctx, first, turn=timedelta(seconds=60)) == ComesNext(second, timedelta(0))
            assert deliver(office.ctx, second) is None
        assert [office.row(each).attempts for each in (first, second)] == [1, 0]
        assert (office.row(second).status, office.row(second).lease_until) == ("pending", None)
        assert office.row(second).kicked_at is not None, "the relay does not ask at once whether there is a place"


def test_a_slow_origin_stands_back_where_others_want_its_place_in_the_lane(office: Office, sink: Sink) -> None:
    poster = Poster(allow=LOOPBACK, timeout_s=0.3, slow_places=1)
    office.ctx = replace(office.ctx, poster=poster)
    with Sink() as elsewhere:
        recovered, _ = office.owe(elsewhere.url)
        owed = [office.owe(sink.url)[0] for _ in range(4)]
        with office.ctx.sessions.begin() as session:
            for each in (recovered, owed[0]):
                origins.mark(session, office.row(each).origin, is_slow=True)

        def dawdle(_: Received) -> int:
            threading.Event().wait(0.15)
            return 200

        def be_wanted(received: Received) -> int:
            assert office.deliver(recovered) is None, "there is one place, and it is taken"
            return dawdle(received)

        sink.answer = dawdle
        assert office.deliver(owed[0]) == owed[1], "nobody else wants the place yet"
        sink.answer = be_wanted
        assert office.deliver(owed[1]) is None
        assert [office.row(each).lease_until for each in owed] == [None] * 4
        assert relayed(office, again_after=timedelta(seconds=10)) == [], "it waits as long as who was refused"
        office.deliver(recovered)
        assert len(elsewhere.received) == 1


@pytest.mark.parametrize(
    ("slow", "leases", "is_overdue"),
    [(False, 0, True), (False, AT_ONCE - 1, True), (False, AT_ONCE, False), (True, 0, False)],
)
def test_a_delivery_that_waits_for_the_other_side_alone_is_not_overdue(
    office: Office, slow: bool, leases: int, is_overdue: bool
) -> None:
    owed = [office.owe(f"https://shop.example/{n}")[0] for n in range(AT_ONCE + 1)]
    elsewhere, _ = office.owe("https://another.example/hooks")
    office.change_all(next_attempt_at=sa.func.now() - timedelta(hours=1))
    office.change(elsewhere, next_attempt_at=sa.func.now() - timedelta(minutes=1))
    for each in owed[:leases]:
        office.change(each, lease_until=sa.func.now() + timedelta(seconds=30))
    with office.ctx.sessions.begin() as session:
        marked = webhook_origins.insert().values(origin=office.row(owed[0]).origin)
        session.execute(marked.values(slow_since=sa.func.now() if slow else None))
        seen = overview.deliveries(session)
    oldest = owed[-1] if is_overdue else elsewhere
    assert (seen.pending, seen.due_since) == (AT_ONCE + 2, office.row(oldest).next_attempt_at)
