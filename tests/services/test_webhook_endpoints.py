from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from standardwebhooks import WebhookVerificationError

from ctrip.database import events, webhooks
from ctrip.domain.events import EventType
from ctrip.domain.webhook_endpoints import MOST, EndpointStatus
from ctrip.domain.webhooks import origin
from ctrip.errors import Conflict, InvalidValue, MisconfiguredError, NotFound
from ctrip.services import webhook_deliveries, webhook_endpoints
from ctrip.services.webhooks import deliver, endings
from tests.conftest import WEBHOOK_SECRET
from tests.factories import MERCHANT_ID
from tests.services.office import OTHER_MERCHANT_ID, OWNER, Office
from tests.sink import Received, Sink

pytestmark = pytest.mark.infra
URL = "https://shop.example/hooks"


def verifies(received: Received, secret: str) -> bool:
    try:
        received.verify(secret)
    except WebhookVerificationError:
        return False
    return True


def disable(office: Office, endpoint_id: str) -> None:
    webhook_endpoints.change(office.ctx, MERCHANT_ID, endpoint_id, status=EndpointStatus.DISABLED)


def enable(office: Office, endpoint_id: str) -> None:
    webhook_endpoints.change(office.ctx, MERCHANT_ID, endpoint_id, status=EndpointStatus.ENABLED)


# --- who is owed what -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "event_type", "is_owed"),
    [
        (["*"], EventType.PAYMENT_UPDATED, True),
        (["*"], EventType.TRANSFER_UNEXPECTED, True),
        (["payment.*"], EventType.PAYMENT_CONFIRMED, True),
        (["payment.*"], EventType.TRANSFER_UNEXPECTED, False),
        (["transfer.*"], EventType.TRANSFER_UNEXPECTED, True),
        (["payment.confirmed"], EventType.PAYMENT_CONFIRMED, True),
        (["payment.confirmed"], EventType.PAYMENT_UPDATED, False),
        (["payment.confirmed", "payment.late"], EventType.PAYMENT_LATE, True),
        (["webhook.test"], EventType.PAYMENT_LATE, False),
    ],
)
def test_an_endpoint_is_owed_the_events_that_it_names(office: Office, wanted, event_type, is_owed) -> None:
    endpoint = office.hook(URL, *wanted)
    newer = replace(office.pay(), version=2)
    with office.ctx.sessions.begin() as session:
        owed = events.append(session, [events.News(event_type, newer, {})], new_id=office.ctx.new_id)
    assert [office.row(each).endpoint_id for each in owed] == ([endpoint["id"]] if is_owed else [])


def test_an_event_is_owed_once_to_each_enabled_endpoint_of_its_merchant_and_to_the_payments_own_url(
    office: Office,
) -> None:
    mine = [office.hook(URL)["id"] for _ in range(3)]
    office.hook(URL, merchant_id=OTHER_MERCHANT_ID)
    disable(office, mine[1])
    webhook_endpoints.delete(office.ctx, MERCHANT_ID, mine[2])
    payment = office.pay(webhook_url=URL)
    with office.ctx.sessions.begin() as session:
        told = [delivery for delivery, _ in webhooks.of_payment(session, payment.id, limit=10)]
    assert {(each.endpoint_id, each.url) for each in told} == {(None, URL), (mine[0], URL)}
    assert len({each.event_id for each in told}) == 1, "receivers know the two by one webhook-id"


def test_an_event_is_owed_again_where_it_would_be_owed_now(office: Office) -> None:
    payment = office.pay(webhook_url=URL)
    (first,) = office.owed_to(None)
    endpoint = office.hook(URL)
    with office.ctx.sessions.begin() as session:
        again = webhooks.owe_again(session, event_id=office.row(first).event_id, new_id=office.ctx.new_id)
        assert webhooks.owe_again(session, event_id="evt_unknown", new_id=office.ctx.new_id) == []
        told = [delivery for delivery, _ in webhooks.of_ids(session, again)]
    assert {(each.endpoint_id, each.event_id) for each in told} == {
        (None, office.row(first).event_id),
        (endpoint["id"], office.row(first).event_id),
    }
    assert first not in again
    assert {each.payment_id for each in told} == {payment.id}


# --- signed ---------------------------------------------------------------------------------------------------------


def test_an_endpoint_signs_with_its_own_secret_and_the_payments_url_with_the_merchants(
    office: Office, sink: Sink
) -> None:
    endpoint = office.hook(sink.url + "/mine")
    office.pay(webhook_url=sink.url)
    for each in office.owed_to(None) + office.owed_to(endpoint["id"]):
        office.deliver(each)
    secrets = (WEBHOOK_SECRET, endpoint["secret"])
    signed = {received.path: [verifies(received, each) for each in secrets] for received in sink.received}
    assert signed == {"/hooks": [True, False], "/hooks/mine": [False, True]}


def test_after_a_rotation_both_secrets_sign_for_a_day_the_newest_first(office: Office, sink: Sink) -> None:
    endpoint = office.hook(sink.url)
    secrets = [endpoint["secret"]]

    def signed_by() -> list[bool]:
        sink.received.clear()
        office.pay()
        office.deliver(office.owed_to(endpoint["id"], "pending")[0])
        (received,) = sink.received
        signatures = received.headers["webhook-signature"].split(" ")
        assert len(signatures) == sum(verifies(received, each) for each in secrets)
        alone = replace(received, headers=received.headers | {"webhook-signature": signatures[0]})
        assert verifies(alone, secrets[-1])
        return [verifies(received, each) for each in secrets]

    def rotate() -> None:
        secrets.append(str(webhook_endpoints.rotate_secret(office.ctx, MERCHANT_ID, endpoint["id"])["secret"]))

    assert signed_by() == [True]
    rotate()
    assert signed_by() == [True, True]
    until = office.hook_row(endpoint["id"]).former_until - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < until <= timedelta(hours=24)
    rotate()
    assert signed_by() == [False, True, True], "exactly two sign, whatever happens within a day"
    office.change_hook(endpoint["id"], former_until=sa.func.now())
    assert signed_by() == [False, False, True]


# --- given up -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 200])
def test_a_410_disables_the_endpoint_and_what_was_on_its_way_there_leaves_dead_letters(
    office: Office, sink: Sink, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endings, "END_BATCH", batch)
    gone, other = office.hook(sink.url + "/gone"), office.hook(sink.url + "/other")
    sink.answer = lambda received: 410 if received.path.endswith("/gone") else 200
    for _ in range(4):
        office.pay()
    first, second, *rest = office.owed_to(gone["id"])
    office.change(second, next_attempt_at=sa.func.now() + timedelta(hours=9))
    office.deliver(first)
    row = office.hook_row(gone["id"])
    assert (row.status, row.disabled_reason) == ("disabled", "gone")
    assert office.hook_row(other["id"]).status == "enabled"
    assert [office.row(each).dead_reason for each in (first, second, *rest)] == ["endpoint_disabled"] * 4
    assert {(letter.row_id, letter.reason) for letter in office.letters()} == {
        (each, "endpoint_disabled") for each in (first, second, *rest)
    }
    assert [office.row(each).status for each in office.owed_to(other["id"])] == ["pending"] * 4
    office.pay()
    assert len(office.owed_to(gone["id"])) == 4, "nothing is owed there any more"
    (email,) = office.letters_to_owner()
    assert (email.kind, email.recipient, email.status) == ("endpoint_disabled", OWNER, "pending")
    assert gone["url"] in email.text


def test_nobody_is_written_to_where_the_merchant_has_no_address(office: Office, sink: Sink) -> None:
    endpoint = office.hook(sink.url, merchant_id=OTHER_MERCHANT_ID)
    sink.answer = lambda _: 410
    office.pay(merchant_id=OTHER_MERCHANT_ID)
    office.deliver(office.owed_to(endpoint["id"])[0])
    assert office.hook_row(endpoint["id"]).disabled_reason == "gone"
    assert office.letters_to_owner() == []


def test_five_days_of_nothing_but_failures_disable_an_endpoint_and_one_success_among_them_does_not(
    office: Office, sink: Sink
) -> None:
    endpoint = office.hook(sink.url)
    sink.answer = lambda _: 500

    def fail(hours: int) -> None:
        """Let an attempt fail as if the failures had begun so many hours ago."""
        office.pay()
        if office.hook_row(endpoint["id"]).failing_since is not None:
            office.change_hook(endpoint["id"], failing_since=sa.func.now() - timedelta(hours=hours))
        office.deliver(office.owed_to(endpoint["id"], "pending")[-1])

    fail(0)
    began = office.hook_row(endpoint["id"]).failing_since
    assert timedelta(0) <= datetime.now(UTC) - began < timedelta(minutes=1)
    fail(119)
    assert office.hook_row(endpoint["id"]).status == "enabled"
    sink.answer = lambda _: 204
    office.pay()
    office.deliver(office.owed_to(endpoint["id"], "pending")[-1])
    assert office.hook_row(endpoint["id"]).failing_since is None
    sink.answer = lambda _: 500
    fail(0)
    assert office.letters_to_owner() == []
    fail(120)
    row = office.hook_row(endpoint["id"])
    assert (row.status, row.disabled_reason) == ("disabled", "failing")
    assert office.owed_to(endpoint["id"], "pending") == []
    assert len(office.letters()) == len(office.owed_to(endpoint["id"], "dead")) == 4
    assert [email.kind for email in office.letters_to_owner()] == ["endpoint_disabled"]


def test_an_endpoint_that_is_enabled_again_begins_anew(office: Office, sink: Sink) -> None:
    endpoint = office.hook(sink.url)
    sink.answer = lambda _: 410
    office.pay()
    (delivery_id,) = office.owed_to(endpoint["id"])
    office.deliver(delivery_id)
    with pytest.raises(Conflict, match="disabled"):
        webhook_deliveries.redeliver(office.ctx, MERCHANT_ID, delivery_id)
    enable(office, endpoint["id"])
    row = office.hook_row(endpoint["id"])
    assert (row.status, row.disabled_reason, row.failing_since) == ("enabled", None, None)
    sink.answer = lambda _: 200
    webhook_deliveries.redeliver(office.ctx, MERCHANT_ID, delivery_id)
    office.deliver(delivery_id)
    assert office.row(delivery_id).status == "delivered"
    office.pay()
    assert len(office.owed_to(endpoint["id"])) == 2


# --- closed by its owner --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "close", [disable, lambda office, endpoint_id: webhook_endpoints.delete(office.ctx, MERCHANT_ID, endpoint_id)]
)
def test_what_is_on_its_way_to_an_endpoint_that_its_owner_closes_ends_without_letters(
    office: Office, sink: Sink, close: Callable[[Office, str], None]
) -> None:
    endpoint = office.hook(sink.url)
    for _ in range(3):
        office.pay()
    pending, in_attempt, late = office.owed_to(endpoint["id"])
    office.change(in_attempt, lease_until=sa.func.now() + timedelta(seconds=30))
    close(office, endpoint["id"])
    assert [office.row(each).status for each in (pending, in_attempt, late)] == ["dead", "pending", "dead"]
    office.change(in_attempt, lease_until=None)
    office.deliver(in_attempt)
    assert (office.row(in_attempt).status, office.row(in_attempt).dead_reason) == ("dead", "endpoint_disabled")
    assert (sink.received, office.letters(), office.letters_to_owner()) == ([], [], [])


def test_a_delivery_that_raced_the_end_of_its_endpoint_is_never_posted_and_leaves_a_letter(
    office: Office, sink: Sink
) -> None:
    endpoint = office.hook(sink.url)
    for _ in range(3):
        office.pay()
    office.change_hook(endpoint["id"], status="disabled", disabled_reason="gone")
    first, *rest = office.owed_to(endpoint["id"])
    office.deliver(first)
    assert sink.received == []
    assert [office.row(each).dead_reason for each in (first, *rest)] == ["endpoint_disabled"] * 3
    assert {letter.row_id for letter in office.letters()} == {first, *rest}
    assert [office.row(each).lease_until for each in (first, *rest)] == [None] * 3


# --- moved ----------------------------------------------------------------------------------------------------------


def move(office: Office, endpoint_id: str, url: str) -> None:
    webhook_endpoints.change(office.ctx, MERCHANT_ID, endpoint_id, url=url)


def test_all_that_is_on_its_way_follows_to_the_new_url_at_once(
    office: Office, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_endpoints, "BATCH", 2)
    endpoint, other = office.hook("http://127.0.0.1:2000/old"), office.hook("http://127.0.0.1:2000/other")
    for _ in range(5):
        office.pay()
    *idle, in_attempt = office.owed_to(endpoint["id"])
    office.change_all(kicked_at=sa.func.now())
    office.change(in_attempt, lease_until=sa.func.now() + timedelta(seconds=30), kicked_at=None)
    move(office, endpoint["id"], sink.url)
    assert {office.row(each).url for each in office.owed_to(other["id"])} == {other["url"]}
    assert {office.row(each).url for each in idle} == {sink.url}
    assert office.row(in_attempt).url == endpoint["url"], "it is in another's hands"
    first, _ = office.sent_for()
    deliver(office.ctx, first, turn=timedelta(minutes=1))
    assert [office.row(each).status for each in idle] == ["delivered"] * 4
    assert [received.path for received in sink.received] == ["/hooks"] * 4


def test_what_did_not_follow_at_once_does_so_with_the_first_that_is_to_be_sent(office: Office, sink: Sink) -> None:
    endpoint = office.hook("http://127.0.0.1:2000/old")
    for _ in range(5):
        office.pay()
    first, *rest = office.owed_to(endpoint["id"])
    office.change_hook(endpoint["id"], url=sink.url, origin=origin(sink.url))
    assert office.deliver(first) == first, "it waits for its turn at the new origin"
    assert {office.row(each).url for each in (first, *rest)} == {sink.url}
    assert sink.received == []
    deliver(office.ctx, first, turn=timedelta(minutes=1))
    assert [office.row(each).status for each in (first, *rest)] == ["delivered"] * 5
    assert office.row(first).attempts == 1


@pytest.mark.parametrize("status_code", [410, 500])
def test_what_the_former_url_answers_says_nothing_of_the_endpoint(office: Office, sink: Sink, status_code: int) -> None:
    endpoint = office.hook(sink.url + "/old")
    office.pay()
    (delivery_id,) = office.owed_to(endpoint["id"])

    def answer(_: Received) -> int:
        move(office, endpoint["id"], sink.url + "/new")
        return status_code

    sink.answer = answer
    office.deliver(delivery_id)
    row = office.hook_row(endpoint["id"])
    assert (row.status, row.failing_since) == ("enabled", None)
    sink.answer = lambda _: 200
    office.deliver_when_due(delivery_id)
    office.deliver_when_due(delivery_id)
    assert office.row(delivery_id).status == "delivered"
    assert [received.path for received in sink.received] == ["/hooks/old", "/hooks/new"]


def test_a_success_at_the_former_url_does_not_hide_that_the_new_one_fails(office: Office, sink: Sink) -> None:
    endpoint = office.hook(sink.url + "/old")
    office.pay()
    (delivery_id,) = office.owed_to(endpoint["id"])

    def answer(_: Received) -> int:
        office.change_hook(endpoint["id"], url=sink.url + "/new", failing_since=sa.func.now())
        return 200

    sink.answer = answer
    office.deliver(delivery_id)
    assert office.row(delivery_id).status == "delivered"
    assert office.hook_row(endpoint["id"]).failing_since is not None


@pytest.mark.parametrize(("path", "is_forgotten"), [("/new", True), ("/old", False)])
def test_the_failures_of_the_former_url_are_forgotten_with_it(
    office: Office, sink: Sink, path: str, is_forgotten: bool
) -> None:
    endpoint = office.hook(sink.url + "/old")
    office.change_hook(endpoint["id"], failing_since=sa.func.now() - timedelta(hours=119))
    move(office, endpoint["id"], sink.url + path)
    assert (office.hook_row(endpoint["id"]).failing_since is None) is is_forgotten


# --- the payment's own URL ------------------------------------------------------------------------------------------


def test_a_payments_url_that_is_gone_is_owed_nothing_until_somebody_asks_for_it_again(
    office: Office, sink: Sink
) -> None:
    sink.answer = lambda _: 410
    delivery_id, payment = office.owe(sink.url)
    office.deliver(delivery_id)
    assert office.tell(payment, 2) == []
    webhook_deliveries.redeliver(office.ctx, MERCHANT_ID, delivery_id)
    (while_asked,) = office.tell(payment, 3)
    sink.answer = lambda _: 200
    office.deliver(delivery_id)
    office.deliver(while_asked)
    assert len(office.tell(payment, 4)) == 1, "it has said 200 since"
    another = office.owe(sink.url)[0]
    assert office.row(another).status == "pending"


# --- tested, listed, refused ----------------------------------------------------------------------------------------


def test_a_test_event_goes_to_this_endpoint_alone_whatever_it_subscribed_to(office: Office, sink: Sink) -> None:
    endpoint = office.hook(sink.url, "payment.late")
    other = office.hook(sink.url)
    told: Any = webhook_endpoints.test(office.ctx, MERCHANT_ID, endpoint["id"])
    assert (told["object"], told["endpoint_id"], told["status"]) == ("webhook_delivery", endpoint["id"], "pending")
    assert (office.owed_to(other["id"]), office.owed_to(endpoint["id"])) == ([], [told["id"]])
    office.deliver(told["id"])
    (received,) = sink.received
    received.verify(endpoint["secret"])
    assert (received.event["type"], received.event["data"]) == ("webhook.test", {})
    assert received.event["id"] == told["event_id"]
    disable(office, endpoint["id"])
    with pytest.raises(Conflict):
        webhook_endpoints.test(office.ctx, MERCHANT_ID, endpoint["id"])


def test_a_merchant_has_so_many_endpoints_and_no_more(office: Office) -> None:
    made = [office.hook(URL)["id"] for _ in range(MOST)]
    office.hook(URL, merchant_id=OTHER_MERCHANT_ID)
    with pytest.raises(Conflict, match="at most 16"):
        office.hook(URL)
    webhook_endpoints.delete(office.ctx, MERCHANT_ID, made[0])
    office.hook(URL)


def test_another_merchants_endpoint_and_a_deleted_one_are_not_there(office: Office) -> None:
    theirs = office.hook(URL, merchant_id=OTHER_MERCHANT_ID)["id"]
    deleted = office.hook(URL)["id"]
    webhook_endpoints.delete(office.ctx, MERCHANT_ID, deleted)
    for act in (
        webhook_endpoints.find,
        webhook_endpoints.change,
        webhook_endpoints.rotate_secret,
        webhook_endpoints.test,
        webhook_endpoints.delete,
    ):
        for endpoint_id in (theirs, deleted, "whe_unknown"):
            with pytest.raises(NotFound):
                act(office.ctx, MERCHANT_ID, endpoint_id)
    shown: Any = webhook_endpoints.of_merchant(office.ctx, MERCHANT_ID, limit=10)
    assert shown["data"] == []


@pytest.mark.parametrize("wanted", [[], ["payment"], ["payment.paid"], ["*", "payments.*"], ["", "*"], ["**"]])
def test_events_that_there_are_not_are_refused(office: Office, wanted: list[str]) -> None:
    endpoint = office.hook(URL)
    with pytest.raises(InvalidValue) as at_first:
        webhook_endpoints.create(office.ctx, MERCHANT_ID, url=URL, wanted=wanted)
    with pytest.raises(InvalidValue) as later:
        webhook_endpoints.change(office.ctx, MERCHANT_ID, endpoint["id"], wanted=wanted)
    assert (at_first.value.param, later.value.param) == ("events", "events")


def test_a_process_that_makes_no_secrets_or_checks_no_urls_says_so(office: Office) -> None:
    for ctx in (replace(office.ctx, box=None), replace(office.ctx, poster=None)):
        with pytest.raises(MisconfiguredError):
            webhook_endpoints.create(ctx, MERCHANT_ID, url=URL, wanted=["*"])
