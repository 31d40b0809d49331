"""The two programs in the Python client's README, as they stand there, against the running stack."""

import os
import re
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from ctrip_client import NotThisOrder

from tests.conftest import ROOT
from tests.shop import Shop
from tests.sink import Sink
from tests.stack import RunningStack
from tests.waiting import wait_until

pytestmark = pytest.mark.infra
CLIENT = ROOT / "clients" / "python"


def programs() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)


def test_a_payment_is_asked_for_and_waited_for(stack: RunningStack) -> None:
    shop = Shop(stack.facts())
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(CLIENT),
        "CTRIP_URL": stack.facts()["api"],
        "CTRIP_KEY": stack.facts()["api_key"],
    }
    program = subprocess.Popen(
        [sys.executable, "-c", programs()[0]], env=environment, stdout=subprocess.PIPE, text=True
    )
    with program:
        assert program.stdout is not None
        told = re.fullmatch(r"pay 12\.5 USDC to (0x[0-9A-Fa-f]{40})\n", program.stdout.readline())
        assert told is not None
        (payment,) = [each for each in shop.get("/payments?order_id=1001")["data"] if each["address"] == told[1]]
        shop.pay(payment)
        last, _ = program.communicate(timeout=60)
    assert (last, program.returncode) == (f"{payment['id']} is confirmed: ship the goods\n", 0)


def test_a_webhook_is_believed_and_compared_with_the_order(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, secret = Shop(stack.facts()), stack.facts()["webhook_secret"]
    monkeypatch.setenv("CTRIP_WEBHOOK_SECRET", secret)
    names: dict[str, Any] = {}
    exec(programs()[1], names)
    with Sink() as sink:
        payment = shop.ask("0.5", order_id="1002", webhook_url=sink.url)
        order = {
            "id": "1002",
            "amount": Decimal("0.5"),
            "chain": "anvil",
            "token": None,
            "version": 0,
            "is_paid": False,
        }
        shop.pay(payment)
        wait_until(lambda: "payment.confirmed" in sink.types(payment["id"]), within_s=60, what="it is told of")
        posted = list(sink.received)
    for each in reversed(posted):  # in any order, and more than once
        for _ in range(2):
            assert names["on_post"](each.body, each.headers, {payment["id"]: order}) == 204
    assert (order["is_paid"], order["version"]) == (True, len(posted))
    assert names["on_post"](posted[0].body, posted[0].headers, {}) == 204, "of nobody that we know"
    other = {payment["id"]: {**order, "version": 0, "amount": Decimal("0.4")}}
    with pytest.raises(NotThisOrder):
        names["on_post"](posted[-1].body, posted[-1].headers, other)
