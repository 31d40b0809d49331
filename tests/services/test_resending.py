"""Webhooks that an operator sends by hand, to a real receiver on loopback."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database.models import merchants, webhook_deliveries
from ctrip.domain.payments import Payment
from ctrip.services import jobs
from ctrip.services.resending import custom_webhook, send_webhook
from ctrip.services.webhooks import deliver
from tests.conftest import WEBHOOK_SECRET
from tests.factories import store_payment
from tests.jobs import BY, due_now, job, see_through
from tests.sink import Sink

pytestmark = pytest.mark.infra


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


def made(ctx: Context, merchant_id: str, **fields: Any) -> Payment:
    """A payment whose first event was delivered, or owed to nobody."""
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id, merchant_id=merchant_id, **fields)
    deliver_all(ctx)
    return payment


def deliver_all(ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        pending = webhook_deliveries.c.status == "pending"
        session.execute(sa.update(webhook_deliveries).where(pending).values(next_attempt_at=sa.func.now()))
        ids = session.scalars(sa.select(webhook_deliveries.c.id).where(pending)).all()
    for delivery_id in ids:
        deliver(ctx, delivery_id)


def send(ctx: Context, payment: Payment) -> dict[str, object]:
    return jobs.send_webhook(ctx, payment_id=payment.id, event_type="payment.created", by=BY)


def post(ctx: Context, url: str, merchant_id: str | None = None, payload: Any = None) -> dict[str, object]:
    payload = {"hello": "world"} if payload is None else payload
    return jobs.custom_webhook(ctx, url=url, payload=payload, merchant_id=merchant_id, by=BY)


def test_an_event_is_sent_again_under_its_own_id_and_the_job_tells_of_each_delivery(ctx, merchant_id, sink) -> None:
    payment = made(ctx, merchant_id, webhook_url=sink.url)
    done = see_through(ctx, send(ctx, payment), send_webhook, between=lambda: deliver_all(ctx))
    (delivery,) = done["result"]["deliveries"]
    assert (done["status"], delivery["url"], delivery["status"]) == ("done", sink.url, "delivered")
    assert (delivery["attempts"], delivery["last_status_code"]) == (1, 200)
    first, second = sink.received
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    second.verify(WEBHOOK_SECRET)


def test_a_payment_that_nobody_is_told_of_fails_the_job(ctx, merchant_id) -> None:
    failed = see_through(ctx, send(ctx, made(ctx, merchant_id)), send_webhook)
    assert (failed["status"], "nobody to tell" in failed["error"]) == ("failed", True)


def test_the_job_waits_while_deliveries_are_tried_again(ctx, merchant_id, sink) -> None:
    payment = made(ctx, merchant_id, webhook_url=sink.url)
    sink.answer = lambda _: 500
    asked = send(ctx, payment)
    send_webhook(ctx, str(asked["id"]))
    deliver_all(ctx)
    due_now(ctx)
    assert send_webhook(ctx, str(asked["id"])).again_in is not None
    (waiting,) = job(ctx, str(asked["id"]))["progress"]["deliveries"]
    assert (waiting["status"], waiting["attempts"], waiting["last_status_code"]) == ("pending", 1, 500)
    sink.answer = lambda _: 200
    deliver_all(ctx)
    due_now(ctx)
    done = see_through(ctx, asked, send_webhook)
    assert done["result"]["deliveries"][0]["attempts"] == 2


@pytest.mark.parametrize("how", [{"status": "failed"}, {"status": "dead", "dead_reason": "schedule"}])
def test_what_is_over_without_having_arrived_is_dead_whatever_ended_it(ctx, sink, how: dict[str, str]) -> None:
    def end() -> None:
        with ctx.sessions.begin() as session:
            session.execute(sa.update(webhook_deliveries).values(next_attempt_at=None, **how))

    done = see_through(ctx, post(ctx, sink.url), custom_webhook, between=end)
    assert (done["status"], done["result"]["deliveries"][0]["status"]) == ("done", "dead")


def test_a_json_of_ones_own_is_posted_byte_for_byte_and_without_a_signature(ctx, sink) -> None:
    payload = {"n": 2**200, "empty": [], "text": "é\u2028", "deep": {"a": [1.5, None, True]}}
    asked = post(ctx, sink.url, payload=payload)
    done = see_through(ctx, asked, custom_webhook, between=lambda: deliver_all(ctx))
    assert done["result"]["deliveries"][0]["status"] == "delivered"
    (received,) = sink.received
    assert received.event == payload
    assert received.headers["content-type"] == "application/json"
    assert "webhook-signature" not in received.headers


def test_with_a_merchant_it_is_signed_with_that_merchants_secret(ctx, merchant_id, sink) -> None:
    see_through(ctx, post(ctx, sink.url, merchant_id), custom_webhook, between=lambda: deliver_all(ctx))
    (received,) = sink.received
    received.verify(WEBHOOK_SECRET)


@pytest.mark.parametrize("kind", ["send-webhook", "custom-webhook"])
def test_a_run_that_was_killed_before_it_committed_makes_one_set_of_deliveries(
    ctx, merchant_id, sink, monkeypatch, kind: str
) -> None:
    payment = made(ctx, merchant_id, webhook_url=sink.url)
    service = send_webhook if kind == "send-webhook" else custom_webhook
    asked = send(ctx, payment) if kind == "send-webhook" else post(ctx, sink.url)

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    # Before the ids are noted, and after they are, before the run is over.
    for place in ("ctrip.database.jobs.note", "ctrip.database.jobs.put_off"):
        with monkeypatch.context() as patched:
            patched.setattr(place, kill)
            with pytest.raises(Killed):
                service(ctx, str(asked["id"]))
        due_now(ctx)
    done = see_through(ctx, asked, service, between=lambda: deliver_all(ctx))
    assert len(done["result"]["deliveries"]) == 1
    with ctx.sessions.begin() as session:
        count = session.scalar(sa.select(sa.func.count()).select_from(webhook_deliveries))
    assert count == 2, "that of the first event, and one more"


def test_no_secret_is_in_the_job(ctx, merchant_id, sink) -> None:
    done = see_through(ctx, post(ctx, sink.url, merchant_id), custom_webhook, between=lambda: deliver_all(ctx))
    with ctx.sessions.begin() as session:
        sealed = session.scalar(sa.select(merchants.c.webhook_secret).where(merchants.c.id == merchant_id))
    assert sealed is not None
    assert WEBHOOK_SECRET not in str(done)
    assert sealed.decode() not in str(done)
