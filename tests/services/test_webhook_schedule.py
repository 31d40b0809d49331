"""The whole schedule, with a process that is new at each attempt; and what hostile sinks cost."""

import gzip
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ctrip.box import SecretsBox
from ctrip.context import Context
from ctrip.database.engine import Sessions, make_engine
from ctrip.domain.ids import Prefix
from ctrip.domain.webhooks import JITTER
from ctrip.outbound.http import Poster
from ctrip.services import relay, webhook_deliveries
from ctrip.services.webhooks import deliver
from tests.conftest import SECRETS_KEY
from tests.factories import MERCHANT_ID
from tests.outbound.peers import Behaviour, drips, floods, peer, says, silence
from tests.services.office import LOOPBACK, Office
from tests.sink import Sink

pytestmark = pytest.mark.infra
SPAN = timedelta(hours=75.6)


def restarted(office: Office, postgres_url: str) -> Context:
    """What a new process has: connections, keys and sockets of its own, and no memory."""
    return replace(
        office.ctx,
        sessions=Sessions(make_engine(postgres_url, process="restarted")),
        box=SecretsBox([SECRETS_KEY]),
        poster=Poster(allow=LOOPBACK, timeout_s=10),
    )


def pass_time(office: Office, delivery_id: str, span: timedelta) -> None:
    """Let all that is written down about a delivery have happened so much earlier."""
    with office.ctx.sessions.begin() as session:
        for table, key, moments in (
            ("webhook_deliveries", "id", ("next_attempt_at", "kicked_at", "created_at")),
            ("webhook_attempts", "delivery_id", ("at",)),
        ):
            changes = ", ".join(f"{moment} = {moment} - :span" for moment in moments)
            session.execute(
                sa.text(f"UPDATE {table} SET {changes} WHERE {key} = :id"), {"span": span, "id": delivery_id}
            )


def test_the_whole_schedule_runs_its_three_days_through_restarts_then_dies_and_is_redelivered(
    office: Office, sink: Sink, postgres_url: str
) -> None:
    sink.answer = lambda _: 503
    delivery_id, _ = office.owe(sink.url)
    gaps_s = office.ctx.settings.webhook_gaps_s
    assert sum(gaps_s) == SPAN / timedelta(seconds=1) - 55 == 272_105, "75 h 35 min 5 s; 75.6 h in short"
    for attempt, gap_s in enumerate(gaps_s):
        if attempt:
            row = office.row(delivery_id)
            wait = row.next_attempt_at - office.now()
            assert (1 - JITTER) * gap_s - 5 <= wait.total_seconds() <= (1 + JITTER) * gap_s
            pass_time(office, delivery_id, wait - timedelta(seconds=1))
            assert office.sent_for() == [], f"attempt {attempt + 1} is not due a second before its time"
            # Redis has forgotten the delayed message of the near one: the relay waits a while before it believes that.
            pass_time(office, delivery_id, timedelta(seconds=1.05) + relay.AGAIN_AFTER)
        ctx = restarted(office, postgres_url)
        assert [due.row_id for due in relay.claim_due(ctx, Prefix.DELIVERY)] == [delivery_id]
        deliver(ctx, delivery_id)
        ctx.sessions.engine.dispose()
        assert len(sink.received) == attempt + 1
    history = office.history(delivery_id)
    assert (1 - JITTER) * SPAN < history[-1].at - history[0].at < (1 + JITTER) * SPAN
    assert (office.row(delivery_id).status, office.row(delivery_id).dead_reason) == ("dead", "schedule")
    assert [letter.row_id for letter in office.letters()] == [delivery_id]
    sink.answer = lambda _: 200
    webhook_deliveries.redeliver(office.ctx, MERCHANT_ID, delivery_id)
    deliver(restarted(office, postgres_url), delivery_id)
    assert (office.row(delivery_id).status, office.row(delivery_id).attempts) == ("delivered", 11)
    assert len({(received.headers["webhook-id"], received.body) for received in sink.received}) == 1


# --- hostile sinks --------------------------------------------------------------------------------------------------

BOMB = gzip.compress(bytes(50_000_000))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
HOSTILE: dict[str, tuple[Behaviour, str]] = {
    "slow loris: a byte of the status line now and then": (drips(b"HTTP/1.1 200 OK"), "pending"),
    "headers that never end": (says(b"HTTP/1.1 200 OK\r\n", then=drips(b"X: y\r\n")), "delivered"),
    "a body that never ends": (says(HEAD + b"\r\n", then=drips(b"x")), "delivered"),
    "10 MB": (says(HEAD + b"Content-Length: 10000000\r\n\r\n", bytes(10_000_000)), "delivered"),
    "a flood without a length": (says(HEAD + b"\r\n", then=floods(bytes(65_536))), "delivered"),
    "a gzip bomb": (
        says(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB), BOMB),
        "delivered",
    ),
    "never a word": (silence, "pending"),
}

ATTEMPT = """
import sys, time
from ipaddress import ip_network
from ctrip.box import SecretsBox
from ctrip.context import Context
from ctrip.database.engine import make_engine, Sessions
from ctrip.outbound.http import Poster
from ctrip.services.webhooks import deliver
from ctrip.settings import Role, Settings
url, key, timeout_s, first, *rest = sys.argv[1:]
settings = Settings(role=Role.WEBHOOK, env="test", log_level="INFO", database_url=url, redis_url="", chains=())
poster = Poster(allow=(ip_network("127.0.0.0/8"),), timeout_s=float(timeout_s))
sessions = Sessions(make_engine(url, process="hostile"))
ids = iter(range(1000))
ctx = Context(settings, sessions, lambda: None, lambda prefix: f"{prefix}_{next(ids)}", {}, box=SecretsBox([key]),
              poster=poster)
def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
deliver(ctx, first)
for each in rest:
    open("/proc/self/clear_refs", "w").write("5")  # forgets the peak so far
    before, began = memory("VmRSS"), time.monotonic()
    deliver(ctx, each)
    print(each, memory("VmHWM") - before, time.monotonic() - began)
"""


def cost(office: Office, sink: Sink, postgres_url: str, urls: list[str], *, timeout_s: float) -> dict[str, list[float]]:
    """Attempt one delivery to each URL in a process of its own, after one to a good sink.

    Returns by how many KiB its memory rose at the most, and how many seconds it took, by the delivery's id.
    """
    warm = office.owe(sink.url)[0]
    owed = [office.owe(url)[0] for url in urls]
    command = [sys.executable, "-c", ATTEMPT, postgres_url, SECRETS_KEY, str(timeout_s), warm, *owed]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("whd_")]
    assert [line[0] for line in lines] == owed
    return {line[0]: [float(line[1]), float(line[2])] for line in lines}


def test_whatever_a_sink_does_an_attempt_ends_in_time_and_takes_less_than_a_megabyte(
    office: Office, sink: Sink, postgres_url: str
) -> None:
    timeout_s = 1.5
    with ExitStack() as stack:
        urls = [stack.enter_context(peer(behave)).url for behave, _ in HOSTILE.values()]
        costs = cost(office, sink, postgres_url, urls, timeout_s=timeout_s)
    for (name, (_, status)), (delivery_id, (grown_kib, took_s)) in zip(HOSTILE.items(), costs.items(), strict=True):
        assert office.row(delivery_id).status == status, name
        assert grown_kib < 1024, f"{name}: {grown_kib} KiB"
        assert took_s < timeout_s + 2, f"{name}: {took_s} s"


@pytest.mark.chaos
def test_a_sink_that_never_answers_is_given_fifteen_seconds_by_the_clock_on_the_wall(
    office: Office, sink: Sink, postgres_url: str
) -> None:
    with peer(silence) as there:
        ((_, took_s),) = cost(office, sink, postgres_url, [there.url], timeout_s=Poster().timeout_s).values()
    assert 15 <= took_s < 16
