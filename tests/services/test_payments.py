"""Payments under concurrency and against the listener, and what an acceptance makes of late money."""

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from ctrip.context import Context
from ctrip.database import payments as rows
from ctrip.database import transfers
from ctrip.database.engine import Sessions, make_engine
from ctrip.database.models import deposit_addresses, emails, events, merchants, sweep_intents
from ctrip.database.models import payments as payment_table
from ctrip.domain.ids import Prefix
from ctrip.domain.payments import Payment, Status
from ctrip.domain.sweeps import IntentKind, IntentState
from ctrip.domain.transfers import TransferStatus
from ctrip.errors import Conflict, CtripError, MisconfiguredError, NotFound, Unavailable
from ctrip.services import creating, payments
from ctrip.services.audit import audit
from ctrip.services.creating import AmountRequest, AssetRequest, PaymentRequest
from tests.api import READ_BLOCK, make_context
from tests.factories import (
    MERCHANT_ID,
    NOON,
    OTHER_TOKEN,
    TREASURY,
    asked_of,
    block_hash,
    block_time,
    make_chain,
    read_to,
    store_merchant,
    store_payment,
    store_transfer,
    tx_hash,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

REQUEST = PaymentRequest(AmountRequest(AssetRequest("anvil", "USDC"), "12.50"))
CHAINS = {31337: make_chain()}


@pytest.fixture
def ctx(sessions: Sessions) -> Context:
    with sessions.begin() as session:
        store_merchant(session)
        read_to(session, READ_BLOCK)
    return make_context(sessions)


@pytest.fixture
def serving(ctx: Context, api_engine: sa.Engine) -> Context:
    """`ctx` as the API holds it: what a merchant asks for is done by a member of ctrip_api."""
    return dataclasses.replace(ctx, sessions=Sessions(api_engine))


def stored(ctx: Context, payment_id: str) -> Payment:
    with ctx.sessions.begin() as session:
        found = rows.find(session, payment_id)
    assert found is not None
    return found


def types(ctx: Context, payment_id: str) -> list[str]:
    """The events of a payment; their versions have no gap."""
    with ctx.sessions.begin() as session:
        query = sa.select(events.c.version, events.c.type).where(events.c.payment_id == payment_id)
        found = session.execute(query.order_by(events.c.version)).all()
    assert [row.version for row in found] == list(range(1, len(found) + 1))
    return [row.type.removeprefix("payment.") for row in found]


def expired(ctx: Context, amount: int = 1000, **changes: object) -> Payment:
    """A payment whose deadline has passed on the chain."""
    with ctx.sessions.begin() as session:
        payment = store_payment(
            session, new_id=ctx.new_id, amount=amount, created_at=NOON, expires_at=block_time(5), **changes
        )
        rows.reassess(session, [payment.id], chains=CHAINS, new_id=ctx.new_id)
    return payment


def pay(ctx: Context, payment: Payment, amount: int = 1000, block: int = 10, **changes: object) -> None:
    with ctx.sessions.begin() as session:
        store_transfer(session, payment, amount, block, id=ctx.new_id(Prefix.TRANSFER), **changes)
        read_to(session, READ_BLOCK)
        rows.reassess(session, [payment.id], chains=CHAINS, new_id=ctx.new_id)


# --- create ---------------------------------------------------------------------------------------------------------


def test_200_creations_from_16_threads_get_200_addresses_and_indexes(ctx: Context) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: creating.create(ctx, MERCHANT_ID, request=REQUEST), range(200)))
    with ctx.sessions.begin() as session:
        issued = session.execute(sa.select(deposit_addresses)).all()
    assert len({row.address for row in issued}) == 200
    assert len({row.derivation_index for row in issued}) == 200
    assert len({row.payment_id for row in issued}) == 200
    assert ctx.wallet is not None
    assert all(ctx.wallet.address(row.derivation_index) == row.address for row in issued)


def test_a_creation_that_fails_stores_nothing_and_its_index_is_never_used(ctx: Context) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        creating.create(ctx, "mer_nobody", request=dataclasses.replace(REQUEST, tolerance_bps=0))
    creating.create(ctx, MERCHANT_ID, request=REQUEST)
    with ctx.sessions.begin() as session:
        assert session.scalars(sa.select(deposit_addresses.c.derivation_index)).all() == [1]


def test_a_process_without_a_wallet_makes_no_payment(ctx: Context) -> None:
    with pytest.raises(MisconfiguredError):
        creating.create(dataclasses.replace(ctx, wallet=None), MERCHANT_ID, request=REQUEST)


def test_with_postgres_away_every_use_case_is_unavailable(ctx: Context) -> None:
    away = Sessions(make_engine("postgresql+psycopg2://nobody@/none?host=/nowhere", process="tests"))
    ctx = dataclasses.replace(ctx, sessions=away)
    use_cases: list[Callable[[], object]] = [
        lambda: creating.create(ctx, MERCHANT_ID, request=REQUEST),
        lambda: payments.find(ctx, MERCHANT_ID, "pay_1"),
        lambda: payments.matching(ctx, MERCHANT_ID, filters={}, limit=1),
        lambda: payments.cancel(ctx, MERCHANT_ID, "pay_1"),
        lambda: payments.accept(ctx, MERCHANT_ID, "pay_1"),
        lambda: payments.transfers(ctx, MERCHANT_ID, "pay_1", limit=1),
        lambda: payments.events(ctx, MERCHANT_ID, "pay_1", limit=1),
        lambda: payments.deliveries(ctx, MERCHANT_ID, "pay_1", limit=1),
    ]
    for use_case in use_cases:
        with pytest.raises(Unavailable):
            use_case()


def test_a_connection_that_the_server_ends_is_unavailable_and_the_next_one_works(ctx: Context) -> None:
    def killed() -> None:
        with ctx.sessions.begin() as session:
            session.execute(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable):
        killed()
    creating.create(ctx, MERCHANT_ID, request=REQUEST)


def test_a_full_pool_is_unavailable(ctx: Context, postgres_url: str) -> None:
    engine = make_engine(postgres_url, process="tests", pool_size=1)
    engine.pool._max_overflow, engine.pool._timeout = 0, 0.1  # type: ignore[attr-defined]
    full = dataclasses.replace(ctx, sessions=Sessions(engine))
    with full.sessions.begin() as session:
        session.execute(sa.text("SELECT 1"))
        with pytest.raises(Unavailable):
            payments.find(full, MERCHANT_ID, "pay_1")
    engine.dispose()


# --- cancel ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"token": OTHER_TOKEN}, {"amount": 1}], ids=["whole", "other asset", "part"])
def test_a_payment_that_a_transfer_reached_cannot_be_canceled(
    ctx: Context, serving: Context, changes: dict[str, object]
) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
        store_transfer(session, payment, **{"amount": 1000} | changes)  # type: ignore[arg-type]
    with pytest.raises(Conflict):
        payments.cancel(serving, MERCHANT_ID, payment.id)
    assert stored(ctx, payment.id).standing.status is Status.PENDING


def test_a_transfer_that_a_reorg_took_does_not_keep_a_payment_from_being_canceled(
    ctx: Context, serving: Context
) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
        store_transfer(session, payment, status=TransferStatus.ORPHANED)
    assert payments.cancel(serving, MERCHANT_ID, payment.id)["status"] == "canceled"


@pytest.mark.parametrize("status", [Status.DETECTED, Status.CONFIRMED, Status.SETTLED, Status.EXPIRED, Status.CANCELED])
def test_only_a_pending_payment_can_be_canceled(ctx: Context, serving: Context, status: Status) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
        session.execute(sa.update(payment_table).values(status=status))
    with pytest.raises(Conflict):
        payments.cancel(serving, MERCHANT_ID, payment.id)


def test_a_payment_canceled_while_the_listener_stores_its_transfer_sees_it_and_stays(
    ctx: Context, serving: Context
) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
    with ThreadPoolExecutor(1) as pool:
        with ctx.sessions.begin() as listener:
            store_transfer(listener, payment)
            canceling = pool.submit(payments.cancel, serving, MERCHANT_ID, payment.id)
            wait_until(lambda: _waiting(ctx), within_s=10, what="the cancellation waits for the listener's lock")
            rows.reassess(listener, [payment.id], chains=CHAINS, new_id=ctx.new_id)
        with pytest.raises(Conflict):
            canceling.result(timeout=10)
    assert stored(ctx, payment.id).standing.status is not Status.CANCELED


def test_a_cancellation_racing_a_transfer_ends_in_one_of_two_lawful_states(ctx: Context, serving: Context) -> None:
    outcomes = [_race(ctx, serving) for _ in range(20)]
    assert set(outcomes) <= {"canceled", "refused"}


def _race(ctx: Context, serving: Context) -> str:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
    start = threading.Barrier(2)

    def listen() -> None:
        start.wait()
        with ctx.sessions.begin() as session:
            store_transfer(session, payment, 1000, 19, id=ctx.new_id(Prefix.TRANSFER))
            rows.reassess(session, [payment.id], chains=CHAINS, new_id=ctx.new_id)

    def cancel() -> str:
        start.wait()
        try:
            payments.cancel(serving, MERCHANT_ID, payment.id)
        except Conflict:
            return "refused"
        return "canceled"

    with ThreadPoolExecutor(2) as pool:
        listening, canceling = pool.submit(listen), pool.submit(cancel)
        listening.result(timeout=20)
        outcome = canceling.result(timeout=20)
    lawful = {
        "canceled": (Status.CANCELED, ["created", "canceled", "late"]),
        "refused": (Status.DETECTED, ["created", "detected"]),
    }
    assert (stored(ctx, payment.id).standing.status, types(ctx, payment.id)) == lawful[outcome]
    return outcome


def _waiting(ctx: Context) -> bool:
    query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with ctx.sessions.begin() as session:
        return bool(session.scalar(query))


# --- accept ---------------------------------------------------------------------------------------------------------


def test_late_money_that_is_final_can_be_accepted(ctx: Context, serving: Context) -> None:
    payment = expired(ctx, customer_email="buyer@example.com")
    pay(ctx, payment)
    shown = payments.accept(serving, MERCHANT_ID, payment.id)
    assert (shown["status"], shown["timing"], shown["settlement"]) == ("confirmed", "late", "waiting")
    with ctx.sessions.begin() as session:
        assert session.scalars(sa.select(emails.c.recipient)).all() == ["buyer@example.com"]
    assert types(ctx, payment.id) == ["created", "expired", "late", "accepted"]
    accepted = stored(ctx, payment.id)
    assert (accepted.accepted_amount, accepted.version) == (1000, 4)


def test_too_little_money_can_be_accepted(ctx: Context, serving: Context) -> None:
    payment = expired(ctx)
    pay(ctx, payment, 400)
    shown = payments.accept(serving, MERCHANT_ID, payment.id)
    assert (shown["status"], shown["amount_status"], shown["confirmed_atomic"]) == ("confirmed", "partial", "400")
    assert stored(ctx, payment.id).accepted_amount == 400


def test_what_comes_after_the_amount_that_was_accepted_does_not_count_at_once(ctx: Context, serving: Context) -> None:
    payment = expired(ctx)
    pay(ctx, payment, 400)
    pay(ctx, payment, 300, READ_BLOCK)
    assert counted(ctx, payment) == {400: True, 300: True}
    shown = payments.accept(serving, MERCHANT_ID, payment.id)
    assert (shown["status"], shown["received_atomic"], shown["confirmed_atomic"]) == ("confirmed", "700", "400")
    assert counted(ctx, payment) == {400: True, 300: False}
    assert audit(ctx) == []


def counted(ctx: Context, payment: Payment) -> dict[int, bool]:
    """Which transfers of a payment count, by their amounts."""
    with ctx.sessions.begin() as session:
        return {each.amount: each.counts for each in transfers.of_payments(session, [payment.id])[payment.id]}


def test_money_at_a_canceled_payment_can_be_accepted(ctx: Context, serving: Context) -> None:
    with ctx.sessions.begin() as session:
        payment = store_payment(session, new_id=ctx.new_id)
    payments.cancel(serving, MERCHANT_ID, payment.id)
    pay(ctx, payment)
    assert payments.accept(serving, MERCHANT_ID, payment.id)["status"] == "confirmed"
    assert types(ctx, payment.id) == ["created", "canceled", "late", "accepted"]


def test_an_accepted_payment_whose_money_is_in_the_treasury_is_settled_at_once(ctx: Context, serving: Context) -> None:
    payment = expired(ctx)
    pay(ctx, payment)
    with ctx.sessions.begin() as session:
        _sweep(session, ctx, payment, amount=1000)
        rows.reassess(session, [payment.id], chains=CHAINS, new_id=ctx.new_id)
    shown = payments.accept(serving, MERCHANT_ID, payment.id)
    assert (shown["status"], shown["settlement"]) == ("settled", "done")
    assert types(ctx, payment.id)[-2:] == ["accepted", "settled"]


def _sweep(session: Connection, ctx: Context, payment: Payment, *, amount: int) -> None:
    session.execute(
        sweep_intents.insert().values(
            id=ctx.new_id(Prefix.SWEEP),
            kind=IntentKind.SWEEP,
            chain_id=payment.chain_id,
            address=payment.address,
            token=asked_of(payment).token,
            payment_id=payment.id,
            state=IntentState.DONE,
            sender=payment.address,
            nonce=0,
            recipient=TREASURY,
            amount=amount,
            gas_cost=1,
            mined_tx_hash=tx_hash("sweep"),
            mined_block=15,
            mined_block_hash=block_hash(15),
        )
    )


@pytest.mark.parametrize(
    "changes",
    [None, {"block": 19}, {"token": OTHER_TOKEN}, {"status": TransferStatus.ORPHANED}],
    ids=["nothing", "not final", "another asset", "orphaned"],
)
def test_without_final_money_in_the_asset_there_is_nothing_to_accept(
    ctx: Context, serving: Context, changes: dict[str, object] | None
) -> None:
    payment = expired(ctx)
    if changes is not None:
        pay(ctx, payment, **changes)  # type: ignore[arg-type]
    before = stored(ctx, payment.id)
    with pytest.raises(Conflict):
        payments.accept(serving, MERCHANT_ID, payment.id)
    assert stored(ctx, payment.id) == before, "nothing of the attempt was stored"


@pytest.mark.parametrize("status", [Status.PENDING, Status.DETECTED, Status.CONFIRMED, Status.SETTLED])
def test_only_an_expired_or_canceled_payment_can_be_accepted(ctx: Context, serving: Context, status: Status) -> None:
    payment = expired(ctx)
    pay(ctx, payment)
    with ctx.sessions.begin() as session:
        session.execute(sa.update(payment_table).values(status=status))
    with pytest.raises(Conflict):
        payments.accept(serving, MERCHANT_ID, payment.id)


def test_a_payment_is_accepted_once(ctx: Context, serving: Context) -> None:
    payment = expired(ctx)
    pay(ctx, payment)
    start = threading.Barrier(4)

    def accept() -> bool:
        start.wait()
        try:
            payments.accept(serving, MERCHANT_ID, payment.id)
        except CtripError as error:
            assert isinstance(error, Conflict)
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(future.result() for future in [pool.submit(accept) for _ in range(4)]) == 1
    assert types(ctx, payment.id).count("accepted") == 1


def test_a_payment_of_a_chain_that_is_gone_cannot_be_accepted(ctx: Context) -> None:
    payment = expired(ctx)
    pay(ctx, payment)
    gone = dataclasses.replace(ctx, settings=dataclasses.replace(ctx.settings, chains=ctx.settings.chains[1:]))
    with pytest.raises(Conflict):
        payments.accept(gone, MERCHANT_ID, payment.id)
    assert stored(ctx, payment.id).accepted_at is None


def test_nobody_cancels_or_accepts_what_is_anothers(ctx: Context) -> None:
    payment = expired(ctx)
    pay(ctx, payment)
    with ctx.sessions.begin() as session:
        session.execute(merchants.insert().values(id="mer_other", name="Another shop", webhook_secret=b"sealed"))
    for use_case in (payments.cancel, payments.accept, payments.find):
        with pytest.raises(NotFound):
            use_case(ctx, "mer_other", payment.id)
