"""What the one snapshot says of queues in each state, and the dead on their way to Postgres and back."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from dramatiq.message import Message
from dramatiq.middleware import Retries
from redis import Redis

from actors.dead_letters import collect, letter_of, record, resend
from actors.hardened import HardenedBroker
from actors.middleware.dead_letters import Death, TellDeaths
from actors.middleware.due import StampDue
from actors.middleware.poison import PoisonGuard
from actors.queues import DeadMessage, Queues
from ctrip.database.engine import Sessions, make_engine
from ctrip.domain.dead_letters import Filter, Reason
from ctrip.services import dead_letters
from tests.actors.conftest import NAMESPACE, MakeBroker
from tests.actors.workers import declare, working
from tests.waiting import wait_until

pytestmark = pytest.mark.infra
ARGUMENTS = [2**200, [], {}, "zwölf", 10**18 + 1, None, [[1, []], {"a": {}}]]


def later(redis: Redis, minutes: float) -> Queues:
    """The queues as they look after a while."""
    return Queues(
        redis, namespace=NAMESPACE, heartbeat_timeout_ms=30_000, now_ms=lambda: now_ms(redis) + int(minutes * 60_000)
    )


def now_ms(redis: Redis) -> int:
    seconds, microseconds = redis.time()
    return seconds * 1000 + microseconds // 1000


def test_a_snapshot_counts_messages_by_where_they_are(make_broker: MakeBroker, queues: Queues) -> None:
    broker = make_broker(StampDue())
    actor = declare(broker, lambda: None)
    for _ in range(3):
        actor.send()
    actor.send_with_options(delay=60_000)
    broker.do_fetch("q", 1)
    depth, other = queues.depths(["q", "other"])
    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (2, 1, 1, 0)
    assert (other.ready, other.in_flight, other.delayed, other.oldest_ready_age_s) == (0, 0, 0, None)
    assert queues.ready("q") == 2


def test_ages_begin_when_a_message_is_due(make_broker: MakeBroker, queues: Queues, redis_client: Redis) -> None:
    actor = declare(make_broker(StampDue()), lambda: None)
    actor.send()
    actor.send_with_options(delay=60_000)
    (now,), (in_two_minutes,) = queues.depths(["q"]), later(redis_client, 2).depths(["q"])
    assert now.oldest_ready_age_s is not None and now.oldest_ready_age_s < 5
    assert now.overdue_s == 0
    assert in_two_minutes.oldest_ready_age_s == pytest.approx(120, abs=5)
    assert in_two_minutes.overdue_s == pytest.approx(60, abs=5)


def test_what_a_worker_that_is_gone_had_taken_is_stranded(
    make_broker: MakeBroker, queues: Queues, redis_client: Redis
) -> None:
    broker = make_broker()
    actor = declare(broker, lambda: None)
    actor.send()
    actor.send_with_options(delay=1)
    broker.do_fetch("q", 1)
    broker.do_fetch("q.DQ", 1)
    assert queues.depths(["q"])[0].stranded == 0, "it lives"
    assert later(redis_client, 1).depths(["q"])[0].stranded == 2


def test_nonsense_in_redis_does_not_blind_the_snapshot(redis_client: Redis, queues: Queues) -> None:
    redis_client.rpush(f"{NAMESPACE}:q", "a")
    redis_client.hset(f"{NAMESPACE}:q.msgs", mapping={"a": "no JSON"})
    redis_client.hset(f"{NAMESPACE}:q.DQ.msgs", mapping={"b": "[1", "c": "[]", "d": '{"options":{"eta":"x"}}'})
    (depth,) = queues.depths(["q"])
    assert (depth.ready, depth.delayed, depth.oldest_ready_age_s) == (1, 3, 0)


# --- dead letters ---------------------------------------------------------------------------------------------------


def failing_broker(make_broker: MakeBroker, ctx, queues: Queues, *, retries: int = 0) -> HardenedBroker:
    """A broker whose dead messages are recorded as in the product."""
    return make_broker(
        TellDeaths(lambda death: record(ctx, queues, death)),
        StampDue(),
        PoisonGuard(),
        Retries(max_retries=retries, min_backoff=20, max_backoff=40),
    )


def test_a_dead_message_is_recorded_with_its_arguments_byte_for_byte_and_replayed_with_them(
    ctx, make_broker: MakeBroker, queues: Queues, redis_client: Redis
) -> None:
    broker = failing_broker(make_broker, ctx, queues)
    ran: list[tuple[object, ...]] = []

    def work(*args: object) -> None:
        ran.append(args)
        if len(ran) == 1:
            raise ValueError(f"{'whsec_c2VjcmV0'} is no use")

    actor = declare(broker, work)
    sent = actor.message(*ARGUMENTS)
    with working(broker):
        broker.enqueue(sent)
        (letter,) = wait_until(lambda: dead_letters.matching(ctx, Filter(), limit=9), within_s=5)
        assert json.dumps(letter.args) == json.dumps(ARGUMENTS)
        assert f'"args":{json.dumps(ARGUMENTS, separators=(",", ":"))}' in letter.message
        assert (letter.queue, letter.actor, letter.reason) == ("q", "act", Reason.RETRIES)
        assert (letter.row_id, letter.message_id, letter.replays) == (str(2**200), sent.message_id, 0)
        assert letter.exception == "ValueError: [redacted] is no use"
        assert letter.traceback is not None and "in work" in letter.traceback
        assert letter.first_at <= letter.died_at
        wait_until(lambda: redis_client.keys(f"{NAMESPACE}:q.XQ*") == [], within_s=5, what="Postgres has it now")
        dead_letters.request_replay(ctx, Filter(), by="tests", dry_run=False)
        for taken in dead_letters.take_requested(ctx):
            resend(broker, taken)
        wait_until(lambda: len(ran) == 2, within_s=5)
    assert ran[0] == ran[1] == tuple(ARGUMENTS)


def test_a_replayed_message_that_dies_again_is_a_letter_that_tells_of_it(
    ctx, make_broker: MakeBroker, queues: Queues
) -> None:
    broker = failing_broker(make_broker, ctx, queues, retries=1)
    runs: list[str] = []

    def fail(row_id: str) -> None:
        runs.append(row_id)
        raise ValueError("no")

    actor = declare(broker, fail)
    with working(broker):
        actor.send("row")
        wait_until(lambda: dead_letters.matching(ctx, Filter(), limit=9), within_s=5)
        dead_letters.request_replay(ctx, Filter(), by="tests", dry_run=False)
        for taken in dead_letters.take_requested(ctx):
            resend(broker, taken)
        wait_until(lambda: len(dead_letters.matching(ctx, Filter(), limit=9)) == 2, within_s=5)
    assert len(runs) == 4, "each life has its own retries"
    second, first = dead_letters.matching(ctx, Filter(), limit=9)
    assert (first.replays, second.replays) == (1, 1)
    assert second.message_id == first.message_id
    assert abs(second.first_at - first.first_at) < timedelta(milliseconds=2), "the first time is the first time"
    assert (first.replayed_at is None, second.replayed_at is None) == (False, True)


def test_a_death_that_no_worker_could_record_is_collected_once(ctx, make_broker: MakeBroker, queues: Queues) -> None:
    broker = make_broker(Retries(max_retries=0))
    actor = declare(broker, lambda _: 1 // 0)
    with working(broker):
        actor.send("row")
        broker.enqueue(Message("q", "nobody", (), {}, {}))
        wait_until(lambda: queues.depths(["q"])[0].dead == 2, within_s=5)
    known = broker.get_declared_actors()
    assert collect(ctx, queues, queue="q", known_actors=known) == 0, "their worker may be at it"
    assert collect(ctx, queues, queue="q", known_actors=known, older_than_ms=0) == 2
    assert collect(ctx, queues, queue="q", known_actors=known, older_than_ms=0) == 0
    letters = {letter.actor: letter for letter in dead_letters.matching(ctx, Filter(), limit=9)}
    assert {name: letter.reason for name, letter in letters.items()} == {
        "act": Reason.RETRIES,
        "nobody": Reason.UNKNOWN_ACTOR,
    }
    assert (letters["act"].row_id, letters["nobody"].row_id) == ("row", None)


def test_what_cannot_be_read_is_recorded_as_it_was_the_moment_it_is_fetched(
    ctx, make_broker: MakeBroker, queues: Queues, redis_client: Redis
) -> None:
    nonsense = b'{"args": ["zw\xc3\xb6lf", 1e999], \xff "whsec'
    broker = failing_broker(make_broker, ctx, queues)
    declare(broker, lambda _: None)
    redis_client.hset(f"{NAMESPACE}:q.msgs", mapping={"bad": nonsense})
    redis_client.rpush(f"{NAMESPACE}:q", "bad")
    with working(broker):
        (letter,) = wait_until(lambda: dead_letters.matching(ctx, Filter(), limit=9), within_s=5)
        wait_until(lambda: redis_client.keys(f"{NAMESPACE}:q*") == [], within_s=5, what="Postgres has it now")
    assert (letter.queue, letter.actor, letter.reason) == ("q", "", Reason.UNDECODABLE)
    assert letter.message == '{"args": ["zwölf", 1e999], \\xff "whsec'
    assert (letter.message_id, letter.args, letter.row_id) == ("bad", None, None)
    assert letter.exception is not None and letter.exception.startswith("DecodeError: ")


def test_what_cannot_be_read_and_was_not_recorded_is_collected(ctx) -> None:
    letter = letter_of(DeadMessage("q", "some-id", b"\xff\0 no message", 1_000))
    assert (letter.reason, letter.args) == (Reason.UNDECODABLE, None)
    assert dead_letters.record(ctx, letter)


def test_a_death_while_postgres_is_away_stays_in_redis(ctx, make_broker: MakeBroker, queues: Queues) -> None:
    gone = Sessions(make_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none", process="tests"))
    broker = failing_broker(make_broker, replace(ctx, sessions=gone), queues)
    actor = declare(broker, lambda _: 1 // 0)
    with working(broker):
        actor.send("row")
        wait_until(lambda: queues.depths(["q"])[0].dead == 1, within_s=5)
    assert collect(ctx, queues, queue="q", known_actors={"act"}, older_than_ms=0) == 1


def test_a_death_that_is_recorded_already_and_gone_from_redis_is_no_second_letter(ctx, queues: Queues) -> None:
    record(ctx, queues, Death(queue="q", redis_id="gone", reason="retries", exception=None))
    assert dead_letters.matching(ctx, Filter(), limit=9) == []
