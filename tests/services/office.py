"""Deliveries in a database, and one who brings them out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import sqlalchemy as sa

from ctrip.box import SecretsBox
from ctrip.context import Context
from ctrip.database import dead_letters, events
from ctrip.database.engine import Sessions
from ctrip.database.models import emails, merchants, webhook_attempts, webhook_deliveries
from ctrip.database.models import webhook_endpoints as endpoints
from ctrip.domain.dead_letters import DeadLetter, Filter
from ctrip.domain.events import EventType
from ctrip.domain.ids import Prefix
from ctrip.domain.payments import Payment
from ctrip.outbound.http import Poster
from ctrip.services import relay, webhook_endpoints
from ctrip.services.webhooks import deliver
from ctrip.settings import Role, Settings
from tests.conftest import SECRETS_KEY, WEBHOOK_SECRET
from tests.factories import MERCHANT_ID, ids, make_chain, store_payment

LOOPBACK = (ip_network("127.0.0.0/8"),)
OTHER_MERCHANT_ID = "mer_01OTHER0000000000000000000"
OWNER = "owner@shop.example"


class Office:
    """Deliveries in a database, and one who brings them out."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    def owe(self, url: str, *, merchant_id: str = MERCHANT_ID) -> tuple[str, Payment]:
        """Store a payment whose creation is to be told to `url`; returns the delivery's id too."""
        with self.ctx.sessions.begin() as session:
            payment = store_payment(session, new_id=self.ctx.new_id, webhook_url=url, merchant_id=merchant_id)
            query = sa.select(webhook_deliveries.c.id).where(webhook_deliveries.c.payment_id == payment.id)
            return session.scalars(query).one(), payment

    def owe_more(self, payment: Payment, version: int) -> str:
        """Store another event of a payment; returns the id of its delivery."""
        return self.tell(payment, version)[0]

    def tell(self, payment: Payment, version: int) -> list[str]:
        """Store another event of a payment; returns the ids of what it owes."""
        newer = replace(payment, version=version)
        with self.ctx.sessions.begin() as session:
            news = events.News(EventType.PAYMENT_UPDATED, newer, {"payment": {}})
            return events.append(session, [news], new_id=self.ctx.new_id)

    def deliver(self, delivery_id: str) -> str | None:
        """Make one attempt, and leave what else is due; returns the id of what comes next."""
        comes_next = deliver(self.ctx, delivery_id, turn=timedelta(0))
        return None if comes_next is None else comes_next.delivery_id

    def deliver_when_due(self, delivery_id: str) -> str | None:
        """Let the time pass until the next attempt, and make it."""
        self.change(delivery_id, next_attempt_at=sa.func.now())
        return self.deliver(delivery_id)

    def exhaust(self, delivery_id: str) -> None:
        """Use up the schedule."""
        for _ in range(len(self.ctx.settings.webhook_gaps_s)):
            self.deliver_when_due(delivery_id)

    def change(self, delivery_id: str, **values: Any) -> None:
        with self.ctx.sessions.begin() as session:
            session.execute(
                sa.update(webhook_deliveries).where(webhook_deliveries.c.id == delivery_id).values(**values)
            )

    def change_all(self, **values: Any) -> None:
        with self.ctx.sessions.begin() as session:
            session.execute(sa.update(webhook_deliveries).values(**values))

    def deliver_all(self) -> None:
        """Attempt all that is due, origin by origin."""
        while owed := self.sent_for():
            for each in owed:
                comes_next = deliver(self.ctx, each, turn=timedelta(minutes=5))
                while comes_next is not None and not comes_next.after:
                    comes_next = deliver(self.ctx, comes_next.delivery_id, turn=timedelta(minutes=5))

    def row(self, delivery_id: str) -> sa.Row[Any]:
        with self.ctx.sessions.begin() as session:
            return session.execute(sa.select(webhook_deliveries).where(webhook_deliveries.c.id == delivery_id)).one()

    def history(self, delivery_id: str) -> list[sa.Row[Any]]:
        of = webhook_attempts.c
        with self.ctx.sessions.begin() as session:
            query = sa.select(webhook_attempts).where(of.delivery_id == delivery_id).order_by(of.number)
            return list(session.execute(query))

    def hook(self, url: str, *wanted: str, merchant_id: str = MERCHANT_ID) -> dict[str, Any]:
        """Make an endpoint for these events, or for all; returns it with its secret."""
        made: dict[str, Any] = webhook_endpoints.create(self.ctx, merchant_id, url=url, wanted=list(wanted) or ["*"])
        return made

    def hook_row(self, endpoint_id: str) -> sa.Row[Any]:
        with self.ctx.sessions.begin() as session:
            return session.execute(sa.select(endpoints).where(endpoints.c.id == endpoint_id)).one()

    def change_hook(self, endpoint_id: str, **values: Any) -> None:
        with self.ctx.sessions.begin() as session:
            session.execute(sa.update(endpoints).where(endpoints.c.id == endpoint_id).values(**values))

    def pay(self, **changes: Any) -> Payment:
        """Store a payment with its first event, and whatever that owes."""
        with self.ctx.sessions.begin() as session:
            return store_payment(session, new_id=self.ctx.new_id, **{"merchant_id": MERCHANT_ID} | changes)

    def owed_to(self, endpoint_id: str | None, *statuses: str) -> list[str]:
        """The deliveries to an endpoint, or to none, oldest first; those of these statuses where some are given."""
        of = webhook_deliveries.c
        query = sa.select(of.id).where(of.endpoint_id.is_not_distinct_from(endpoint_id)).order_by(of.id)
        if statuses:
            query = query.where(of.status.in_(statuses))
        with self.ctx.sessions.begin() as session:
            return list(session.scalars(query))

    def letters_to_owner(self) -> list[sa.Row[Any]]:
        """The e-mails that were stored, oldest first."""
        with self.ctx.sessions.begin() as session:
            return list(session.execute(sa.select(emails).order_by(emails.c.id)))

    def now(self) -> datetime:
        """The database's time."""
        with self.ctx.sessions.begin() as session:
            return session.execute(sa.select(sa.func.clock_timestamp())).scalar_one()

    def sent_for(self) -> list[str]:
        """What the relay sends for now."""
        return [due.row_id for due in relay.claim_due(self.ctx, Prefix.DELIVERY)]

    def letters(self) -> list[DeadLetter]:
        with self.ctx.sessions.begin() as session:
            return dead_letters.matching(session, Filter(), limit=100)


def open_office(sessions: Sessions) -> Office:
    """Return one with two merchants, the first of whom has an e-mail address."""
    box = SecretsBox([SECRETS_KEY])
    settings = Settings(
        role=Role.WEBHOOK, env="test", log_level="INFO", database_url="", redis_url="", chains=(make_chain(),)
    )
    with sessions.begin() as session:
        for merchant_id, email in ((MERCHANT_ID, OWNER), (OTHER_MERCHANT_ID, None)):
            secret = box.encrypt(WEBHOOK_SECRET.encode())
            values = {"id": merchant_id, "name": "A shop", "email": email, "webhook_secret": secret}
            session.execute(merchants.insert().values(values))
    return Office(
        Context(
            settings=settings,
            sessions=sessions,
            now=lambda: datetime.now(UTC),
            new_id=ids(),
            clients={},
            box=box,
            poster=Poster(allow=LOOPBACK, timeout_s=10),
        )
    )
