"""The Python client against the API: whatever is lost on the way, a payment is made once, and nothing is guessed."""

import threading
from decimal import Decimal
from pathlib import Path

import pytest
from ctrip_client import ApiError, Client, CtripError, NoAnswer, NotThisOrder, PaymentEnded, TakesTooLong
from ctrip_client.objects import Payment
from ctrip_client.reading import read
from ctrip_client.sending import pause_s

from ctrip.context import Context
from ctrip.database import payments as payment_rows
from ctrip.domain.ids import Prefix
from ctrip.domain.transfers import TransferStatus
from tests.api import Api
from tests.clients.line import Fault, Line, served
from tests.factories import asked_of, make_chain, store_transfer

pytestmark = pytest.mark.infra


def ask(client: Client, **changes: object) -> str:
    """Ask for 12.50 USDC; returns the payment's id."""
    asked: dict[str, object] = {"chain": "anvil", "token": "USDC", "amount": "12.50", "order_id": "1001"} | changes
    return client.create_payment(**asked).id  # type: ignore[arg-type]


def pay(ctx: Context, payment_id: str, *, status: TransferStatus) -> None:
    """Let the whole amount arrive."""
    with ctx.sessions.begin() as session:
        payment = payment_rows.find(session, payment_id)
        assert payment is not None
        store_transfer(session, payment, asked_of(payment).amount, id=ctx.new_id(Prefix.TRANSFER), status=status)
        payment_rows.reassess(session, [payment_id], chains={31337: make_chain()}, new_id=ctx.new_id)


def test_a_payment_is_asked_for_and_told_in_full(client: Client, shop: Api) -> None:
    payment = client.create_payment(
        chain="anvil", token="USDC", amount=Decimal("12.50"), order_id="1001", expires_in=600, metadata={"plan": "pro"}
    )
    assert (payment.status, payment.amount, payment.amount_atomic) == ("pending", Decimal("12.5"), 12_500_000)
    assert (payment.expires_at - payment.created_at).total_seconds() == 600
    assert (payment.is_paid, payment.is_ended, payment.metadata) == (False, False, {"plan": "pro"})
    assert client.payment(payment.id) == payment
    assert payment.address == shop.get(f"/api/v1/payments/{payment.id}").json["address"]


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in (Fault.NONE, Fault.SILENT)])
def test_whatever_happens_on_the_way_one_payment_is_made(client: Client, line: Line, fault: Fault) -> None:
    line.faults = [fault, fault]
    payment_id = ask(client)
    assert [payment.id for payment in client.payments()] == [payment_id]
    keys = [key for asked, key in zip(line.asked, line.keys, strict=True) if asked.startswith("POST")]
    assert (len(keys), len(set(keys))) == (3, 1), "the same key each time"


def test_a_key_of_ones_own_makes_one_payment_however_often_it_is_asked_for(client: Client) -> None:
    payment_id = ask(client, idempotency_key="order-1001")
    client.cancel(payment_id)
    again = client.create_payment(
        chain="anvil", token="USDC", amount="12.50", order_id="1001", idempotency_key="order-1001"
    )
    assert (again.id, again.status) == (payment_id, "canceled"), "as it is by now"
    with pytest.raises(ApiError) as refused:
        ask(client, idempotency_key="order-1001", amount="13")
    assert (refused.value.status, refused.value.code) == (422, "idempotency_key_reused")


def test_without_any_answer_it_says_so_after_so_many_attempts(line: Line, shop: Api) -> None:
    assert shop.key is not None
    line.faults = [Fault.LOST] * 9
    with Client(line.url, api_key=shop.key, attempts=3) as client, pytest.raises(NoAnswer) as lost:
        ask(client)
    assert len(line.asked) == 3
    assert lost.value.idempotency_key == line.keys[0] is not None, "to ask again with"
    line.faults = [Fault.UNANSWERED, Fault.BUSY]
    with Client(line.url, api_key=shop.key, attempts=2) as client:
        with pytest.raises(NoAnswer, match="503 unavailable") as lost:
            ask(client)
        assert len(line.asked) == 3 + 2
        assert [ask(client, idempotency_key=lost.value.idempotency_key)] == [each.id for each in client.payments()]


def test_who_gets_no_answer_once_the_payment_is_made_gets_the_key_as_well(line: Line, shop: Api) -> None:
    line.faults = [Fault.UNANSWERED, Fault.NONE, Fault.LOST, Fault.LOST]
    with Client(line.url, api_key=str(shop.key), attempts=2) as client:
        with pytest.raises(NoAnswer) as lost:
            ask(client)
        assert [ask(client, idempotency_key=lost.value.idempotency_key)] == [each.id for each in client.payments()]


def test_what_changes_more_than_once_is_not_sent_again_unless_nothing_was_done(client: Client, line: Line) -> None:
    payment_id = ask(client)
    line.faults, line.asked = [Fault.UNANSWERED], []
    with pytest.raises(NoAnswer):
        client.cancel(payment_id)
    assert len(line.asked) == 1
    assert client.payment(payment_id).status == "canceled", "it was carried out, and nobody knew"
    other = ask(client)
    line.faults, line.asked = [Fault.BUSY], []
    with pytest.raises(NoAnswer, match="503"):
        client.cancel(other)
    assert len(line.asked) == 1
    line.faults, line.asked = [Fault.LIMITED, Fault.LIMITED], []
    assert client.cancel(other).status == "canceled"
    assert len(line.asked) == 3


def test_a_refusal_says_what_is_wrong_and_is_not_repeated(client: Client, line: Line) -> None:
    with pytest.raises(ApiError) as refused:
        ask(client, amount="1e5")
    assert (refused.value.status, refused.value.code, refused.value.param) == (422, "invalid_amount", "amount")
    assert refused.value.request_id is not None
    assert refused.value.request_id in str(refused.value)
    assert len(line.asked) == 1
    with pytest.raises(ApiError, match="404 not_found"):
        client.payment("pay_01ARZ3NDEKTSV4RRFFQ69G5FAV")
    with pytest.raises(ApiError, match="409 "):
        client.accept(ask(client))


@pytest.mark.parametrize(("amount", "told"), [(Decimal("1E+1"), "10"), ("0.50", "0.5"), (3, "3")])
def test_an_amount_is_exactly_what_was_given(client: Client, amount: Decimal | str | int, told: str) -> None:
    payment = client.create_payment(chain="anvil", token="USDC", amount=amount)
    assert payment.amount == Decimal(told)


def test_an_amount_that_is_a_float_is_refused_before_anything_is_sent(client: Client, line: Line) -> None:
    with pytest.raises(CtripError, match="no float"):
        client.create_payment(chain="anvil", amount=0.1)  # type: ignore[arg-type]
    assert line.asked == []


def test_a_key_never_goes_to_another_machine_in_clear_text_unless_that_is_wanted() -> None:
    with pytest.raises(CtripError, match="clear text"):
        Client("http://api:8000", api_key="sk_1_2")
    Client("http://api:8000", api_key="sk_1_2", allow_http=True)
    Client("https://pay.example", api_key="sk_1_2")


@pytest.mark.parametrize("url", ["pay.example", "ftp://127.0.0.1", "", "https://", "http://[::1"])
def test_what_is_no_url_is_said_at_once(url: str) -> None:
    with pytest.raises(CtripError, match="is no URL"):
        Client(url, api_key="sk_1_2")


@pytest.mark.parametrize("key", ["sk_1_2\n", " sk_1_2", "", "whsec_QUJD"])
def test_what_is_no_key_is_said_at_once_and_not_shown(key: str) -> None:
    with pytest.raises(CtripError, match="no API key") as refused:
        Client("https://pay.example", api_key=key)
    assert "sk_1_2" not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"metadata": {"x": Decimal(1)}}, "written as JSON"),
        ({"metadata": {"x": float("nan")}}, "written as JSON"),
        ({"idempotency_key": "заказ-1"}, "printable ASCII"),
        ({"idempotency_key": ""}, "printable ASCII"),
    ],
)
def test_what_cannot_be_sent_is_said_at_once(client: Client, line: Line, fields: dict[str, object], why: str) -> None:
    with pytest.raises(CtripError, match=why):
        ask(client, **fields)
    assert line.asked == []


def test_a_list_is_read_to_its_end_page_by_page(client: Client, line: Line) -> None:
    asked = [ask(client, order_id=str(number)) for number in range(105)]
    line.asked = []
    assert [payment.id for payment in client.payments(chain="anvil")] == asked[::-1]
    assert len(line.asked) == 2
    assert [payment.id for payment in client.payments(order_id="7", status="pending")] == [asked[7]]


def test_waiting_ends_with_what_was_waited_for(client: Client, api_ctx: Context) -> None:
    payment_id = ask(client)
    payer = threading.Timer(0.3, pay, [api_ctx, payment_id], {"status": TransferStatus.SEEN})
    payer.start()
    assert client.wait(payment_id, until="detected", timeout_s=20, every_s=0.1).status == "detected"
    payer.join()
    with pytest.raises(TakesTooLong, match=r"is not confirmed after 0\.1 s: it is detected"):
        client.wait(payment_id, timeout_s=0.1, every_s=0.2)
    final = ask(client)
    pay(api_ctx, final, status=TransferStatus.FINAL)
    payment = client.wait(final, until="detected", timeout_s=20)
    assert (payment.status, payment.is_paid) == ("confirmed", True), "further than was waited for"
    with pytest.raises(CtripError, match="no waiting for 'paid'"):
        client.wait(final, until="paid")


def test_a_server_that_is_away_for_a_while_is_waited_for(line: Line, shop: Api, api_ctx: Context) -> None:
    with Client(line.url, api_key=str(shop.key), attempts=1) as client:
        payment_id = ask(client)
        pay(api_ctx, payment_id, status=TransferStatus.FINAL)
        line.faults = [Fault.LOST, Fault.BUSY, Fault.GATEWAY, Fault.LIMITED]
        assert client.wait(payment_id, timeout_s=20, every_s=0.01).is_paid
        line.faults = [Fault.BUSY] * 9
        with pytest.raises(TakesTooLong, match="503 unavailable"):
            client.wait(payment_id, timeout_s=0.1, every_s=0.2)
        with pytest.raises(ApiError, match="404 not_found"):
            client.wait("pay_01ARZ3NDEKTSV4RRFFQ69G5FAV", timeout_s=20)


def test_waiting_outlasts_neither_a_silent_server_nor_one_that_asks_for_an_hour(line: Line, shop: Api) -> None:
    with Client(line.url, api_key=str(shop.key), timeout_s=3600) as client:
        payment_id = ask(client)
        line.faults = [Fault.SILENT] * 9
        with pytest.raises(TakesTooLong, match="Timeout"):
            client.wait(payment_id, timeout_s=0.1, every_s=0.1)
        line.faults, line.retry_after = [Fault.LIMITED] * 9, "3600"
        with pytest.raises(TakesTooLong, match="429 rate_limited"):
            client.wait(payment_id, timeout_s=0.1, every_s=0.1)
        line.faults, line.asked = [], []
        assert client.wait(payment_id, until="pending", timeout_s=0).status == "pending", "it is asked once at least"


@pytest.mark.parametrize(
    ("asked_for", "least_s", "most_s"),
    [
        ("7", 7, 7),
        ("3600", 60, 60),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 60, 60),
        ("soon", 0.25, 0.5),
        ("-1", 0.25, 0.5),
        (None, 0.25, 0.5),
    ],
)
def test_the_server_says_how_long_to_wait_up_to_a_minute(asked_for: str | None, least_s: float, most_s: float) -> None:
    assert least_s <= pause_s(1, asked_for) <= most_s


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1"])
def test_neither_a_proxy_nor_a_netrc_gets_at_what_is_sent_in_clear_text(
    line: Line, shop: Api, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {host} login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    # 127.1 is this machine too, and no name by which the client knows it.
    url = line.url.replace("127.0.0.1", host)
    with Client(url, api_key=str(shop.key), allow_http=True) as client:
        assert ask(client).startswith("pay_")


@pytest.mark.parametrize("payment_id", ["../../admin/keys", "..", "a?b=c", "a/b", "%2e%2e", "", "é", "pay_1\n"])
def test_what_is_no_id_leads_to_no_other_path(client: Client, line: Line, payment_id: str) -> None:
    with pytest.raises(CtripError, match="is no id of payments"):
        client.payment(payment_id)
    assert line.asked == []


def test_waiting_for_what_will_not_come_ends_at_once(client: Client) -> None:
    payment_id = ask(client)
    client.cancel(payment_id)
    with pytest.raises(PaymentEnded, match="is canceled"):
        client.wait(payment_id)


def test_the_evidence_of_a_payment_is_told(client: Client, api_ctx: Context) -> None:
    payment_id = ask(client)
    pay(api_ctx, payment_id, status=TransferStatus.FINAL)
    (transfer,) = client.transfers(payment_id)
    assert (transfer.amount, transfer.block_number, transfer.counts) == (Decimal("12.5"), 10, True)
    assert transfer.sender is not None and transfer.sender.startswith("0x")
    assert {event.id for event in client.events()} == {event.id for event in client.events(payment_id)}
    assert list(client.payments(created_after=transfer.block_time))
    events = list(client.events(payment_id))
    assert [event.type for event in events] == ["payment.created", "payment.detected", "payment.confirmed"]
    assert [event.payment and event.payment.version for event in events] == [1, 2, 3]


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"amount": "12.49"}, "amount is 12.5, not 12.49"),
        ({"token": None}, "token is USDC, not None"),
        ({"chain": "base"}, "chain is anvil, not base"),
        ({"order_id": "1002"}, "order_id is 1001, not 1002"),
    ],
)
def test_a_payment_of_another_order_is_told_from_this_one(
    client: Client, changed: dict[str, str | None], wrong: str
) -> None:
    payment = client.payment(ask(client))
    order: dict[str, str | None] = {"order_id": "1001", "amount": "12.50", "chain": "anvil", "token": "USDC"}
    payment.check(**order)  # type: ignore[arg-type]
    for token in ("usdc", payment.token_address):
        payment.check(**order | {"token": token})  # type: ignore[arg-type]
    with pytest.raises(NotThisOrder, match=wrong):
        payment.check(**order | changed)  # type: ignore[arg-type]


def test_a_payment_of_a_later_version_is_read_with_what_this_one_knows(shop: Api) -> None:
    told = shop.ask() | {"checkout_mode": "new", "status": "refunding"}
    read_so = read(Payment, told)
    assert (read_so.id, read_so.status, read_so.is_paid) == (told["id"], "refunding", False)
    undecided = ("chain", "chain_id", "token", "token_address", "decimals", "amount", "amount_atomic", "address")
    for absent in (dict.fromkeys(undecided), {}):
        open_one = read(Payment, {key: value for key, value in told.items() if key not in undecided} | absent)
        assert (open_one.chain, open_one.amount, open_one.token, open_one.address) == (None, None, None, None)
        with pytest.raises(NotThisOrder, match="amount is None"):
            open_one.check(order_id="1001", amount="12.5", chain="anvil", token="USDC")
    with pytest.raises(CtripError, match="this is no payment"):
        read(Payment, told | {"created_at": None})


def test_another_server_is_told_from_ctrip(shop: Api) -> None:
    def page(_: object, start_response: object) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])  # type: ignore[operator]
        return [b"<html>Welcome</html>"]

    with (
        served(page) as line,
        Client(line.url, api_key=str(shop.key)) as client,
        pytest.raises(CtripError, match="is this the URL of cTrip's API"),
    ):
        client.payment("pay_1")
