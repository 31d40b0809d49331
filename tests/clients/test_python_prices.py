"""The Python client and prices in fiat: asked for, quoted, chosen, and checked against an order."""

from decimal import Decimal

import pytest
from ctrip_client import ApiError, Client, CtripError, NoAnswer, NotThisOrder

from ctrip.context import Context
from tests.clients.line import Fault, Line
from tests.factories import store_rates

pytestmark = pytest.mark.infra
ASSETS = [("anvil", "USDC"), ("anvil", None)]


@pytest.fixture(autouse=True)
def _rates(api_ctx: Context) -> None:
    with api_ctx.sessions.begin() as session:
        store_rates(session, USDC_EUR="0.9")


def ask(client: Client, price: Decimal | str = "49.90", **fields: str) -> str:
    """Ask for a price; returns the payment's id."""
    return client.create_priced_payment(price=price, currency="EUR", assets=ASSETS, order_id="1002", **fields).id


def test_a_price_is_asked_for_quoted_and_chosen(client: Client) -> None:
    payment = client.payment(ask(client, Decimal("49.90")))
    assert (payment.chain, payment.token, payment.amount, payment.quote) == (None, None, None, None)
    assert payment.assets is not None
    assert [(asset.chain, asset.token) for asset in payment.assets] == ASSETS
    token, coin = client.quotes(payment.id)
    assert (token.amount, token.unavailable) == (Decimal("55.444445"), None)
    assert coin.amount is None
    assert coin.unavailable is not None
    chosen = client.choose(payment.id, chain="anvil", token="USDC")
    assert chosen.quote is not None
    assert (chosen.amount, chosen.amount_atomic, chosen.address) == (token.amount, 55_444_445, payment.address)
    assert (chosen.quote.rate, [each.source for each in chosen.quote.sources]) == (Decimal("0.9"), ["static"])
    assert client.payment(payment.id) == chosen


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.UNANSWERED, Fault.BUSY])
def test_whatever_happens_on_the_way_one_is_made(client: Client, line: Line, fault: Fault) -> None:
    line.faults = [fault, fault]
    payment_id = ask(client)
    assert [payment.id for payment in client.payments()] == [payment_id]


def test_a_choice_whose_answer_is_lost_is_not_made_again(client: Client, line: Line) -> None:
    payment_id = ask(client)
    line.faults = [Fault.UNANSWERED]
    with pytest.raises(NoAnswer):
        client.choose(payment_id, chain="anvil", token="USDC")
    with pytest.raises(ApiError) as refused:
        client.choose(payment_id, chain="anvil", token="USDC")
    assert refused.value.status == 409
    assert client.payment(payment_id).token == "USDC"


def test_it_is_compared_with_the_order_by_price_and_currency(client: Client) -> None:
    payment = client.payment(ask(client))
    for told in (payment, client.choose(payment.id, chain="anvil", token="USDC")):
        told.check_price(order_id="1002", price="49.90", currency="EUR")
        for order_id, price, currency in (
            ("1001", "49.90", "EUR"),
            ("1002", "49.9001", "EUR"),
            ("1002", "49.90", "USD"),
        ):
            with pytest.raises(NotThisOrder):
                told.check_price(order_id=order_id, price=price, currency=currency)
    amount = client.create_payment(chain="anvil", amount="1", order_id="1002")
    with pytest.raises(NotThisOrder):
        amount.check_price(order_id="1002", price="1", currency="EUR")


def test_a_price_is_no_float(client: Client) -> None:
    with pytest.raises(CtripError):
        client.create_priced_payment(price=49.9, currency="EUR", assets=ASSETS)  # type: ignore[arg-type]
