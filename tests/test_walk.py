"""The walk: payments from POST to `settled` through every real process, each event delivered once and verified."""

import pytest

from tests.shop import Shop
from tests.sink import Sink
from tests.stack import RunningStack
from tests.waiting import wait_until

pytestmark = pytest.mark.infra

WALK = ["payment.created", "payment.detected", "payment.confirmed", "payment.settled"]


def test_a_native_and_an_erc20_payment_walk_from_post_to_settled(stack: RunningStack) -> None:
    shop = Shop(stack.facts())
    treasury = stack.facts()["treasury"]
    with Sink() as sink:
        coin_before, tokens_before = shop.balance(treasury), shop.balance(treasury, shop.usdc)
        coin = shop.ask("0.5", webhook_url=sink.url)
        tokens = shop.ask("12.50", token="USDC", webhook_url=sink.url)
        assert (coin["status"], tokens["amount"]) == ("pending", "12.5")
        shop.pay(coin)
        shop.pay(tokens)
        for payment in (coin, tokens):
            shop.wait_for(payment, "settled", within_s=60)
            sink.wait_for(payment["id"], WALK, within_s=10)
            ids = [r.headers["webhook-id"] for r in sink.received if r.event["data"]["payment"]["id"] == payment["id"]]
            assert len(ids) == len(set(ids)) == len(WALK), "each event is delivered once"
        for received in sink.received:
            received.verify(stack.facts()["webhook_secret"])
            assert received.headers["webhook-id"] == received.event["id"]
        gas = int(coin["amount_atomic"]) - (shop.balance(treasury) - coin_before)
        assert 0 < gas < 10**16, "the treasury got the coin less the gas of one plain transfer"
        assert shop.balance(treasury, shop.usdc) - tokens_before == 12_500_000
        assert shop.balance(coin["address"]) == 0, "no dust stays behind"
        assert shop.balance(tokens["address"], shop.usdc) == 0
        history = shop.get(f"/payments/{coin['id']}/events")["data"]
        assert [event["version"] for event in history] == [1, 2, 3, 4]


def test_a_price_in_euros_walks_from_its_quotes_to_settled(stack: RunningStack) -> None:
    shop = Shop(stack.facts())
    with Sink() as sink:
        priced = shop.ask_price("49.90", "EUR", ["USDC", None], webhook_url=sink.url)
        path = f"/payments/{priced['id']}"
        assert (priced["chain"], priced["amount"]) == (None, None)
        # The scheduler asks for rates as soon as it runs.
        wait_until(lambda: shop.get(f"{path}/quotes")["data"][0]["amount"], within_s=30, what="there is a rate")
        amounts = [quote["amount"] for quote in shop.get(f"{path}/quotes")["data"]]
        assert amounts == ["54.239131", "0.016688963210702342"], "49.90 at 0.92 and at 2990, rounded up"
        chosen = shop.post(f"{path}/choose", {"chain": shop.stack["chain"], "token": "USDC"})
        assert (chosen["amount"], chosen["address"]) == ("54.239131", priced["address"])
        shop.pay(chosen)
        shop.wait_for(chosen, "settled", within_s=60)
        sink.wait_for(priced["id"], [WALK[0], "payment.updated", *WALK[1:]], within_s=10)
    assert shop.get(path)["quote"] == chosen["quote"]
