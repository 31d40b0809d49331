"""The e-mail worker and the schedulers as an operator runs them, and a real SMTP server."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import sqlalchemy as sa
from redis import Redis

from actors import QUEUES
from actors.broker import NAMESPACE
from actors.queues import Queues
from ctrip.context import Context
from ctrip.database import payments
from ctrip.database.models import emails as rows
from ctrip.database.models import merchants
from ctrip.domain.dead_letters import Reason, row_died
from ctrip.domain.emails import EmailKind
from ctrip.services import dead_letters
from tests.actors.workers import Master, running
from tests.factories import (
    CHAIN_ID,
    MERCHANT_ID,
    NOON,
    asked_of,
    make_chain,
    read_to,
    store_merchant,
    store_payment,
    store_transfer,
)
from tests.post_office import PASSWORD, URL_CREDENTIALS, PostOffice
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

BUYER, MERCHANT, OPERATOR = "buyer@example.com", "owner@shop.example", "ops@ctrip.example"


@pytest.fixture
def our_queues(redis_client: Redis) -> Queues:
    return Queues(redis_client, namespace=NAMESPACE, heartbeat_timeout_ms=30_000)


def delayed(queues: Queues) -> int:
    (found,) = [depth.delayed for depth in queues.depths(QUEUES) if depth.queue == "email"]
    return found


def confirm_a_payment(ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        store_merchant(session)
        session.execute(sa.update(merchants).where(merchants.c.id == MERCHANT_ID).values(email=MERCHANT))
        payment = store_payment(session, new_id=ctx.new_id, customer_email=BUYER)
        store_transfer(session, payment, asked_of(payment).amount, block=10)
        read_to(session, 12)
        payments.reassess(session, [payment.id], chains={CHAIN_ID: make_chain()}, new_id=ctx.new_id)


def let_something_die(ctx: Context) -> None:
    letter = row_died(
        queue="webhook",
        actor="send_webhook",
        row_id="whd_1",
        reason=Reason.SCHEDULE,
        exception="HTTP 500",
        first_at=NOON,
        died_at=NOON,
    )
    assert dead_letters.record(ctx, letter)


def test_two_schedulers_and_a_worker_write_to_buyer_merchant_and_operator_once(
    ctx: Context, our_queues: Queues, environment: dict[str, str], tmp_path: Path
) -> None:
    refused = list[str]()

    def refuse_once(address: str) -> str | None:
        if address != MERCHANT or refused:
            return None
        refused.append(address)
        return f"450 4.2.1 <{address}> is busy"

    def scheduler(name: str) -> AbstractContextManager[Master]:
        command = (sys.executable, "-m", "actors.scheduler")
        return running(*command, environment=environment, log=tmp_path / f"{name}.log")

    let_something_die(ctx)
    with PostOffice(options={"auth_require_tls": False}, answer_recipient=refuse_once) as office:
        smtp_url = f"smtp://{URL_CREDENTIALS}@127.0.0.1:{office.port}"
        mail = {"SMTP_URL": smtp_url, "MAIL_FROM": "A Shop <shop@shop.example>", "OPERATOR_EMAIL": OPERATOR}
        sending = running("./worker.sh", "email", environment=environment | mail, log=tmp_path / "worker.log")
        with sending as worker, scheduler("first") as first, scheduler("second") as second:

            def arrived(*recipients: str) -> bool:
                return sorted(mail.recipients for mail in office.received) == sorted((each,) for each in recipients)

            wait_until(lambda: arrived(OPERATOR), within_s=40, what="the digest has come")
            assert office.received[0].message["Subject"] == "cTrip: 1 new dead letter"
            wait_until(lambda: all("scheduler_ready" in each.said for each in (first, second)), within_s=20)

            confirm_a_payment(ctx)
            wait_until(lambda: arrived(OPERATOR, BUYER), within_s=20, what="the buyer's has come")
            wait_until(lambda: delayed(our_queues) == 1, within_s=10, what="the merchant's next attempt has a message")
            with ctx.sessions.begin() as session:  # as if its time had come
                later = rows.c.next_attempt_at.is_not(None)
                session.execute(sa.update(rows).where(later).values(next_attempt_at=sa.func.now(), kicked_at=None))
            wait_until(lambda: arrived(OPERATOR, BUYER, MERCHANT), within_s=20, what="the merchant's has come")

            wait_until(lambda: worker.said.count('"outcome": "sent"') == 3, within_s=10)
            said = worker.said + first.said + second.said
            assert "Traceback" not in said
            for kept in (PASSWORD, URL_CREDENTIALS, BUYER, MERCHANT, OPERATOR):
                assert kept not in said
    with ctx.sessions.begin() as session:
        assert sorted(session.scalars(sa.select(rows.c.kind))) == sorted(set(EmailKind) - {EmailKind.ENDPOINT_DISABLED})
