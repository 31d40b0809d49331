"""A payment is stored by one statement, with all that follows from it, or with nothing."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ctrip.context import Context
from ctrip.database import creating, idempotency, webhooks
from ctrip.database.bell import Bell
from ctrip.database.deposit_indexes import AT_ONCE, DepositIndexes
from ctrip.database.engine import Sessions
from ctrip.database.models import (
    deposit_addresses,
    events,
    idempotency_keys,
    merchants,
    payments,
    webhook_deliveries,
)
from ctrip.database.prepared import Prepared
from ctrip.domain.idempotency import KEPT_FOR, Once
from ctrip.domain.webhook_endpoints import MOST
from ctrip.errors import (
    ChainNotReady,
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidAmount,
    TooManyOpen,
    Unavailable,
)
from ctrip.recent import Recent
from ctrip.services import payments as payment_service
from ctrip.services import webhook_endpoints
from ctrip.services.creating import AmountRequest, AssetRequest, PaymentRequest, PriceRequest, create
from tests.api import READ_BLOCK, make_context
from tests.factories import MERCHANT_ID, read_to, store_merchant

pytestmark = pytest.mark.infra
REQUEST = PaymentRequest(AmountRequest(AssetRequest("anvil", "USDC"), "12.50"))
ONCE = Once(route="POST /api/v1/payments", key="order-1001", body_hash=b"1" * 32)
HOOK = "https://shop.example/hooks"


@pytest.fixture
def ctx(sessions: Sessions) -> Context:
    with sessions.begin() as session:
        store_merchant(session)
        read_to(session, READ_BLOCK)
    return make_context(sessions)


def count(ctx: Context, table: sa.Table) -> int:
    with ctx.sessions.begin() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


class Asked:
    """How often Postgres is asked: what goes straight to the driver, and what goes through SQLAlchemy."""

    def __init__(self, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times, run = 0, Prepared._run

        def counted(prepared: Prepared, *args: Any) -> Any:
            self.times += 1
            return run(prepared, *args)

        monkeypatch.setattr(Prepared, "_run", counted)
        sa.event.listen(ctx.sessions.engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self.times += 1


@pytest.mark.parametrize("once", [None, ONCE], ids=["without a key", "with one"])
def test_a_create_is_one_round_trip(ctx: Context, monkeypatch: pytest.MonkeyPatch, once: Once | None) -> None:
    create(ctx, MERCHANT_ID, request=REQUEST)
    asked = Asked(ctx, monkeypatch)
    create(ctx, MERCHANT_ID, request=dataclasses.replace(REQUEST, webhook_url=HOOK), once=once)
    sa.event.remove(ctx.sessions.engine, "before_cursor_execute", asked._count)
    assert asked.times == 1
    assert (count(ctx, payments), count(ctx, events), count(ctx, webhook_deliveries)) == (2, 2, 1)


def test_nothing_is_asked_once_a_payment_is_stored(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    add, asked = creating.add, Asked(ctx, monkeypatch)
    by_then: list[int] = []

    def added(*args: Any, **kwargs: Any) -> bool:
        is_made = add(*args, **kwargs)
        ctx.recent.clear()  # what was believed for a second is out of date just now
        by_then.append(asked.times)
        return is_made

    monkeypatch.setattr(creating, "add", added)
    create(ctx, MERCHANT_ID, request=REQUEST, once=ONCE)
    sa.event.remove(ctx.sessions.engine, "before_cursor_execute", asked._count)
    assert by_then == [asked.times], "it is answered, whether Postgres is there by then or not"


def test_each_destination_that_wants_it_gets_a_delivery_and_the_relay_is_woken(ctx: Context) -> None:
    urls = [f"https://shop.example/{number}" for number in range(MOST)]
    for number, url in enumerate(urls):
        wanted = ["payment.settled"] if number == 3 else [["*"], ["payment.*"], ["payment.created"]][number % 3]
        webhook_endpoints.create(ctx, MERCHANT_ID, url=url, wanted=wanted)
    with ctx.sessions.begin() as session:
        session.execute(sa.insert(merchants).values(id="mer_2", name="Another", webhook_secret=b"sealed"))
    webhook_endpoints.create(ctx, "mer_2", url="https://another.example/", wanted=["*"])
    bell = Bell(ctx.sessions)
    create(ctx, MERCHANT_ID, request=dataclasses.replace(REQUEST, webhook_url=HOOK))
    assert bell.wait(5)
    bell.close()
    with ctx.sessions.begin() as session:
        found = session.execute(sa.select(webhook_deliveries)).all()
        event = session.execute(sa.select(events)).one()
    assert sorted(row.url for row in found) == sorted([HOOK, *urls[:3], *urls[4:]])
    assert {(row.event_id, row.payment_id, row.merchant_id) for row in found} == {
        (event.id, event.payment_id, MERCHANT_ID)
    }
    assert {row.origin for row in found} == {"https://shop.example:443"}
    assert {(row.status, row.payload) for row in found} == {("pending", None)}
    assert len({len(row.id) for row in found}) == 1 and all(row.next_attempt_at for row in found)
    assert [row.endpoint_id for row in found].count(None) == 1
    with ctx.sessions.begin() as session:
        again = webhooks.owe_again(session, event_id=event.id, new_id=ctx.new_id)
        rows = session.execute(sa.select(webhook_deliveries).where(webhook_deliveries.c.id.in_(again))).all()
    assert {(row.endpoint_id, row.url) for row in rows} == {(row.endpoint_id, row.url) for row in found}, "as ever"


@pytest.mark.parametrize("table", [deposit_addresses, events, webhook_deliveries, idempotency_keys], ids=str)
def test_what_cannot_be_stored_whole_is_not_stored_at_all(ctx: Context, table: sa.Table) -> None:
    with ctx.sessions.begin() as session:
        session.execute(sa.text(f"ALTER TABLE {table} ADD CONSTRAINT never CHECK (false) NOT VALID"))
    try:
        with pytest.raises(sa.exc.IntegrityError):
            create(ctx, MERCHANT_ID, request=dataclasses.replace(REQUEST, webhook_url=HOOK), once=ONCE)
    finally:
        with ctx.sessions.begin() as session:
            session.execute(sa.text(f"ALTER TABLE {table} DROP CONSTRAINT never"))
    assert (count(ctx, table), count(ctx, payments)) == (0, 0)
    create(ctx, MERCHANT_ID, request=REQUEST, once=ONCE)
    assert count(ctx, payments) == 1


def test_a_replay_uses_no_index_up(ctx: Context) -> None:
    first = create(ctx, MERCHANT_ID, request=REQUEST, once=ONCE)
    again = create(ctx, MERCHANT_ID, request=REQUEST, once=ONCE)
    assert (again.body, again.is_replay) == (first.body, True)
    create(ctx, MERCHANT_ID, request=REQUEST)
    with ctx.sessions.begin() as session:
        taken = session.scalars(sa.select(deposit_addresses.c.derivation_index)).all()
    assert sorted(taken) == [0, 1]


@pytest.mark.parametrize(
    "now_refused",
    [
        AmountRequest(AssetRequest("anvil", "USDC"), "0"),
        AmountRequest(AssetRequest("gone", "USDC"), "12.50"),
        AmountRequest(AssetRequest("fresh"), "12.50"),
        PriceRequest("12.50", "CHF", (AssetRequest("anvil"),)),
    ],
    ids=str,
)
def test_what_was_answered_once_is_answered_so_again_whatever_is_configured_now(
    ctx: Context, now_refused: AmountRequest | PriceRequest
) -> None:
    first = create(ctx, MERCHANT_ID, request=REQUEST, once=ONCE)
    # The same body, which today would be refused.
    today = PaymentRequest(now_refused)
    assert create(ctx, MERCHANT_ID, request=today, once=ONCE).body == first.body
    other = dataclasses.replace(ONCE, body_hash=b"2" * 32)
    with pytest.raises(IdempotencyMismatch):
        create(ctx, MERCHANT_ID, request=today, once=other)


def test_a_refused_request_is_refused_again(ctx: Context) -> None:
    for _ in range(2):
        with pytest.raises(InvalidAmount):
            create(
                ctx, MERCHANT_ID, request=PaymentRequest(AmountRequest(AssetRequest("anvil", "USDC"), "0")), once=ONCE
            )
    with pytest.raises(ChainNotReady):
        create(ctx, MERCHANT_ID, request=PaymentRequest(AmountRequest(AssetRequest("fresh"), "12.50")), once=ONCE)


def test_a_key_whose_answer_is_out_of_date_is_free_for_one(ctx: Context) -> None:
    create(ctx, MERCHANT_ID, request=REQUEST, once=ONCE)
    later = dataclasses.replace(ctx, now=lambda: ctx.now() + KEPT_FOR + timedelta(seconds=1))
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: _answer(later), range(8)))
    assert count(ctx, payments) == 2
    assert len({answer for answer in answers if answer is not None}) == 1


def _answer(ctx: Context) -> str | None:
    try:
        return create(ctx, MERCHANT_ID, request=REQUEST, once=ONCE).body
    except IdempotencyInFlight:
        return None


def test_while_another_holds_the_key_nothing_is_stored(ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        number = idempotency.lock_number(MERCHANT_ID, ONCE)
        session.execute(sa.select(sa.func.pg_try_advisory_xact_lock(number)))
        with pytest.raises(IdempotencyInFlight):
            create(ctx, MERCHANT_ID, request=REQUEST, once=ONCE)
    assert count(ctx, payments) == 0
    create(ctx, MERCHANT_ID, request=REQUEST, once=ONCE)
    with ctx.sessions.begin() as session:
        assert session.scalars(sa.select(deposit_addresses.c.derivation_index)).all() == [0], "no index was lost"


def test_a_merchant_has_so_many_open_payments_and_no_more(ctx: Context) -> None:
    with ctx.sessions.begin() as session:
        session.execute(sa.insert(merchants).values(id="mer_2", name="Another", webhook_secret=b"sealed"))
    few = dataclasses.replace(ctx, settings=dataclasses.replace(ctx.settings, max_open_payments=3), recent=Recent())
    made = [json.loads(create(few, MERCHANT_ID, request=REQUEST, once=once).body) for once in (None, None, ONCE)]
    with pytest.raises(TooManyOpen, match="3 payments are open"):
        create(few, MERCHANT_ID, request=REQUEST)
    assert create(few, MERCHANT_ID, request=REQUEST, once=ONCE).is_replay, "what was answered once stays so"
    create(few, "mer_2", request=REQUEST)
    payment_service.cancel(few, MERCHANT_ID, made[0]["id"])
    later = dataclasses.replace(few, recent=Recent())
    create(later, MERCHANT_ID, request=REQUEST)
    with pytest.raises(TooManyOpen):
        create(dataclasses.replace(few, recent=Recent()), MERCHANT_ID, request=REQUEST)
    assert count(ctx, payments) == 5


@pytest.mark.parametrize(("place_for", "counted_at"), [(9, [0, 1, 2, 3, 4, 5, 6]), (3_000, [0, 3, 6]), (90_000, [0])])
def test_the_farther_the_limit_is_the_less_often_open_payments_are_counted(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, place_for: int, counted_at: list[float]
) -> None:
    """To count a hundred thousand takes as long as thirty creates; others may make a thousand in a second meanwhile."""
    now, counted = [0.0], list[float]()
    monkeypatch.setattr("ctrip.recent.time.monotonic", lambda: now[0])

    def count_open(*_: Any, most: int) -> int:
        counted.append(now[0])
        return most - place_for

    monkeypatch.setattr("ctrip.services.creating.payments.count_open", count_open)
    for second in range(7):
        now[0] = float(second)
        create(ctx, MERCHANT_ID, request=REQUEST)
    assert counted == counted_at


# --- what a process keeps -------------------------------------------------------------------------------------------


def test_indexes_are_taken_some_at_a_time_and_no_two_processes_have_the_same(ctx: Context) -> None:
    one, other = DepositIndexes(), DepositIndexes()
    taken = [each.take(ctx.sessions) for _ in range(AT_ONCE + 1) for each in (one, other)]
    assert sorted(taken) == sorted(set(taken))
    one.give_back(taken[0])
    assert one.take(ctx.sessions) == taken[0]


def test_what_was_read_is_believed_for_a_second_and_what_was_not_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked, recent = [100.0], list[str](), Recent()
    monkeypatch.setattr("ctrip.recent.time.monotonic", lambda: now[0])

    def read(name: str, value: int | None) -> int | None:
        asked.append(name)
        return value

    assert [recent.get("a", lambda: read("a", 0)) for _ in range(3)] == [0, 0, 0]
    assert [recent.get("b", lambda: read("b", None)) for _ in range(2)] == [None, None]
    assert asked == ["a", "b", "b"]
    now[0] += 1.0
    assert recent.get("a", lambda: read("a", 1)) == 1
    recent.clear()
    assert recent.get("a", lambda: read("a", 2)) == 2


def test_what_was_read_before_a_change_is_not_kept_after_it() -> None:
    recent = Recent()

    def read() -> str:
        recent.clear()  # as another thread would, while this one reads
        return "as it was"

    assert recent.get("a", read) == "as it was"
    assert recent.get("a", lambda: "as it is") == "as it is"
    recent.forget("a")
    assert recent.get("a", lambda: "anew") == "anew"


def test_threads_that_run_out_of_indexes_together_take_some_once(ctx: Context) -> None:
    indexes = DepositIndexes()
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda _: indexes.take(ctx.sessions), range(AT_ONCE)))
    assert sorted(taken) == list(range(AT_ONCE))


def test_an_index_that_a_crash_of_postgres_gave_out_twice_is_unavailable_once(ctx: Context, sessions: Sessions) -> None:
    """What a sequence gave to one that had not to wait for the disk may be given again after the crash."""
    other = make_context(sessions, new_id=ctx.new_id)
    create(ctx, MERCHANT_ID, request=REQUEST)
    with sessions.begin() as session:
        session.execute(sa.text("ALTER SEQUENCE deposit_index RESTART"))
    with pytest.raises(Unavailable, match="once more"):
        create(other, MERCHANT_ID, request=REQUEST, once=ONCE)
    assert count(ctx, payments) == 1
    for _ in range(AT_ONCE):
        create(ctx, MERCHANT_ID, request=REQUEST)
    create(other, MERCHANT_ID, request=REQUEST, once=ONCE)
    assert count(ctx, deposit_addresses) == AT_ONCE + 2
