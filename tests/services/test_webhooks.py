import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ctrip.box import SecretsBox, new_secrets_key
from ctrip.database import webhooks, work
from ctrip.database.models import webhook_deliveries
from ctrip.domain.webhooks import DeadReason
from ctrip.errors import LostFence, MisconfiguredError, NotFound
from ctrip.outbound.http import Poster
from ctrip.services.webhook_deliveries import find, of_merchant
from ctrip.services.webhooks.endings import bury
from tests.conftest import SECRETS_KEY, WEBHOOK_SECRET
from tests.factories import MERCHANT_ID
from tests.outbound.peers import answers, mute_peer, peer
from tests.services.office import LOOPBACK, OTHER_MERCHANT_ID, Office
from tests.sink import Received, Sink
from tests.waiting import wait_until

pytestmark = pytest.mark.infra


def broken(_: Received) -> int:
    return 500


# --- delivered ------------------------------------------------------------------------------------------------------


def test_an_event_arrives_signed_once_and_its_delivery_is_done(office: Office, sink: Sink) -> None:
    delivery_id, payment = office.owe(sink.url)
    assert office.deliver(delivery_id) is None
    assert office.deliver(delivery_id) is None
    (received,) = sink.received
    received.verify(WEBHOOK_SECRET)
    row = office.row(delivery_id)
    assert received.headers["webhook-id"] == received.event["id"] == row.event_id
    assert received.headers["content-type"] == "application/json"
    assert received.event["type"] == "payment.created"
    assert received.event["data"]["payment"]["id"] == payment.id
    assert (row.status, row.attempts, row.last_status_code) == ("delivered", 1, 200)
    assert (row.next_attempt_at, row.lease_until) == (None, None)
    assert row.delivered_at is not None
    (attempt,) = office.history(delivery_id)
    assert (attempt.number, attempt.status_code, attempt.error) == (1, 200, None)
    assert received.headers["webhook-timestamp"] == str(int(attempt.at.timestamp()))


def test_a_signature_fails_over_other_bytes_or_under_another_secret(office: Office, sink: Sink) -> None:
    delivery_id, _ = office.owe(sink.url)
    office.deliver(delivery_id)
    (received,) = sink.received
    with pytest.raises(Exception, match="No matching signature"):
        replace(received, body=received.body.replace(b"created", b"settled")).verify(WEBHOOK_SECRET)
    with pytest.raises(Exception, match="No matching signature"):
        received.verify("whsec_AAAA" + WEBHOOK_SECRET[10:])


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success(office: Office, sink: Sink, status: int) -> None:
    sink.answer = lambda _: status
    delivery_id, _ = office.owe(sink.url)
    office.deliver(delivery_id)
    assert office.row(delivery_id).status == "delivered"


@pytest.mark.parametrize(
    "values",
    [
        {"next_attempt_at": sa.func.now() + timedelta(seconds=1)},
        {"lease_until": sa.func.now() + timedelta(seconds=1)},
        {"status": "failed", "next_attempt_at": None},
        {"status": "dead", "next_attempt_at": None, "dead_reason": "schedule"},
        {"status": "delivered", "next_attempt_at": None, "delivered_at": sa.func.now()},
    ],
)
def test_nothing_is_sent_of_a_delivery_that_is_not_due_or_is_anothers(office: Office, sink: Sink, values) -> None:
    delivery_id, _ = office.owe(sink.url)
    office.change(delivery_id, **values)
    assert office.deliver(delivery_id) is None
    assert office.deliver("whd_unknown") is None
    assert sink.received == []
    assert office.row(delivery_id).fence == 0


def test_no_transaction_is_open_while_the_other_side_takes_its_time(office: Office, sink: Sink) -> None:
    idle: list[int] = []

    def answer(_: Received) -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        with office.ctx.sessions.begin() as session:
            idle.append(session.scalar(sa.text(query)) or 0)
        return 200

    sink.answer = answer
    delivery_id, _ = office.owe(sink.url)
    office.deliver(delivery_id)
    assert idle == [0]


# --- retried --------------------------------------------------------------------------------------------------------


def test_the_whole_schedule_is_tried_under_one_id_and_ends_as_a_dead_letter(office: Office, sink: Sink) -> None:
    statuses = [500, 301, 404, 429, 503, 308, 400, 502, 204 + 100, 500]
    sink.answer = lambda _: statuses[len(sink.received) - 1]
    delivery_id, _ = office.owe(sink.url)
    gaps_s = office.ctx.settings.webhook_gaps_s
    for attempt in range(1, 10):
        comes_next = office.deliver_when_due(delivery_id)
        row, made = office.row(delivery_id), office.history(delivery_id)
        assert (row.status, row.attempts, len(made)) == ("pending", attempt, attempt)
        waited_s = (row.next_attempt_at - made[-1].at).total_seconds()
        assert 0.8 * gaps_s[attempt] <= waited_s <= 1.2 * gaps_s[attempt] + 5
        assert comes_next == (delivery_id if attempt == 1 else None), "only a near attempt is worth a delayed message"
        assert row.kicked_at == (row.next_attempt_at if attempt == 1 else None), "the relay sends for all the others"
        assert office.letters() == []
    assert office.deliver_when_due(delivery_id) is None
    assert {received.headers["webhook-id"] for received in sink.received} == {office.row(delivery_id).event_id}
    assert len({received.body for received in sink.received}) == 1
    assert [made.status_code for made in office.history(delivery_id)] == statuses
    row = office.row(delivery_id)
    assert (row.status, row.dead_reason, row.next_attempt_at, row.attempts) == ("dead", "schedule", None, 10)
    (letter,) = office.letters()
    assert (letter.reason, letter.row_id, letter.args) == ("schedule", delivery_id, [delivery_id])
    assert (letter.queue, letter.actor, letter.exception) == ("webhook", "send_webhook", "HTTP 500")
    assert office.deliver(delivery_id) is None
    assert len(sink.received) == 10


def test_a_sink_that_heals_within_the_schedule_gets_the_event(office: Office, sink: Sink) -> None:
    sink.answer = lambda _: 500 if len(sink.received) < 10 else 200
    delivery_id, _ = office.owe(sink.url)
    office.exhaust(delivery_id)
    assert (office.row(delivery_id).status, office.row(delivery_id).attempts) == ("delivered", 10)
    assert office.letters() == []


def test_retry_after_is_honoured(office: Office) -> None:
    with peer(answers(503, "Retry-After: 3600")) as there:
        delivery_id, _ = office.owe(there.url)
        assert office.deliver(delivery_id) is None
    row, (made,) = office.row(delivery_id), office.history(delivery_id)
    assert 3600 <= (row.next_attempt_at - made.at).total_seconds() < 3610


def test_silence_is_an_attempt_without_a_status(office: Office) -> None:
    office.ctx = replace(office.ctx, poster=Poster(allow=LOOPBACK, timeout_s=0.3))
    with mute_peer() as there:
        delivery_id, _ = office.owe(there.url)
        office.deliver(delivery_id)
    (made,) = office.history(delivery_id)
    assert (made.status_code, made.response, made.error) == (None, None, "the destination took too long")
    assert made.duration_ms >= 300
    assert office.row(delivery_id).status == "pending"


def test_a_destination_that_may_not_be_dialled_is_tried_on_schedule_and_never_dialled(
    office: Office, sink: Sink
) -> None:
    delivery_id, _ = office.owe(sink.url)
    office.ctx = replace(office.ctx, poster=Poster())
    office.exhaust(delivery_id)
    assert sink.received == []
    assert (office.row(delivery_id).status, office.row(delivery_id).attempts) == ("dead", 10)
    assert "https" in (office.letters()[0].exception or "")


def test_what_a_hostile_answer_says_can_be_stored(office: Office) -> None:
    with peer(answers(500, body=b"\x00\xff\xfe" * 1000)) as there:
        delivery_id, _ = office.owe(there.url)
        office.deliver(delivery_id)
    (made,) = office.history(delivery_id)
    assert made.response.startswith("\ufffd")
    assert len(made.response) <= 1024


# --- gone -----------------------------------------------------------------------------------------------------------


def test_a_gone_url_ends_the_payments_deliveries_to_it_and_no_others(office: Office, sink: Sink) -> None:
    sink.answer = lambda _: 410
    delivery_id, payment = office.owe(sink.url)
    waiting, in_attempt = office.owe_more(payment, 2), office.owe_more(payment, 3)
    elsewhere = office.owe_more(replace(payment, webhook_url=sink.url + "/other"), 4)
    another, _ = office.owe(sink.url)
    office.change(in_attempt, lease_until=sa.func.now() + timedelta(seconds=30))
    assert office.deliver(delivery_id) in (elsewhere, another), "what else is due at the origin comes next"
    dead = {each: office.row(each).dead_reason for each in (delivery_id, waiting, in_attempt, elsewhere, another)}
    assert dead == {
        delivery_id: "endpoint_disabled",
        waiting: "endpoint_disabled",
        in_attempt: None,
        elsewhere: None,
        another: None,
    }
    assert {letter.row_id for letter in office.letters()} == {delivery_id, waiting}
    assert {(letter.reason, letter.exception) for letter in office.letters()} == {("endpoint_disabled", "HTTP 410")}
    assert office.deliver(waiting) is None
    assert len(sink.received) == 1


# --- at once, and cut short -----------------------------------------------------------------------------------------


def test_of_many_who_bring_the_same_delivery_one_posts(office: Office, sink: Sink) -> None:
    for _ in range(5):
        sink.received.clear()
        delivery_id, _ = office.owe(sink.url)
        together = threading.Barrier(6)

        def bring(delivery_id: str = delivery_id, together: threading.Barrier = together) -> None:
            together.wait()
            office.deliver(delivery_id)

        with ThreadPoolExecutor(6) as crowd:
            for done in [crowd.submit(bring) for _ in range(6)]:
                done.result()
        assert len(sink.received) == 1
        assert (office.row(delivery_id).status, office.row(delivery_id).attempts) == ("delivered", 1)


DELIVER_ONCE = """
import sys
from ipaddress import ip_network
from ctrip.box import SecretsBox
from ctrip.context import Context
from ctrip.database.engine import make_engine, Sessions
from ctrip.outbound.http import Poster
from ctrip.services.webhooks import deliver
from ctrip.settings import Role, Settings
url, key, delivery_id = sys.argv[1:]
settings = Settings(role=Role.WEBHOOK, env="test", log_level="INFO", database_url=url, redis_url="", chains=())
poster = Poster(allow=(ip_network("127.0.0.0/8"),))
sessions = Sessions(make_engine(url, process="doomed"))
ctx = Context(settings, sessions, lambda: None, lambda prefix: "", {}, box=SecretsBox([key]), poster=poster)
deliver(ctx, delivery_id)
"""


def test_a_kill_between_post_and_record_sends_the_same_event_again(
    office: Office, sink: Sink, postgres_url: str
) -> None:
    doomed: list[subprocess.Popen[bytes]] = []

    def kill(_: Received) -> int:
        os.kill(wait_until(lambda: doomed, within_s=5)[0].pid, signal.SIGKILL)
        return 200

    sink.answer = kill
    delivery_id, _ = office.owe(sink.url)
    doomed.append(subprocess.Popen([sys.executable, "-c", DELIVER_ONCE, postgres_url, SECRETS_KEY, delivery_id]))
    assert doomed[0].wait(30) == -signal.SIGKILL
    assert len(sink.received) == 1
    sink.answer = lambda _: 200
    assert office.deliver(delivery_id) is None
    assert len(sink.received) == 1, "the dead process's lease still stands"
    assert office.row(delivery_id).status == "pending"
    office.change(delivery_id, lease_until=sa.func.now() - timedelta(seconds=1))
    office.deliver(delivery_id)
    assert len({received.headers["webhook-id"] for received in sink.received}) == 1
    assert len(sink.received) == 2
    assert (office.row(delivery_id).status, len(office.history(delivery_id))) == ("delivered", 1)


def test_a_run_that_was_overtaken_records_nothing(office: Office, sink: Sink) -> None:
    def overtake(_: Received) -> int:
        if len(sink.received) > 1:
            return 200
        office.change(delivery_id, lease_until=sa.func.now() - timedelta(seconds=1))
        office.deliver(delivery_id)
        return 500

    sink.answer = overtake
    delivery_id, _ = office.owe(sink.url)
    assert office.deliver(delivery_id) is None
    assert len(sink.received) == 2
    assert (office.row(delivery_id).status, office.row(delivery_id).attempts) == ("delivered", 1)
    assert [made.status_code for made in office.history(delivery_id)] == [200]


def test_an_exception_gives_the_claim_back_and_goes_on(office: Office, sink: Sink) -> None:
    delivery_id, _ = office.owe(sink.url)
    keys, office.ctx = office.ctx, replace(office.ctx, box=SecretsBox([new_secrets_key()]))
    with pytest.raises(MisconfiguredError, match="SECRETS_KEY"):
        office.deliver(delivery_id)
    row = office.row(delivery_id)
    assert (row.status, row.attempts, row.lease_until, sink.received) == ("pending", 0, None, [])
    office.ctx = keys
    office.deliver(delivery_id)
    assert office.row(delivery_id).status == "delivered"


def test_a_process_that_holds_no_secrets_or_dials_nobody_says_so(office: Office, sink: Sink) -> None:
    delivery_id, _ = office.owe(sink.url)
    whole = office.ctx
    for office.ctx in (replace(whole, box=None), replace(whole, poster=None)):
        with pytest.raises(MisconfiguredError):
            office.deliver(delivery_id)
    assert sink.received == []


# --- replayed -------------------------------------------------------------------------------------------------------


def test_a_replayed_delivery_has_a_fresh_schedule_and_its_attempts_go_on_counting(office: Office, sink: Sink) -> None:
    sink.answer = broken
    delivery_id, _ = office.owe(sink.url)
    office.exhaust(delivery_id)
    with office.ctx.sessions.begin() as session:
        work.revive(session, [delivery_id])
    office.deliver(delivery_id)
    waited = office.row(delivery_id).next_attempt_at - office.history(delivery_id)[-1].at
    assert 4 <= waited.total_seconds() <= 7, "the second gap of the schedule, after its first attempt"
    assert (office.row(delivery_id).status, office.row(delivery_id).attempts) == ("pending", 11)
    sink.answer = lambda _: 200
    office.deliver_when_due(delivery_id)
    assert (office.row(delivery_id).status, office.row(delivery_id).attempts) == ("delivered", 12)
    assert [made.number for made in office.history(delivery_id)] == list(range(1, 13))
    assert len({received.headers["webhook-id"] for received in sink.received}) == 1


def test_a_replayed_delivery_that_dies_again_leaves_a_second_letter(office: Office, sink: Sink) -> None:
    sink.answer = broken
    delivery_id, _ = office.owe(sink.url)
    office.exhaust(delivery_id)
    with office.ctx.sessions.begin() as session:
        work.revive(session, [delivery_id])
    office.exhaust(delivery_id)
    assert [letter.row_id for letter in office.letters()] == [delivery_id] * 2
    assert office.row(delivery_id).attempts == 20


# --- told -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_committed", [True, False])
def test_only_letters_that_are_stored_are_counted(office: Office, sink: Sink, is_committed: bool) -> None:
    def counted() -> float:
        labels = {"queue": "webhook", "actor": "send_webhook", "reason": "endpoint_disabled"}
        return REGISTRY.get_sample_value("ctrip_dead_letters_total", labels) or 0

    before = counted()
    office.owe(sink.url)
    with suppress(LostFence), office.ctx.sessions.begin() as session:
        dead = [webhooks.read(row) for row in session.execute(sa.select(webhook_deliveries))]
        bury(office.ctx, session, dead, reason=DeadReason.ENDPOINT_DISABLED, last="HTTP 410")
        if not is_committed:
            raise LostFence("another has claimed it since")
    assert (len(office.letters()), counted() - before) == ((1, 1) if is_committed else (0, 0))


def test_each_attempt_is_counted_and_logged_without_what_it_carried(office: Office, sink: Sink) -> None:
    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("ctrip_webhook_attempts_total", {"outcome": outcome}) or 0

    names = ("retry", "delivered", "dead")
    before = [counted(name) for name in names]
    statuses = iter([500, 200, 410])
    sink.answer = lambda _: next(statuses)
    first, _ = office.owe(sink.url)
    second, _ = office.owe(sink.url)
    with capture_logs() as lines:
        office.deliver_when_due(first)
        office.deliver_when_due(first)
        office.deliver_when_due(second)
    assert [counted(name) - was for name, was in zip(names, before, strict=True)] == [1, 1, 1]
    told = [line for line in lines if line["event"] == "webhook_attempted"]
    assert [(line["delivery_id"], line["outcome"]) for line in told] == [
        (first, "retry"),
        (first, "delivered"),
        (second, "dead"),
    ]
    for received in sink.received:
        for secret in (WEBHOOK_SECRET, received.headers["webhook-signature"], received.event["data"]["payment"]["id"]):
            assert secret not in str(lines)


def test_a_merchant_sees_its_own_deliveries_newest_first_page_by_page(office: Office, sink: Sink) -> None:
    mine = [office.owe(sink.url)[0] for _ in range(5)]
    theirs, _ = office.owe(sink.url, merchant_id=OTHER_MERCHANT_ID)
    first: Any = of_merchant(office.ctx, MERCHANT_ID, limit=3)
    second: Any = of_merchant(office.ctx, MERCHANT_ID, limit=3, after=first["next_cursor"])
    seen = [each["id"] for page in (first, second) for each in page["data"]]
    assert seen == mine[::-1]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    others: Any = of_merchant(office.ctx, OTHER_MERCHANT_ID, limit=3)
    assert [each["id"] for each in others["data"]] == [theirs]


def test_a_delivery_is_found_with_its_history_by_its_merchant_alone(office: Office, sink: Sink) -> None:
    sink.answer = broken
    delivery_id, _ = office.owe(sink.url)
    office.deliver_when_due(delivery_id)
    office.deliver_when_due(delivery_id)
    found: Any = find(office.ctx, MERCHANT_ID, delivery_id)
    assert (found["id"], found["status"], found["attempts"], found["last_status_code"]) == (
        delivery_id,
        "pending",
        2,
        500,
    )
    assert [each["status_code"] for each in found["history"]] == [500, 500]
    for merchant_id, wanted in ((OTHER_MERCHANT_ID, delivery_id), (MERCHANT_ID, "whd_unknown")):
        with pytest.raises(NotFound):
            find(office.ctx, merchant_id, wanted)


def test_a_payments_deliveries_stand_in_the_order_of_its_events(office: Office, sink: Sink) -> None:
    first, payment = office.owe(sink.url)
    rest = [office.owe_more(payment, version) for version in (2, 3, 4, 5)]
    office.owe(sink.url)
    with office.ctx.sessions.begin() as session:
        whole = webhooks.of_payment(session, payment.id, limit=10)
        page = webhooks.of_payment(session, payment.id, limit=2, after=rest[0])
    assert [delivery.id for delivery, _ in whole] == [first, *rest]
    assert [delivery.id for delivery, _ in page] == rest[1:3]
