"""From a run that failed to a dead letter, through two operators and two schedulers at once, to one more run."""

import json
import secrets
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from dramatiq.broker import Broker
from dramatiq.middleware import Retries
from redis import Redis

from actors import dead_letters as actor_letters
from actors.dead_letters import collect, record, resend
from actors.middleware.dead_letters import TellDeaths
from actors.queues import Queues
from ctrip.context import Context
from ctrip.domain.dead_letters import DeadLetter, Filter, State
from ctrip.services import audit_log, dead_letters
from ctrip.services.merchants import create_key
from ctrip.web import create_app
from tests.actors.conftest import NAMESPACE, MakeBroker
from tests.actors.workers import declare, working
from tests.api import Api
from tests.conftest import ROOT
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

LETTERS = 30
REFUSE = """
CREATE FUNCTION refuse_odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.message_id LIKE 'odd%' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = 'STATE'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse_odd BEFORE INSERT ON dead_letters FOR EACH ROW EXECUTE FUNCTION refuse_odd();
"""
ODD = [2**200, -(2**64), [], {}, [[], [None]], "zwölf \u2028 😀", "", 1e-9, 10**18 + 1, True]


def test_each_letter_runs_once_more_however_many_ask_and_send_with_its_arguments_byte_for_byte(
    ctx: Context, environment: dict[str, str], make_broker: MakeBroker, queues: Queues, redis_client: Redis
) -> None:
    broker = make_broker(TellDeaths(lambda death: record(ctx, queues, death)), Retries(max_retries=0))
    runs: Counter[str] = Counter()
    seen: dict[int, list[str]] = {}

    def fail_at_first(number: int, *arguments: object) -> None:
        runs[str(number)] += 1
        seen.setdefault(number, []).append(json.dumps(arguments))
        if runs[str(number)] == 1:
            raise ValueError("not yet")

    actor = declare(broker, fail_at_first)
    with working(broker):
        for number in range(LETTERS):
            actor.send(number, *ODD)
        wait_until(lambda: len(matching(ctx, State.OPEN)) == LETTERS, within_s=20)
        done = _two_operators_at_once(ctx, environment)
        _two_schedulers_at_once(ctx, broker)
        wait_until(lambda: sum(runs.values()) == 2 * LETTERS, within_s=20)
        broker.join("q", timeout=10_000)
    assert sum(done) == LETTERS
    assert set(runs.values()) == {2}
    assert {text for texts in seen.values() for text in texts} == {json.dumps(ODD)}
    assert redis_client.keys(f"{NAMESPACE}:q*") == [], "nothing is left, and nothing was sent twice"
    replayed = matching(ctx, State.REPLAYED)
    assert {letter.replays for letter in replayed} == {1}
    assert all(json.dumps(ODD, separators=(",", ":"))[1:-1] in letter.message for letter in replayed)
    assert sum(int(str(deed.detail["done"])) for deed in audit_log.matching(ctx, limit=99)[:-1]) == LETTERS


def matching(ctx: Context, state: State) -> list[DeadLetter]:
    return dead_letters.matching(ctx, Filter(state=state), limit=100)


def _two_operators_at_once(ctx: Context, environment: dict[str, str]) -> list[int]:
    """One over HTTP, letter by letter, and one at the command line. Returns how many each was told of."""
    _, key = create_key(ctx, by="tests", merchant_id=None, scopes=["admin"])
    api = Api(create_app(ctx).test_client(), key)
    tool = [sys.executable, "-m", "ctrip.cli", "dlq", "replay", "--queue", "q"]
    with subprocess.Popen(tool, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as child:
        filters = [{"filter": {"ids": [letter.id]}} for letter in matching(ctx, State.OPEN)]
        answers = [api.post("/admin/dead-letters/replay", one).json for one in filters]
        told, _ = child.communicate()
    return [sum(answer["done"] for answer in answers), int(told.split(" match, ")[1].split()[0])]


def _two_schedulers_at_once(ctx: Context, broker: Broker) -> None:
    together = threading.Barrier(2)

    def send() -> None:
        together.wait()
        while letters := dead_letters.take_requested(ctx):
            for letter in letters:
                resend(broker, letter)

    with ThreadPoolExecutor(2) as schedulers:
        for sending in [schedulers.submit(send) for _ in range(2)]:
            sending.result()


@pytest.mark.parametrize(
    "changes",
    [
        {"options": []},
        {"options": {"first_at": "noon"}},
        {"options": {"replays": "many"}},
        {"options": {"first_at": 10**30}},
        {"message_id": 5},
        {"actor_name": None},
        {"args": 7},
        {"message_timestamp": None},
        {"surprise": True},
    ],
    ids=str,
)
def test_what_dramatiq_never_wrote_is_a_letter_that_nobody_can_read_and_keeps_no_other_from_its_own(
    ctx: Context, queues: Queues, redis_client: Redis, changes: dict[str, object]
) -> None:
    sound = {"queue_name": "q", "actor_name": "act", "args": [], "kwargs": {}, "options": {}, "message_timestamp": 1}
    for name, content in (("odd", sound | {"message_id": "odd"} | changes), ("sound", sound | {"message_id": "sound"})):
        redis_client.zadd(f"{NAMESPACE}:q.XQ", {name: 1 if name == "odd" else 2})
        redis_client.hset(f"{NAMESPACE}:q.XQ.msgs", name, json.dumps(content))
    assert collect(ctx, queues, queue="q", known_actors={"act"}) == 2
    assert {letter.message_id: str(letter.reason) for letter in matching(ctx, State.OPEN)} == {
        "odd": "undecodable",
        "sound": "retries",
    }
    assert redis_client.keys(f"{NAMESPACE}:q*") == []


def die(redis: Redis, name: str, changes: dict[str, object]) -> None:
    whole = {"queue_name": "q", "actor_name": "act", "args": ["row"], "kwargs": {}, "options": {}, "message_id": name}
    at = redis.zcard(f"{NAMESPACE}:q.XQ") + 1
    redis.zadd(f"{NAMESPACE}:q.XQ", {name: at})
    redis.hset(f"{NAMESPACE}:q.XQ.msgs", name, json.dumps(whole | {"message_timestamp": 1} | changes))


def test_names_and_ids_that_postgres_cannot_store_are_stored_as_far_as_it_can(
    ctx: Context, queues: Queues, redis_client: Redis
) -> None:
    incompressible = secrets.token_hex(9_000)
    for number, text in enumerate(("\0", "\ud800", incompressible, "whd_\0", "whd_\ud800", "whd_" + incompressible)):
        for field in ("actor_name", "message_id"):
            die(redis_client, f"{field} {number}", {field: text})
        die(redis_client, f"row {number}", {"args": [text]})
    for replays in (2**31 - 1, 2**40, -(2**40)):
        die(redis_client, f"replayed {replays}", {"options": {"replays": replays}})
    die(redis_client, "sound", {})
    assert collect(ctx, queues, queue="q", known_actors={"act"}, older_than_ms=0) == 22
    assert redis_client.keys(f"{NAMESPACE}:q*") == []
    letters = matching(ctx, State.OPEN)
    assert len(letters) == 22
    assert (
        max(len(name) for letter in letters for name in (letter.actor, letter.message_id, letter.row_id or "")) == 500
    )
    dead_letters.request_replay(ctx, Filter(), by="tests", dry_run=False)
    assert len(dead_letters.take_requested(ctx)) == 22, "and they can be replayed"


@pytest.mark.parametrize("state", ["54000", "23514"], ids=["beyond limits", "against a rule"])
def test_a_dead_message_that_cannot_be_stored_stays_in_redis_and_keeps_no_other_there(
    ctx: Context, queues: Queues, redis_client: Redis, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ctx.sessions.begin() as session:
        session.execute(sa.text(REFUSE.replace("STATE", state)))
    try:
        monkeypatch.setattr(actor_letters, "COLLECT_BATCH", 2)
        for name in ("odd 1", "odd 2", "odd 3", "sound"):
            die(redis_client, name, {})
        assert collect(ctx, queues, queue="q", known_actors={"act"}, older_than_ms=0) == 1
    finally:
        with ctx.sessions.begin() as session:
            session.execute(sa.text("DROP FUNCTION refuse_odd CASCADE"))
    assert [letter.message_id for letter in matching(ctx, State.OPEN)] == ["sound"]
    assert redis_client.hkeys(f"{NAMESPACE}:q.XQ.msgs") == [b"odd 1", b"odd 2", b"odd 3"]
