"""What a create costs in the API's process, layer by layer: CPU of one thread, without the HTTP server."""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from ctrip.bootstrap import bootstrap
from ctrip.services import creating, merchants
from ctrip.services.creating import PaymentRequest
from ctrip.settings import Role
from ctrip.web import create_app
from ctrip.web.schemas.payments import CreatePayment

TIMES = 1_500
_BODY: dict[str, Any] = {"chain": "anvil", "amount": "0.015", "order_id": "bench-1", "metadata": {"cart": "3 books"}}


def main() -> None:
    ctx, key = bootstrap(Role.API, os.environ), sys.argv[1]
    assert ctx.wallet is not None
    client, wallet = create_app(ctx).test_client(), ctx.wallet
    identity = merchants.authenticate(ctx, key, address=None)
    request: PaymentRequest = CreatePayment.model_validate(_BODY).request()
    headers = {"Authorization": f"Bearer {key}"}

    def create(number: int) -> None:
        assert client.post("/api/v1/payments", json=_BODY, headers=headers).status_code == 201, number

    costs = {
        "deriving the address": _cost_ms(wallet.address),
        "key": _cost_ms(lambda _: merchants.authenticate(ctx, key, address=None)),
        "validation": _cost_ms(lambda _: CreatePayment.model_validate(_BODY).request()),
    }
    service = _cost_ms(lambda _: creating.create(ctx, identity.merchant_id or "", request=request))
    whole, page = _cost_ms(create), _cost_ms(lambda _: client.get("/livez"))
    costs["rendering and the statement"] = service - costs["deriving the address"]
    costs["Flask, with a test client"] = page
    costs["the rest of the request"] = whole - service - page - costs["key"] - costs["validation"]
    costs["all, without the server"] = whole
    print(json.dumps({name: round(cost, 3) for name, cost in costs.items()}))


def _cost_ms(act: Callable[[int], object]) -> float:
    for number in range(50):
        act(number)
    began = time.thread_time()
    for number in range(TIMES):
        act(number)
    return 1000 * (time.thread_time() - began) / TIMES


if __name__ == "__main__":
    main()
