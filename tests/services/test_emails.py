import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ctrip.context import Context
from ctrip.database import dead_letters, emails, payments, transfers, work
from ctrip.database.engine import Sessions
from ctrip.database.models import dead_letters as letter_rows
from ctrip.database.models import emails as rows
from ctrip.database.models import merchants
from ctrip.domain.dead_letters import DeadLetter, Filter, Reason, row_died
from ctrip.domain.emails import DIGEST_GAP, DIGEST_LETTERS, KEPT, Content, EmailKind
from ctrip.domain.ids import Prefix
from ctrip.domain.payments import Payment
from ctrip.outbound.email import Mailer
from ctrip.services.emails import NO_OPERATOR, NO_SERVER, digest, send
from ctrip.settings import Role, Settings
from tests.factories import (
    CHAIN_ID,
    MERCHANT_ID,
    asked_of,
    block_time,
    ids,
    make_chain,
    read_to,
    store_payment,
    store_transfer,
)
from tests.post_office import Mail, PostOffice
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

BUYER, MERCHANT, OPERATOR = "buyer@example.com", "owner@shop.example", "ops@ctrip.example"
MAIL_FROM = "A Shop <shop@shop.example>"
CONTENT = Content(subject="A subject", text="A text\n", html="<p>A text</p>\n")


class Desk:
    """E-mails in a database, and one who sends them."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    def owe(self, recipient: str | None = BUYER) -> str:
        """Store an e-mail that is due."""
        with self.ctx.sessions.begin() as session:
            stored = emails.add(
                session, kind=EmailKind.ENDPOINT_DISABLED, content=CONTENT, recipient=recipient, new_id=self.ctx.new_id
            )
        assert stored is not None
        return stored

    def send(self, email_id: str) -> timedelta | None:
        return send(self.ctx, email_id)

    def send_when_due(self, email_id: str) -> timedelta | None:
        """Let the time pass until the next attempt, and make it."""
        self.change(email_id, next_attempt_at=sa.func.now())
        return self.send(email_id)

    def change(self, email_id: str, **values: Any) -> None:
        with self.ctx.sessions.begin() as session:
            session.execute(sa.update(rows).where(rows.c.id == email_id).values(**values))

    def row(self, email_id: str) -> sa.Row[Any]:
        with self.ctx.sessions.begin() as session:
            return session.execute(sa.select(rows).where(rows.c.id == email_id)).one()

    def stored(self) -> list[sa.Row[Any]]:
        with self.ctx.sessions.begin() as session:
            return list(session.execute(sa.select(rows).order_by(rows.c.id)))

    def letters(self) -> list[DeadLetter]:
        with self.ctx.sessions.begin() as session:
            return dead_letters.matching(session, Filter(), limit=100)

    def die(self, *, queue: str = "webhook", exception: str = "ValueError: secret words", count: int = 1) -> list[str]:
        """Store dead letters that nobody was told of; returns their ids."""
        made = [self.ctx.new_id(Prefix.DEAD_LETTER) for _ in range(count)]
        with self.ctx.sessions.begin() as session:
            for letter_id in made:
                letter = row_died(
                    queue=queue,
                    actor="send_webhook",
                    row_id=f"row of {letter_id}",
                    reason=Reason.RETRIES,
                    exception=exception,
                    first_at=datetime.now(UTC),
                    died_at=datetime.now(UTC),
                )
                dead_letters.add(session, letter, letter_id=letter_id)
        return made

    def let_pass(self, span: timedelta) -> None:
        """Make all that is stored older."""
        with self.ctx.sessions.begin() as session:
            session.execute(sa.update(rows).values(created_at=rows.c.created_at - span))


@pytest.fixture
def office() -> Iterator[PostOffice]:
    with PostOffice() as office:
        yield office


@pytest.fixture
def desk(sessions: Sessions, office: PostOffice) -> Desk:
    settings = Settings(
        role=Role.EMAIL,
        env="test",
        log_level="INFO",
        database_url="",
        redis_url="",
        chains=(make_chain(),),
        operator_email=OPERATOR,
    )
    with sessions.begin() as session:
        values = {"id": MERCHANT_ID, "name": "Bücher & Co", "email": MERCHANT, "webhook_secret": b"sealed"}
        session.execute(merchants.insert().values(values))
    return Desk(
        Context(
            settings=settings,
            sessions=sessions,
            now=lambda: datetime.now(UTC),
            new_id=ids(),
            clients={},
            mailer=Mailer(office.url, mail_from=MAIL_FROM),
        )
    )


def busy(_: Mail) -> str:
    return f"451 4.3.0 {BUYER} later"


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("ctrip_email_attempts_total", {"outcome": outcome}) or 0


# --- sent -----------------------------------------------------------------------------------------------------------


def test_an_e_mail_is_sent_once_and_is_over(desk: Desk, office: PostOffice) -> None:
    before = counted("sent")
    email_id = desk.owe()
    assert desk.send(email_id) is None
    assert desk.send(email_id) is None
    (mail,) = office.received
    assert mail.recipients == (BUYER,)
    assert mail.message["Message-ID"] == f"<{email_id}@shop.example>"
    assert (mail.message["Subject"], mail.part("plain"), mail.part("html")) == (
        CONTENT.subject,
        CONTENT.text,
        CONTENT.html,
    )
    row = desk.row(email_id)
    assert (row.status, row.attempts, row.next_attempt_at, row.lease_until, row.last_error) == (
        "sent",
        1,
        None,
        None,
        None,
    )
    assert row.sent_at is not None
    assert counted("sent") == before + 1


@pytest.mark.parametrize(
    "values",
    [
        {"next_attempt_at": sa.func.now() + timedelta(seconds=1)},
        {"lease_until": sa.func.now() + timedelta(seconds=1)},
        {"status": "failed", "next_attempt_at": None},
        {"status": "dead", "next_attempt_at": None},
        {"status": "skipped", "next_attempt_at": None},
        {"status": "sent", "next_attempt_at": None, "sent_at": sa.func.now()},
    ],
)
def test_nothing_is_sent_of_an_e_mail_that_is_not_due_or_is_anothers(
    desk: Desk, office: PostOffice, values: dict[str, Any]
) -> None:
    email_id = desk.owe()
    desk.change(email_id, **values)
    assert desk.send(email_id) is None
    assert desk.send("eml_unknown") is None
    assert office.received == []
    assert desk.row(email_id).fence == 0


def test_no_transaction_is_open_while_the_server_takes_its_time(desk: Desk, office: PostOffice) -> None:
    idle: list[int] = []

    def look(_: Mail) -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        with desk.ctx.sessions.begin() as session:
            idle.append(session.scalar(sa.text(query)) or 0)

    office.answer_message = look
    desk.send(desk.owe())
    assert idle == [0]


# --- tried again ----------------------------------------------------------------------------------------------------


def test_three_attempts_from_ten_seconds_doubling_and_then_a_dead_letter(desk: Desk, office: PostOffice) -> None:
    office.answer_message = busy
    email_id = desk.owe()
    for attempt, wait_s in ((1, 10), (2, 20)):
        again_in = desk.send_when_due(email_id)
        assert again_in == timedelta(seconds=wait_s)
        row = desk.row(email_id)
        assert (row.status, row.attempts, row.lease_until) == ("pending", attempt, None)
        with desk.ctx.sessions.begin() as session:
            now = session.scalar(sa.select(sa.func.clock_timestamp()))
        assert timedelta(seconds=wait_s - 5) < row.next_attempt_at - now <= timedelta(seconds=wait_s)
        assert desk.send(email_id) is None, "it is not due yet"
        assert desk.letters() == []
    assert desk.send_when_due(email_id) is None
    row = desk.row(email_id)
    assert (row.status, row.attempts, row.next_attempt_at) == ("dead", 3, None)
    assert row.last_error == "the mail server refused the message (451 4.3.0)"
    (letter,) = desk.letters()
    assert (letter.queue, letter.actor, letter.reason, letter.row_id) == ("email", "send_email", "schedule", email_id)
    assert (letter.args, letter.exception) == ([email_id], row.last_error)
    assert len(office.received) == 3
    assert len({mail.raw for mail in office.received}) == 1, "the same bytes under the same Message-ID"


def test_an_e_mail_arrives_as_soon_as_the_server_takes_it(desk: Desk, office: PostOffice) -> None:
    office.answer_message = lambda _: busy(_) if len(office.received) < 3 else None
    email_id = desk.owe()
    for _ in range(3):
        desk.send_when_due(email_id)
    assert (desk.row(email_id).status, desk.row(email_id).last_error) == ("sent", None)
    assert desk.letters() == []


def test_a_replayed_dead_letter_begins_a_fresh_schedule(desk: Desk, office: PostOffice) -> None:
    office.answer_message = busy
    email_id = desk.owe()
    for _ in range(3):
        desk.send_when_due(email_id)
    with desk.ctx.sessions.begin() as session:
        work.revive(session, [email_id])
    assert desk.send(email_id) == timedelta(seconds=10)
    assert desk.send_when_due(email_id) == timedelta(seconds=20)
    office.answer_message = lambda _: None
    assert desk.send_when_due(email_id) is None
    assert (desk.row(email_id).status, desk.row(email_id).attempts) == ("sent", 6)


def test_neither_log_nor_row_nor_letter_names_whom_a_server_refused(desk: Desk, office: PostOffice) -> None:
    office.answer_recipient = lambda address: f"550 5.1.1 <{address}>: unknown"
    email_id = desk.owe()
    with capture_logs() as logs:
        for _ in range(3):
            desk.send_when_due(email_id)
    assert [line["outcome"] for line in logs] == ["retry", "retry", "dead"]
    (letter,) = desk.letters()
    told = f"{logs} {desk.row(email_id).last_error} {letter}"
    assert "550 5.1.1" in told
    assert "buyer" not in told


# --- skipped --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "recipient", "words"),
    [
        (lambda ctx: replace(ctx, mailer=None), BUYER, NO_SERVER),
        (lambda ctx: replace(ctx, settings=replace(ctx.settings, operator_email=None)), None, NO_OPERATOR),
    ],
    ids=["no server", "no operator"],
)
def test_an_e_mail_that_nobody_can_send_or_get_is_skipped(
    desk: Desk, office: PostOffice, change: Callable[[Context], Context], recipient: str | None, words: str
) -> None:
    email_id = desk.owe(recipient)
    before = counted("skipped")
    with capture_logs() as logs:
        assert send(change(desk.ctx), email_id) is None
    row = desk.row(email_id)
    assert (row.status, row.attempts, row.next_attempt_at, row.last_error) == ("skipped", 0, None, words)
    assert [line["log_level"] for line in logs] == ["debug"], "a worker says it once, at its start"
    assert (office.received, desk.letters()) == ([], [])
    assert counted("skipped") == before + 1


def test_an_e_mail_without_a_recipient_is_the_operators(desk: Desk, office: PostOffice) -> None:
    desk.send(desk.owe(None))
    assert office.received[0].recipients == (OPERATOR,)


# --- overtaken, killed, broken --------------------------------------------------------------------------------------


def test_a_run_that_was_overtaken_records_nothing(desk: Desk, office: PostOffice) -> None:
    email_id = desk.owe()

    def overtake(mail: Mail) -> str | None:
        if len(office.received) > 1:
            return None
        desk.change(email_id, lease_until=sa.func.now() - timedelta(seconds=1))
        with ThreadPoolExecutor(1) as others:  # the server's own loop must be free to serve it
            fenced.append(others.submit(lambda: desk.change(email_id, fence=rows.c.fence + 1)))
        return busy(mail)

    fenced: list[Any] = []
    office.answer_message = overtake
    with capture_logs() as logs:
        assert desk.send(email_id) is None
    assert [line["event"] for line in logs] == ["email_fenced_out"]
    assert (desk.row(email_id).status, desk.row(email_id).attempts) == ("pending", 0)
    desk.send(email_id)
    assert (desk.row(email_id).status, desk.row(email_id).attempts) == ("sent", 1)


class Broken(Mailer):
    """One with a fault that nobody expected."""

    def send(self, *_: object, **__: object) -> None:
        raise ZeroDivisionError


def test_an_exception_gives_the_e_mail_back_and_goes_on(desk: Desk, office: PostOffice) -> None:
    email_id = desk.owe()
    with pytest.raises(ZeroDivisionError):
        send(replace(desk.ctx, mailer=Broken(office.url, mail_from=MAIL_FROM)), email_id)
    row = desk.row(email_id)
    assert (row.status, row.attempts, row.lease_until) == ("pending", 0, None)
    assert desk.send(email_id) is None
    assert len(office.received) == 1


SEND_ONCE = """
import sys
from ctrip.context import Context
from ctrip.database.engine import make_engine, Sessions
from ctrip.outbound.email import Mailer
from ctrip.services.emails import send
from ctrip.settings import Role, Settings
url, smtp_url, email_id = sys.argv[1:]
settings = Settings(role=Role.EMAIL, env="test", log_level="INFO", database_url=url, redis_url="", chains=())
sessions = Sessions(make_engine(url, process="doomed"))
mailer = Mailer(smtp_url, mail_from="A Shop <shop@shop.example>")
send(Context(settings, sessions, lambda: None, lambda prefix: "", {}, mailer=mailer), email_id)
"""


def test_a_kill_between_acceptance_and_record_sends_the_same_message_again(
    desk: Desk, office: PostOffice, postgres_url: str
) -> None:
    doomed: list[subprocess.Popen[bytes]] = []

    def kill(_: Mail) -> None:
        os.kill(wait_until(lambda: doomed, within_s=5)[0].pid, signal.SIGKILL)

    office.answer_message = kill
    email_id = desk.owe()
    doomed.append(subprocess.Popen([sys.executable, "-c", SEND_ONCE, postgres_url, office.url, email_id]))
    assert doomed[0].wait(30) == -signal.SIGKILL
    office.answer_message = lambda _: None
    assert desk.send(email_id) is None
    assert len(office.received) == 1, "the dead process's lease still stands"
    desk.change(email_id, lease_until=sa.func.now() - timedelta(seconds=1))
    desk.send(email_id)
    assert (desk.row(email_id).status, desk.row(email_id).attempts) == ("sent", 1)
    assert len(office.received) == 2
    assert len({mail.message["Message-ID"] for mail in office.received}) == 1


# --- owed -----------------------------------------------------------------------------------------------------------


def confirm(desk: Desk, **asked: Any) -> Payment:
    """Store a payment whose money is final."""
    with desk.ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=desk.ctx.new_id, **asked)
        store_transfer(session, payment, asked_of(payment).amount, block=10)
        read_to(session, 12)
        _reassess(desk, session, payment)
    return payment


def _reassess(desk: Desk, session: Any, payment: Payment) -> None:
    payments.reassess(session, [payment.id], chains={CHAIN_ID: make_chain()}, new_id=desk.ctx.new_id)


def test_buyer_and_merchant_are_written_to_when_a_payment_is_confirmed(desk: Desk, office: PostOffice) -> None:
    payment = confirm(desk, amount=12_500_000, order_id="<b>1001</b>", customer_email=BUYER)
    buyers, merchants_own = desk.stored()
    assert (buyers.kind, buyers.recipient) == ("payment_confirmed_buyer", BUYER)
    assert (merchants_own.kind, merchants_own.recipient) == ("payment_confirmed_merchant", MERCHANT)
    assert {(row.payment_id, row.merchant_id) for row in (buyers, merchants_own)} == {(payment.id, MERCHANT_ID)}
    for row in (buyers, merchants_own):
        assert desk.send(row.id) is None
    first, second = office.received
    assert (first.recipients, second.recipients) == ((BUYER,), (MERCHANT,))
    assert first.message["Subject"] == "Bücher & Co has received your payment of 12.5 USDC"
    assert second.message["Subject"] == "Payment confirmed: 12.5 USDC for order <b>1001</b>"
    assert "&lt;b&gt;1001&lt;/b&gt;" in first.part("html")
    assert "<b>1001</b>" in first.part("plain")


@pytest.mark.parametrize(
    ("merchants_own", "buyers", "told"),
    [
        (MERCHANT, None, ["payment_confirmed_merchant"]),
        (None, BUYER, ["payment_confirmed_buyer"]),
        (None, None, []),
    ],
)
def test_who_has_given_no_address_is_not_written_to(
    desk: Desk, merchants_own: str | None, buyers: str | None, told: list[str]
) -> None:
    with desk.ctx.sessions.begin() as session:
        session.execute(sa.update(merchants).values(email=merchants_own))
    confirm(desk, customer_email=buyers)
    assert [row.kind for row in desk.stored()] == told


def test_a_payment_that_a_reorg_confirms_twice_is_told_once(desk: Desk) -> None:
    payment = confirm(desk, customer_email=BUYER)
    with desk.ctx.sessions.begin() as session:
        transfers.orphan_after(session, CHAIN_ID, 9)
        read_to(session, 12, fork="b", after=9)
        _reassess(desk, session, payment)
        store_transfer(session, payment, asked_of(payment).amount, block=11)
        read_to(session, 14, fork="b", after=12)
        _reassess(desk, session, payment)
        found = payments.find(session, payment.id)
    assert found is not None
    assert (found.version, found.standing.status) == (6, "confirmed"), "created, detected, confirmed, and twice again"
    assert len(desk.stored()) == 2


def test_an_accepted_payment_is_confirmed_too(desk: Desk) -> None:
    with desk.ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=desk.ctx.new_id, customer_email=BUYER)
        store_transfer(session, payment, 1000, block=101)
        read_to(session, 110)
        _reassess(desk, session, payment)
    assert desk.stored() == [], "it came too late"
    with desk.ctx.sessions.begin() as session:
        payments.store_acceptance(session, replace(payment, accepted_amount=1000, accepted_at=block_time(0)))
        _reassess(desk, session, payment)
    assert len(desk.stored()) == 2


def test_what_was_rolled_back_is_told_to_nobody(desk: Desk) -> None:
    with pytest.raises(ZeroDivisionError), desk.ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=desk.ctx.new_id, customer_email=BUYER)
        store_transfer(session, payment, asked_of(payment).amount, block=10)
        read_to(session, 12)
        _reassess(desk, session, payment)
        raise ZeroDivisionError
    assert desk.stored() == []


# --- the digest -----------------------------------------------------------------------------------------------------


def test_the_operator_is_told_of_new_dead_letters_once(desk: Desk, office: PostOffice) -> None:
    *_, newest = desk.die(count=3) + desk.die(exception="KeyError: 'x'")
    email_id = digest(desk.ctx)
    assert email_id is not None
    assert {letter.digest_id for letter in desk.letters()} == {email_id}
    desk.send(email_id)
    (mail,) = office.received
    assert mail.recipients == (OPERATOR,)
    assert mail.message["Subject"] == "cTrip: 4 new dead letters"
    text = mail.part("plain")
    assert "3 in webhook  send_webhook, retries, ValueError\n" in text
    assert "1 in webhook  send_webhook, retries, KeyError\n" in text
    assert f"ctrip dlq show {newest}" in text
    assert "secret words" not in text, "the class of an exception, not what it said"
    desk.let_pass(DIGEST_GAP)
    assert digest(desk.ctx) is None


def test_while_letters_keep_coming_a_digest_comes_every_ten_minutes(desk: Desk) -> None:
    desk.die()
    assert digest(desk.ctx) is not None
    later = desk.die(count=2)
    assert digest(desk.ctx) is None
    desk.let_pass(DIGEST_GAP - timedelta(seconds=5))
    assert digest(desk.ctx) is None
    desk.let_pass(timedelta(seconds=6))
    second = digest(desk.ctx)
    assert second is not None
    assert [letter.id for letter in desk.letters() if letter.digest_id == second] == sorted(later, reverse=True)


def test_dead_e_mails_and_purged_letters_are_not_told_by_e_mail(desk: Desk) -> None:
    desk.die(queue="email")
    with desk.ctx.sessions.begin() as session:
        session.execute(sa.update(letter_rows).where(letter_rows.c.id.in_(desk.die())).values(purged_at=sa.func.now()))
    assert digest(desk.ctx) is None
    desk.die(queue="listener")
    email_id = digest(desk.ctx)
    assert email_id is not None
    assert desk.row(email_id).subject == "cTrip: 1 new dead letter"


def test_where_nothing_died_nothing_is_told(desk: Desk) -> None:
    assert digest(desk.ctx) is None
    assert desk.stored() == []


def test_several_schedulers_at_once_make_one_digest(desk: Desk) -> None:
    for _ in range(5):
        desk.die(count=20)
        with ThreadPoolExecutor(6) as schedulers:
            made = list(schedulers.map(lambda _: digest(desk.ctx), range(12)))
        assert sum(email_id is not None for email_id in made) == 1
        assert {letter.digest_id for letter in desk.letters()} <= {row.id for row in desk.stored()}
        desk.let_pass(DIGEST_GAP)
    assert len(desk.stored()) == 5


def test_a_letter_that_comes_while_a_digest_is_made_waits_for_the_next(desk: Desk) -> None:
    desk.die()
    with desk.ctx.sessions.begin() as other:
        assert emails.may_digest(other, gap=DIGEST_GAP)
        assert len(emails.take_untold(other, limit=10)[0]) == 1
        desk.die()
        assert digest(desk.ctx) is None
    assert digest(desk.ctx) is not None, "the other one has stored none"


def test_a_digest_waits_for_nobody_who_works_at_a_letter(desk: Desk) -> None:
    locked, free = desk.die(count=2)
    with desk.ctx.sessions.begin() as other:
        other.execute(sa.select(letter_rows).where(letter_rows.c.id == locked).with_for_update())
        email_id = digest(desk.ctx)
    assert {letter.id: letter.digest_id for letter in desk.letters()} == {locked: None, free: email_id}


def test_a_flood_of_dead_letters_is_told_in_one_digest_that_says_how_many_more(desk: Desk) -> None:
    query = """
        INSERT INTO dead_letters (id, queue, actor, message, message_id, reason, first_at)
        SELECT 'dlt_' || n, 'webhook', 'send_webhook', '{}', n, 'retries', now() FROM generate_series(1, :count) n
    """
    with desk.ctx.sessions.begin() as session:
        session.execute(sa.text(query), {"count": DIGEST_LETTERS + 7})
    email_id = digest(desk.ctx)
    assert email_id is not None
    row = desk.row(email_id)
    assert row.subject == f"cTrip: {DIGEST_LETTERS + 7} new dead letters"
    assert "and 7 more" in row.text
    assert len(row.html) < 10_000


# --- forgotten ------------------------------------------------------------------------------------------------------


def forget(desk: Desk, limit: int = 10) -> int:
    with desk.ctx.sessions.begin() as session:
        return emails.forget(session, older_than=KEPT, limit=limit)


def test_only_what_is_over_and_spoken_of_by_no_letter_is_forgotten(desk: Desk, office: PostOffice) -> None:
    sent, due, dead = desk.owe(), desk.owe(), desk.owe()
    desk.send(sent)
    office.answer_message = busy
    for _ in range(3):
        desk.send_when_due(dead)
    desk.die()
    told = digest(desk.ctx)
    assert told is not None
    office.answer_message = lambda _: None
    desk.send(told)
    assert forget(desk) == 0, "all of it is young"
    desk.let_pass(KEPT)
    assert forget(desk) == 1
    assert [row.id for row in desk.stored()] == [due, dead, told]
    with desk.ctx.sessions.begin() as session:
        session.execute(letter_rows.delete())
    assert [forget(desk, limit=1) for _ in range(3)] == [1, 1, 0]
    assert [row.id for row in desk.stored()] == [due]
