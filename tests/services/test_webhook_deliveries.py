from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.database import dead_letters, webhooks, work
from ctrip.database.models import dead_letters as letters_table
from ctrip.domain.ids import Prefix
from ctrip.domain.webhook_endpoints import EndpointStatus
from ctrip.domain.webhooks import CUSTOM_GAPS_S
from ctrip.errors import Conflict, NotFound
from ctrip.services import webhook_deliveries, webhook_endpoints
from tests.conftest import WEBHOOK_SECRET
from tests.factories import MERCHANT_ID
from tests.services.office import OTHER_MERCHANT_ID, Office
from tests.sink import Sink

pytestmark = pytest.mark.infra
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def open_letters(office: Office) -> int:
    with office.ctx.sessions.begin() as session:
        return sum(dead_letters.count_open(session).values())


def redeliver(office: Office, delivery_id: str) -> dict[str, object]:
    return webhook_deliveries.redeliver(office.ctx, MERCHANT_ID, delivery_id)


def redeliver_since(office: Office, since: datetime = LONG_AGO, endpoint_id: str | None = None) -> tuple[int, int]:
    found: Any = webhook_deliveries.redeliver_since(office.ctx, MERCHANT_ID, since=since, endpoint_id=endpoint_id)
    return found["matched"], found["done"]


# --- once more ------------------------------------------------------------------------------------------------------


def test_a_dead_delivery_is_redelivered_under_the_same_id_and_its_letter_is_closed(office: Office, sink: Sink) -> None:
    sink.answer = lambda _: 500
    delivery_id, _ = office.owe(sink.url)
    office.exhaust(delivery_id)
    assert open_letters(office) == 1
    told = redeliver(office, delivery_id)
    assert (told["id"], told["status"], told["attempts"]) == (delivery_id, "pending", 10)
    assert open_letters(office) == 0
    with office.ctx.sessions.begin() as session:
        assert dead_letters.take_requested(session, limit=10) == [], "nobody sends it a second time"
    office.deliver(delivery_id)
    assert (office.row(delivery_id).status, office.row(delivery_id).attempts) == ("pending", 11), "a fresh schedule"
    sink.answer = lambda _: 200
    office.deliver_when_due(delivery_id)
    assert office.row(delivery_id).status == "delivered"
    assert len({received.headers["webhook-id"] for received in sink.received}) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"status": "delivered", "next_attempt_at": None, "delivered_at": sa.func.now(), "attempts": 1},
        {"status": "failed", "next_attempt_at": None, "attempts": 3},
        {"next_attempt_at": sa.func.now() + timedelta(hours=9), "kicked_at": sa.func.now(), "attempts": 2},
    ],
)
def test_whatever_became_of_a_delivery_it_is_due_now_when_somebody_asks(office: Office, sink: Sink, values) -> None:
    delivery_id, _ = office.owe(sink.url)
    office.change(delivery_id, **values)
    redeliver(office, delivery_id)
    with office.ctx.sessions.begin() as session:
        due = work.claim_due(session, Prefix.DELIVERY, limit=10, again_after=timedelta(seconds=10))
    assert [each.row_id for each in due] == [delivery_id]
    office.deliver(delivery_id)
    assert office.row(delivery_id).status == "delivered"
    assert office.row(delivery_id).attempts == values["attempts"] + 1


def test_an_attempt_that_is_being_made_is_left_alone(office: Office, sink: Sink) -> None:
    delivery_id, _ = office.owe(sink.url)
    office.change(delivery_id, lease_until=sa.func.now() + timedelta(seconds=30))
    assert redeliver(office, delivery_id)["status"] == "pending"
    assert office.row(delivery_id).lease_until is not None
    assert office.deliver(delivery_id) is None
    assert sink.received == []


def test_nothing_is_redelivered_to_a_closed_endpoint_nor_for_another_merchant(office: Office, sink: Sink) -> None:
    endpoint = office.hook(sink.url)
    office.pay()
    (delivery_id,) = office.owed_to(endpoint["id"])
    theirs, _ = office.owe(sink.url, merchant_id=OTHER_MERCHANT_ID)
    for unknown in (theirs, "whd_unknown"):
        with pytest.raises(NotFound):
            redeliver(office, unknown)
    webhook_endpoints.delete(office.ctx, MERCHANT_ID, endpoint["id"])
    with pytest.raises(Conflict):
        redeliver(office, delivery_id)
    assert office.row(delivery_id).status == "dead"


def test_all_that_died_since_a_time_is_redelivered_and_nothing_else(
    office: Office, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_deliveries, "BATCH", 2)
    endpoint, closed = office.hook(sink.url), office.hook(sink.url)
    for _ in range(7):
        office.pay()
    early, delivered, pending, *dead = office.owed_to(endpoint["id"])
    lost = {"status": "dead", "next_attempt_at": None, "dead_reason": "schedule"}
    for each in (early, *dead, *office.owed_to(closed["id"])):
        office.change(each, **lost)
    office.change(early, created_at=LONG_AGO)
    office.change(delivered, status="delivered", next_attempt_at=None, delivered_at=sa.func.now())
    office.change(dead[0], status="failed", dead_reason=None)
    webhook_endpoints.change(office.ctx, MERCHANT_ID, closed["id"], status=EndpointStatus.DISABLED)
    since = datetime.now(UTC) - timedelta(hours=1)
    assert redeliver_since(office, since) == (4, 4)
    assert office.owed_to(endpoint["id"], "pending") == [pending, *dead]
    assert {office.row(each).attempts_before_schedule for each in dead} == {0}
    assert redeliver_since(office, since) == (0, 0)
    assert redeliver_since(office) == (1, 1)
    assert office.owed_to(closed["id"], "dead") == office.owed_to(closed["id"])


def test_one_request_redelivers_so_many_and_says_how_many_there_were(
    office: Office, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_deliveries, "BATCH", 2)
    monkeypatch.setattr(webhook_deliveries, "BATCHES", 2)
    endpoint = office.hook(sink.url)
    for _ in range(5):
        office.pay(webhook_url=sink.url)
    for each in office.owed_to(None) + office.owed_to(endpoint["id"]):
        office.change(each, status="dead", next_attempt_at=None, dead_reason="schedule")
    assert redeliver_since(office, endpoint_id=endpoint["id"]) == (5, 4)
    assert redeliver_since(office, endpoint_id=endpoint["id"]) == (1, 1)
    assert office.owed_to(None, "pending") == []
    with pytest.raises(NotFound):
        redeliver_since(office, endpoint_id="whe_unknown")


# --- listed ---------------------------------------------------------------------------------------------------------


def test_deliveries_are_listed_by_endpoint_event_and_status(office: Office, sink: Sink) -> None:
    endpoint = office.hook(sink.url)
    office.pay(webhook_url=sink.url)
    (own,), (hooked,) = office.owed_to(None), office.owed_to(endpoint["id"])
    office.change(own, status="failed", next_attempt_at=None)
    event_id = office.row(own).event_id

    def listed(**filters: str) -> list[str]:
        page: Any = webhook_deliveries.of_merchant(office.ctx, MERCHANT_ID, limit=10, **filters)
        return [each["id"] for each in page["data"]]

    assert listed() == [hooked, own]
    assert listed(endpoint_id=endpoint["id"]) == [hooked]
    assert listed(event_id=event_id) == [hooked, own]
    assert listed(event_id="evt_unknown") == []
    assert (listed(status="pending"), listed(status="dead"), listed(status="delivered")) == ([hooked], [own], [])
    assert listed(endpoint_id=endpoint["id"], status="dead") == []


# --- a merchant's own JSON ------------------------------------------------------------------------------------------

PAYLOAD = '{"b": [],  "a": 1157920892373161954235709850086879078532699846656405640394575840079131296399, "c":"\u00fc"}'


def owe_custom(office: Office, url: str, *, merchant_id: str | None) -> str:
    with office.ctx.sessions.begin() as session:
        return webhooks.owe_custom(session, url=url, payload=PAYLOAD, merchant_id=merchant_id, new_id=office.ctx.new_id)


@pytest.mark.parametrize("merchant_id", [MERCHANT_ID, None])
def test_a_custom_webhook_arrives_byte_for_byte_and_signed_where_a_merchant_vouches(
    office: Office, sink: Sink, merchant_id: str | None
) -> None:
    delivery_id = owe_custom(office, sink.url, merchant_id=merchant_id)
    office.deliver(delivery_id)
    (received,) = sink.received
    assert received.body == PAYLOAD.encode()
    assert received.headers["webhook-id"] == delivery_id
    assert ("webhook-signature" in received.headers) is (merchant_id is not None)
    if merchant_id is not None:
        received.verify(WEBHOOK_SECRET)
        assert webhook_deliveries.find(office.ctx, merchant_id, delivery_id)["event_id"] is None
    assert office.row(delivery_id).status == "delivered"


def test_a_custom_webhook_is_tried_five_times_from_five_seconds_doubling(office: Office, sink: Sink) -> None:
    sink.answer = lambda _: 503
    delivery_id = owe_custom(office, sink.url, merchant_id=None)
    waited: list[float] = []
    for _ in range(4):
        office.deliver_when_due(delivery_id)
        row = office.row(delivery_id)
        ended = row.next_attempt_at - office.history(delivery_id)[-1].at
        waited.append(ended.total_seconds())
    assert all(0.8 * gap <= wait < 1.2 * gap + 2 for gap, wait in zip(CUSTOM_GAPS_S[1:], waited, strict=True))
    assert CUSTOM_GAPS_S == (0, 5, 10, 20, 40)
    office.deliver_when_due(delivery_id)
    assert (office.row(delivery_id).status, office.row(delivery_id).dead_reason) == ("dead", "schedule")
    (letter,) = office.letters()
    assert (letter.row_id, letter.reason) == (delivery_id, "schedule")
    assert len(sink.received) == 5
    assert {received.headers["webhook-id"] for received in sink.received} == {delivery_id}


def test_letters_of_other_rows_stay_open_when_one_is_redelivered(office: Office, sink: Sink) -> None:
    sink.answer = lambda _: 500
    first, second = office.owe(sink.url)[0], office.owe(sink.url)[0]
    office.exhaust(first)
    office.exhaust(second)
    redeliver(office, first)
    with office.ctx.sessions.begin() as session:
        query = sa.select(letters_table.c.row_id).where(letters_table.c.replayed_at.is_(None))
        assert session.scalars(query).all() == [second]
